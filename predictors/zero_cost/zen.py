"""Zen-score: Lin et al., "Zen-NAS", arXiv:2102.01063, algorithm 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, proxy, weighted_layers

_REPEATS = 4  # draws of weights and noise that are averaged
_BATCH = 16  # images of noise, as many as the authors'
_STEP = 0.01  # alpha of the paper: how far the disturbed input is off


@proxy("the Zen-score")
def zen(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """log E ||f(x) - f(x + αε)||₁ + Σ over batch norms of log √(mean variance), f up to the last global pooling.

    Weights, x and ε are standard normal; looks at the images' shape alone.  A batch norm whose input is constant
    carries nothing and adds nothing.  Residual links stay: unlike in the paper, a search space chooses them here.

    Raises:
        CannotScore: no `nn.AdaptiveAvgPool2d` is run, or the features do not depend on the input.
    """
    seen = _Seen(network)
    with torch.no_grad():
        return sum(_once(network, seen, images) for _ in range(_REPEATS)) / _REPEATS


class _Seen:
    """What hooks saw in one run: the features before the last global pooling, and the scale of the batch norms."""

    def __init__(self, network: nn.Module) -> None:
        self.features: Tensor | None = None
        self.log_scale = 0.0
        for module in network.modules():
            if isinstance(module, nn.AdaptiveAvgPool2d):
                module.register_forward_pre_hook(self._pooled)
            elif isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(self._normed)

    def _pooled(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.features = inputs[0]

    def _normed(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance = inputs[0].var(dim=(0, 2, 3), unbiased=False).mean().item()
        if variance > 0:
            self.log_scale += 0.5 * math.log(variance)


def _once(network: nn.Module, seen: _Seen, images: Tensor) -> float:
    _draw_weights_(network)
    x, noise = torch.randn(2, _BATCH, *images.shape[1:]).to(images)
    network(x + _STEP * noise)
    disturbed, seen.log_scale = seen.features, 0.0
    network(x)
    if disturbed is None or seen.features is None:
        raise CannotScore(
            "the Zen-score is taken before the global pooling, got a network without nn.AdaptiveAvgPool2d"
        )
    difference = (seen.features - disturbed).abs().flatten(1).sum(1).mean().item()
    if difference == 0:
        raise CannotScore("the Zen-score needs features that depend on the input, got constant ones")
    return math.log(difference) + seen.log_scale


def _draw_weights_(network: nn.Module) -> None:
    for layer in weighted_layers(network):
        nn.init.normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.reset_parameters()
