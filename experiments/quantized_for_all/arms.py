"""What is compared: one supernet, trained in fp32, for all precisions, or in fp32 for as long as the latter took."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from experiments.decode_images import read_cifar10
from quant_search.for_all import QuantizedForAll
from search_spaces.mbconv import mbconv
from supernet.atomic import write_json
from supernet.data import Dataset, load_data
from supernet.recipe import Recipe
from supernet.train import train_supernet

_IMAGE_SIZE = 16  # of CIFAR-10, so that a training takes minutes


@dataclass(frozen=True)
class Arm:
    """One training.

    Args:
        precisions: in which weights are trained; none for fp32 alone.
    """

    name: str
    steps: int
    precisions: tuple[str, ...] = ()


def read_images(name: str, data: Path, images: int) -> Dataset:
    """The digits, or so many images of CIFAR-10, spread evenly over its classes."""
    if name == "digits":
        return load_data("digits")
    dataset = read_cifar10(data, _IMAGE_SIZE)
    order = np.argsort(dataset.y_train, kind="stable")
    spread = order[np.linspace(0, len(order) - 1, min(images, len(order))).round().astype(int)]
    return dataclasses.replace(dataset, x_train=dataset.x_train[spread], y_train=dataset.y_train[spread])


def supernet(dataset: Dataset, seed: int) -> nn.Module:
    """The mbconv tiny network, as every arm begins with it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mbconv(dataset.image_shape[1], dataset.image_shape[0], dataset.num_classes, "tiny")


def trained(arm: Arm, dataset: Dataset, recipe: Recipe, folder: Path) -> tuple[nn.Module, float]:
    """The network of an arm, and the seconds of the processor that its training took; one that is there is read."""
    network = supernet(dataset, recipe.seed)
    wrapped = QuantizedForAll(network, arm.precisions) if arm.precisions else network
    started_s, file = time.process_time(), folder / "seconds.json"
    train_supernet(wrapped, dataset, dataclasses.replace(recipe, steps=arm.steps), folder)
    if not file.exists():
        write_json(file, {"seconds": time.process_time() - started_s})
    return network, float(json.loads(file.read_text())["seconds"])
