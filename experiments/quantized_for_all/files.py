"""Accuracies of subnets as files in ONNX Runtime, and the difference that a way of training makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from nas.candidate import Builder
from quant_search.policy import joint_space, uniform
from search_spaces.network import find_blocks, find_space
from search_spaces.space import Architecture
from supernet.data import Dataset

_RESAMPLES = 10_000


def subnets(network: nn.Module, precisions: Sequence[str], n: int, seed: int) -> list[Architecture]:
    """Random subnets in the joint space, each in a random precision for every block."""
    space = joint_space(find_space(network), find_blocks(network), precisions)
    return [space.row(row) for row in space.sample(n, np.random.default_rng(seed))]


def accuracies(
    network: nn.Module, archs: Sequence[Architecture], precisions: Sequence[str], dataset: Dataset
) -> dict[str, list[float]]:
    """Accuracy in percent of each subnet's file, on validation and test images: in each precision, and as drawn."""
    builder = Builder(network, BlockTracer(network, dataset.image_shape), dataset, precisions)
    found = {name: [accuracy(builder, uniform(arch, name), dataset) for arch in archs] for name in precisions}
    return {**found, "mixed": [accuracy(builder, arch, dataset) for arch in archs]}


def accuracy(builder: Builder, arch: Architecture, dataset: Dataset) -> float:
    """Top-1 in percent of the file of a subnet, on images that no weight has seen."""
    x, y = (np.concatenate(parts) for parts in ((dataset.x_val, dataset.x_test), (dataset.y_val, dataset.y_test)))
    logits = open_session(builder.build(arch).model, parse_device("cpu")).run(x)
    return 100 * float((logits.argmax(1) == y).mean())


def difference(these: Sequence[float], those: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean of the pairs' differences, and the ends of its 95 % bootstrap interval over pairs."""
    pairs = np.subtract(these, those)
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    low, high = np.quantile(pairs[drawn].mean(1), (0.025, 0.975))
    return float(pairs.mean()), float(low), float(high)
