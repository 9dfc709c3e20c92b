"""What all proxies share: a working copy of the network, checked images, and a score that is a number."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


class CannotScore(ValueError):
    """The proxy has no meaning for this network or these images."""


class Score(Protocol):
    """A proxy as its user sees it."""

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> float:
        """The score of an untrained network on images (b, c, h, w) and labels (b,); higher is better.

        The network is left as it was found.  Random draws, where a proxy needs them, come from `seed`.

        Raises:
            CannotScore: the proxy has no meaning for this network or these images.
            ValueError: images or labels of another shape, or images that are not finite.
        """
        ...


def proxy(name: str) -> Callable[[Callable[[nn.Module, Tensor, Tensor], Tensor | float]], Score]:
    """Makes a `Score` of a function that may do to its network what it likes.

    The function gets a copy of the network in train mode, without gradients, whose parameters all require them and
    whose activations do not work in place; torch's global generators stand at the seed, and are put back.
    """

    def decorate(raw: Callable[[nn.Module, Tensor, Tensor], Tensor | float]) -> Score:
        @functools.wraps(raw)
        def score(network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> float:
            _check(images, labels)
            with _seeded(network, seed), torch.enable_grad():
                value = float(torch.as_tensor(raw(_working_copy(network), images, labels)).detach())
            if not math.isfinite(value):
                raise CannotScore(f"{name} of this network is {value}: leave it out, or use other images or weights")
            return value

        return score

    return decorate


@contextlib.contextmanager
def _seeded(network: nn.Module, seed: int) -> Iterator[None]:
    """The generators of the network's devices stand at `seed` inside the block, and are put back.

    `torch.manual_seed` would seed those of other devices too.
    """
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def _check(images: Tensor, labels: Tensor) -> None:
    if images.dim() != 4 or labels.shape != images.shape[:1] or len(images) < 2:
        got = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected at least 2 images (b, c, h, w) and as many labels (b,), got {got}")
    if not images.isfinite().all():
        raise ValueError("images must be finite, got some that are not: look at how they are normalised")


def _working_copy(network: nn.Module) -> nn.Module:
    twin = copy.deepcopy(network).train()
    twin.zero_grad(set_to_none=True)
    twin.requires_grad_(True)
    for module in twin.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # what a hook keeps would change afterwards
    return twin


def weighted_layers(network: nn.Module) -> list[_ConvNd | nn.Linear]:
    """The convolutions and linear layers, whose weights the proxies of pruning look at."""
    return [module for module in network.modules() if isinstance(module, (_ConvNd, nn.Linear))]


def loss_of(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of images (b, c, h, w) and labels (b,).

    Raises:
        ValueError: the network's outputs are no logits (b, classes) for these labels.
    """
    logits: Tensor = network(images)
    if logits.dim() != 2 or labels.min() < 0 or labels.max() >= logits.shape[1]:
        got = f"{tuple(logits.shape)} and labels from {labels.min().item()} to {labels.max().item()}"
        raise ValueError(f"expected logits (b, classes) of images and labels below the number of classes, got {got}")
    return F.cross_entropy(logits, labels)


def loss_gradients(
    network: nn.Module, images: Tensor, labels: Tensor, create_graph: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The weights of convolutions and linear layers with their gradients of the mean cross-entropy.

    Weights that the loss does not depend on are left out.

    Raises:
        CannotScore: the loss depends on none.
    """
    weights = [layer.weight for layer in weighted_layers(network)]
    loss = loss_of(network, images, labels)
    found = torch.autograd.grad(loss, weights, create_graph=create_graph, allow_unused=True) if weights else ()
    pairs = [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
    if not pairs:
        raise CannotScore("the loss depends on no weight of a convolution or linear layer: nothing can be scored")
    return pairs
