"""Quantizing an mbconv network of 224 pixels: ONNX Runtime's quantizer and calibrator against ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from nas.profiling import neutral_
from quant_search import reference
from quant_search.onnx_qdq import quantize
from quant_search.ranges import activation_ranges, neutral_ranges
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space

ROUNDS, SIZE, IMAGES = 3, 224, 4


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        seconds: median of ours.
        ratio: the reference's median time over ours.
        control: the ratio of two arms of ours, which is 1 but for noise.
    """

    name: str
    seconds: float
    ratio: float
    control: float

    def __str__(self) -> str:
        return f"{self.name:<24} {self.seconds:8.3f} s  {self.ratio:7.1f}x   A/A {self.control:.3f}"


def bench() -> tuple[Row, ...]:
    """Times quantization and calibration, ours and ONNX Runtime's, and made-up ranges against calibration."""
    model = _model()
    nodes = [node.name for node in model.graph.node]
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    theirs, ours = reference.activation_ranges(model, images), activation_ranges(model, images)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name].range_value, ours[name].range_value) for name in ours)
    files = [q(model, nodes, ours).SerializeToString() for q in (reference.quantize, quantize)]
    first, second = (open_session(file, parse_device("cpu")).run(images) for file in files)
    assert np.array_equal(first, second)
    return (
        _measure("quantize", lambda: reference.quantize(model, nodes, ours), lambda: quantize(model, nodes, ours)),
        _measure(
            "calibrate",
            lambda: reference.activation_ranges(model, images),
            lambda: activation_ranges(model, images, nodes=nodes),
        ),
        _measure(
            "neutral ranges",
            lambda: activation_ranges(model, images, nodes=nodes),
            lambda: neutral_ranges(model),
        ),
    )


def _model() -> onnx.ModelProto:
    """The largest network of the space, with the weights of its default."""
    torch.manual_seed(0)
    network = SPACES["mbconv"].build(SIZE, 3, 1000, "mobile")
    space = find_space(network)
    largest = space.architecture({choice.name: choice.options[-1] for choice in space.choices})
    return to_onnx(neutral_(extract(network, largest)), (3, SIZE, SIZE))


def _measure(name: str, theirs: Callable[[], object], ours: Callable[[], object]) -> Row:
    arms: tuple[tuple[Callable[[], object], list[float]], ...] = ((ours, []), (theirs, []), (ours, []))
    for i in range(ROUNDS):
        for work, times in arms if i % 2 == 0 else reversed(arms):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    first, other, second = (statistics.median(times) for _, times in arms)
    return Row(name, first, other / first, second / first)
