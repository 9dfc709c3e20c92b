"""Batch-norm statistics and accuracies of networks that were extracted from a supernet.

Subnets of one supernet see different activations, so running statistics are recomputed for each extracted network
(Yu and Huang, arXiv:1903.05134, section 3.4; BigNAS, arXiv:2003.11142, section 3.4).
"""

from __future__ import annotations

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
    if len(x) < 2 or batch < 2:
        raise ValueError(f"calibration needs at least 2 images and a batch of at least 2, got {len(x)} and {batch}")
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    try:
        _accumulate(network, norms, x, batch)
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
    device = _device(network)
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

    Taken on at most `INHERITED_IMAGES` validation images, the same ones every time: it ranks subnets and trains
    predictors, so its sampling error of a point or less is small beside what they miss anyway.
    """
    plain = extract(network, arch)
    if _device(plain).type == "cpu":  # a third faster there
        plain.to(memory_format=torch.channels_last)
    calibrate_(plain, calibration_images(dataset, images), batch)
    rng = np.random.default_rng(_CALIBRATION_SEED)
    chosen = np.sort(rng.permutation(len(dataset.x_val))[:INHERITED_IMAGES])
    return accuracy(plain, dataset.x_val[chosen], dataset.y_val[chosen], batch)


def calibration_images(dataset: Dataset, images: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Training images (n, c, h, w) in random order, at most `images`: the same ones every time."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    return dataset.x_train[rng.permutation(len(dataset.x_train))[:images]]


def _accumulate(network: nn.Module, norms: list[_BatchNorm], x: np.ndarray | Tensor, batch: int) -> None:
    device = _device(network)
    seen = 0
    with torch.inference_mode():
        for chunk in torch.tensor_split(torch.as_tensor(x), _chunks(len(x), batch)):
            seen += len(chunk)
            for norm in norms:  # a cumulative average that counts images, not batches
                norm.momentum = len(chunk) / seen
            network(chunk.to(device))


def _chunks(images: int, batch: int) -> int:
    """Fewest nearly equal batches of at most `batch` images, each of at least two."""
    return min(-(-images // batch), images // 2)


def _device(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
