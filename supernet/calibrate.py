"""Batch-norm statistics and accuracies of networks that were extracted from a supernet.

Subnets of one supernet see different activations, so running statistics are recomputed for each extracted network
(Yu and Huang, arXiv:1903.05134, section 3.4; BigNAS, arXiv:2003.11142, section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.network import extract
from search_spaces.space import Architecture
from supernet.data import Dataset

CALIBRATION_IMAGES = 512
INHERITED_IMAGES = 2048
_CALIBRATION_SEED = 0


def calibrate_(network: nn.Module, x: np.ndarray | Tensor, batch: int = 256) -> None:
    """Replace the statistics of all batch norms of a plain network by averages over the images `x` (n, c, h, w).

    Batches have nearly equal sizes and count by their size, so that means are exact averages over all images;
    variances are averages of the batches' unbiased variances, exact when `batch >= n`. Changes `network` in place
    and leaves it in evaluation mode. The images should be in random order.

    Raises:
        ValueError: fewer than two images, or a batch below 2.
    """
    device = device_of(network)
    batches = calibration_batches(x, batch)
    if _norms(network):
        calibrate_in_passing_(network, (chunk.to(device) for chunk in batches))
    network.eval()


def calibration_batches(x: np.ndarray | Tensor, batch: int = 256) -> tuple[Tensor, ...]:
    """The images `x` (n, c, h, w) in the fewest nearly equal batches of at most `batch`, each of at least two.

    Raises:
        ValueError: fewer than two images, or a batch below 2.
    """
    if len(x) < 2 or batch < 2:
        raise ValueError(f"calibration needs at least 2 images and a batch of at least 2, got {len(x)} and {batch}")
    return torch.tensor_split(torch.as_tensor(x), min(-(-len(x) // batch), len(x) // 2))


def calibrate_in_passing_(network: nn.Module, batches: Iterable[Tensor]) -> list[Tensor]:
    """As `calibrate_`, on batches (b, …) that are on the network's device; gives its outputs for each.

    They are normalised by the statistics of their own batch: what a network run after this one is calibrated on.
    """
    network.eval()
    norms = _norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    try:
        return _accumulate(network, norms, batches)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def accuracy(network: nn.Module, x: np.ndarray | Tensor, y: np.ndarray | Tensor, batch: int = 512) -> float:
    """Share of the images `x` (n, c, h, w) whose largest logit is that of their label in `y` (n,).

    Runs in evaluation mode and restores the mode it found.

    Raises:
        ValueError: no images, or another number of labels.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"accuracy needs images and as many labels, got {len(x)} and {len(y)}")
    device = device_of(network)
    images, labels = torch.as_tensor(x), torch.as_tensor(y)
    was_training = network.training
    network.eval()
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            logits = network(images[start : start + batch].to(device))
            hits += int((logits.argmax(1) == labels[start : start + batch].to(device)).sum())
    network.train(was_training)
    return hits / len(images)


def inherited_accuracy(
    network: nn.Module, arch: Architecture, dataset: Dataset, images: int = CALIBRATION_IMAGES, batch: int = 256
) -> float:
    """Validation accuracy of the subnet `arch` with the supernet's weights, calibrated on `images` training images.

    Taken on the `inherited_images`. For many subnets of one network see `supernet.prefixes.inherited_accuracies`.
    """
    return calibrated_accuracy_(extract(network, arch), dataset, images, batch)


def calibrated_accuracy_(
    plain: nn.Module, dataset: Dataset, images: int = CALIBRATION_IMAGES, batch: int = 256
) -> float:
    """Calibrate a plain network in place on `images` training images and give its accuracy on `inherited_images`."""
    if device_of(plain).type == "cpu":  # a third faster there
        plain.to(memory_format=torch.channels_last)
    calibrate_(plain, calibration_images(dataset, images), batch)
    return accuracy(plain, *inherited_images(dataset), batch)


def inherited_images(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Validation images (n, c, h, w) and labels (n,), at most `INHERITED_IMAGES`: the same ones every time.

    Their accuracy ranks subnets and trains predictors, so its sampling error of a point or less is small beside
    what they miss anyway.
    """
    rng = np.random.default_rng(_CALIBRATION_SEED)
    chosen = np.sort(rng.permutation(len(dataset.x_val))[:INHERITED_IMAGES])
    return dataset.x_val[chosen], dataset.y_val[chosen]


def calibration_images(dataset: Dataset, images: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Training images (n, c, h, w) in random order, at most `images`: the same ones every time."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    return dataset.x_train[rng.permutation(len(dataset.x_train))[:images]]


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters, the CPU where it has none."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _accumulate(network: nn.Module, norms: list[_BatchNorm], batches: Iterable[Tensor]) -> list[Tensor]:
    seen, outputs = 0, []
    with torch.inference_mode():
        for chunk in batches:
            seen += len(chunk)
            for norm in norms:  # a cumulative average that counts images, not batches
                norm.momentum = len(chunk) / seen
            outputs.append(network(chunk))
    return outputs
