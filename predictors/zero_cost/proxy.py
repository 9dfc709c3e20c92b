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
from torch.nn.modules.batchnorm import _BatchNorm
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
            ValueError: images or labels of another shape or type or on another device than the network takes, or images
                that are not finite.
            TypeError: images, labels or outputs of the network that are no tensors.
        """
        ...


def proxy(name: str) -> Callable[[Callable[[nn.Module, Tensor, Tensor], Tensor | float]], Score]:
    """Makes a `Score` of a function that may do to its network what it likes.

    The function gets a copy of the network in train mode, without gradients, whose parameters all require them and
    whose activations do not work in place; it says so where it returns no tensor, or a batch norm has a single value
    of a channel.  Torch's global generators stand at the seed, and are put back.
    """

    def decorate(raw: Callable[[nn.Module, Tensor, Tensor], Tensor | float]) -> Score:
        @functools.wraps(raw)
        def score(network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> float:
            _check(network, images, labels)
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


def _check(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} are a torch.Tensor, got {type(given).__name__}: make one by torch.as_tensor")
    if images.dim() != 4 or labels.shape != images.shape[:1] or len(images) < 2:
        got = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected at least 2 images (b, c, h, w) and as many labels (b,), got {got}")
    _check_types(network, images, labels)
    if not images.isfinite().all():
        raise ValueError("images must be finite, got some that are not: look at how they are normalised")


def _check_types(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    kinds = {(p.dtype, p.device) for p in network.parameters() if p.is_floating_point()}
    got = f"{images.dtype} on {images.device}"
    if not images.is_floating_point() or (kinds and (images.dtype, images.device) not in kinds):
        expected = " or ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "floating-point numbers"
        raise ValueError(f"expected images like the network's parameters, {expected}, got {got}: convert by images.to")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"expected labels of an integer type, got {labels.dtype}: give the numbers of images' classes")
    if labels.device != images.device:
        raise ValueError(f"expected labels on the device of the images, {images.device}, got {labels.device}")


def _working_copy(network: nn.Module) -> nn.Module:
    twin = copy.deepcopy(network).train()
    twin.zero_grad(set_to_none=True)
    twin.requires_grad_(True)
    for module in twin.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # what a hook keeps would change afterwards
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_refuse_single_value)
    twin.register_forward_hook(_refuse_other_than_tensor)
    return twin


def _refuse_single_value(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    by_batch = norm.training or norm.running_mean is None
    if by_batch and inputs and inputs[0].numel() == inputs[0].shape[1]:
        shape = tuple(inputs[0].shape)
        raise CannotScore(f"batch norm of one image needs a map of more than one position, got an input of {shape}")


def _refuse_other_than_tensor(_: nn.Module, __: object, output: object) -> None:
    if not isinstance(output, Tensor):
        got = type(output).__name__
        raise TypeError(f"a network returns a tensor of logits, got {got}: wrap it in one that returns nothing else")


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
    return F.cross_entropy(logits, labels.long())


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
