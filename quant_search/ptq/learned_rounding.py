"""Which way to round each weight, learned so that the layer's outputs stay: AdaRound and AdaQuant.

AdaRound (arXiv:2004.10568) rounds down or up: codes floor(W / s) + h(V) with the rectified sigmoid
h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1) (eq. 23), which minimise
||f(W x) - f(W~ x~)||^2 + lambda sum(1 - |2 h(V) - 1|^beta) (eq. 24 and 25), beta falling so that h ends at 0 or 1.
AdaQuant (arXiv:2006.10518, eq. 3) lets codes go further than the next: continuous weights, scales and biases are
learned through the rounding by the straight-through estimator.  In both, weights that are 0 stay so: pruning put them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quant_search.formats.integer import Integer
from quant_search.ptq.rows import Rows

ZETA, GAMMA = 1.1, -0.1
_BETA = (20.0, 2.0)
_WARM_UP = 0.2  # share of steps without the regulariser, as in the authors' settings
_BATCH = 256


@dataclass(frozen=True)
class Setting:
    """How long and how fast a layer is learned.

    Args:
        steps: of Adam, on 256 rows each.
        pull: lambda of the regulariser that makes AdaRound's h binary, for the mean over weights where the error is
            counted in what rounding to the nearest leaves: the paper's 0.01 for each weight at 100 weights a channel.
        rounding_rate: learning rate of V, and of AdaQuant's weights in steps of their codes.
        scale_rate: learning rate of the logarithm of AdaQuant's scales, and of biases in parts of the output's spread.

    Raises:
        ValueError: no steps.
    """

    steps: int = 1000
    pull: float = 1.0
    rounding_rate: float = 0.03
    scale_rate: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"rounding is learned in at least 1 step, got {self.steps}")


@dataclass(frozen=True, eq=False)
class Rounded:
    """Codes (groups, out / groups, k) int8, scales and bias (groups x out / groups,) float32, and the error they leave.

    Args:
        before, after: mean square of what is off in the outputs, with the codes to begin with and with these.
    """

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer whose rounding is to be learned.

    Args:
        weight: (groups, out / groups, k) float32, as `rows.as_matrix` has it.
        bias: (out channels,) float32.
        scale: (out channels,) float32 or (), of the codes to begin with.
        cut: the ends to which an activation function cuts the outputs.
    """

    rows: Rows
    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    format: Integer
    cut: tuple[float, float] = (-math.inf, math.inf)


class _Layer:
    """The problem in torch."""

    def __init__(self, problem: Problem) -> None:
        self.x, self.y = torch.from_numpy(problem.rows.x), torch.from_numpy(problem.rows.y)
        self.weight, self.bias = (torch.from_numpy(part.copy()) for part in (problem.weight, problem.bias))
        scale = np.broadcast_to(problem.scale, problem.bias.shape).reshape(*problem.weight.shape[:2], 1)
        self.scale = torch.from_numpy(scale.copy())
        self.kept = self.weight != 0
        self.ends, self.cut = (problem.format.lowest, problem.format.highest), problem.cut
        self.target = self.y.clamp(*self.cut)
        self.depthwise = self.weight.shape[1] == 1 < self.weight.shape[0]

    def nearest(self) -> Tensor:
        return torch.round(self.weight / self.scale).clamp(*self.ends)

    def outputs(self, weight: Tensor, bias: Tensor, some: Tensor | slice) -> Tensor:
        """What the layer and its activation function make of some rows (n, out channels)."""
        x = self.x[some]
        if self.depthwise:
            y = (x * weight[:, 0]).sum(-1)
        elif len(weight) == 1:
            y = x[:, 0] @ weight[0].T
        else:
            y = torch.einsum("ngk,gok->ngo", x, weight).flatten(1)
        return (y + bias).clamp(*self.cut)

    def off(self, weight: Tensor, bias: Tensor, some: Tensor | slice = slice(None)) -> Tensor:
        """The mean square error of an output."""
        return (self.outputs(weight, bias, some) - self.target[some]).square().mean()

    def error(self, codes: Tensor, scale: Tensor, bias: Tensor) -> float:
        with torch.no_grad():
            return float(self.off(codes * scale, bias))


def adaround(problem: Problem, setting: Setting) -> Rounded:
    """Codes next to each weight, with the scales given; those to the nearest where they are no better."""
    layer = _Layer(problem)
    steps = layer.weight / layer.scale
    low, rest = steps.floor(), steps - steps.floor()
    v = torch.logit((rest - GAMMA) / (ZETA - GAMMA)).requires_grad_()  # so that h(V) is the rest

    def codes(h: Tensor) -> Tensor:
        return (low + h).clamp(*layer.ends) * layer.kept

    # 1 is what rounding to the nearest leaves, so that one lambda serves layers of any scale.
    unit = max(layer.error(layer.nearest(), layer.scale, layer.bias), 1e-30)

    def loss(some: Tensor, progress: float) -> Tensor:
        h = _rectified_sigmoid(v)
        found = layer.off(codes(h) * layer.scale, layer.bias, some) / unit
        if progress < _WARM_UP:
            return found
        beta = _beta((progress - _WARM_UP) / (1 - _WARM_UP))
        return found + setting.pull * (1 - (2 * h - 1).abs().pow(beta)).mean()

    _minimise(loss, [{"params": [v], "lr": setting.rounding_rate}], len(layer.x), setting)
    with torch.no_grad():
        learned = codes((_rectified_sigmoid(v) >= 0.5).float())
    return _better(layer, learned, layer.scale, layer.bias)


def _rectified_sigmoid(v: Tensor) -> Tensor:
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _beta(progress: float) -> float:
    """From 20 to 2 along half a cosine."""
    high, low = _BETA
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


def adaquant(problem: Problem, setting: Setting) -> Rounded:
    """Codes, scales and bias learned together; those to the nearest where they are no better."""
    layer = _Layer(problem)
    steps = (layer.weight / layer.scale).requires_grad_()  # weights in units of the first scales
    stretch = torch.zeros_like(layer.scale, requires_grad=True)
    spread = float(layer.y.std()) or 1.0
    shift = torch.zeros_like(layer.bias, requires_grad=True)
    unit = max(layer.error(layer.nearest(), layer.scale, layer.bias), 1e-30)

    def codes() -> Tensor:
        found = (steps / stretch.exp()).clamp(*layer.ends) * layer.kept
        return found + (found.round() - found).detach()

    def loss(some: Tensor, _progress: float) -> Tensor:
        weight = codes() * layer.scale * stretch.exp()
        return layer.off(weight, layer.bias + spread * shift, some) / unit

    groups = [
        {"params": [steps], "lr": setting.rounding_rate},
        {"params": [stretch, shift], "lr": setting.scale_rate},
    ]
    _minimise(loss, groups, len(layer.x), setting)
    with torch.no_grad():
        return _better(layer, codes().round(), layer.scale * stretch.exp(), layer.bias + spread * shift)


def _minimise(
    loss: Callable[[Tensor, float], Tensor], groups: list[dict[str, Any]], rows: int, setting: Setting
) -> None:
    generator = torch.Generator().manual_seed(setting.seed)
    optimizer = torch.optim.Adam(groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(setting.steps):
        progress = step / setting.steps
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * progress)) / 2
        some = torch.randint(rows, (min(_BATCH, rows),), generator=generator)
        optimizer.zero_grad()
        loss(some, progress).backward()
        optimizer.step()


def _better(layer: _Layer, codes: Tensor, scale: Tensor, bias: Tensor) -> Rounded:
    """What was learned, or what there was where that leaves less error on all rows."""
    nearest = layer.nearest()
    before, after = layer.error(nearest, layer.scale, layer.bias), layer.error(codes, scale, bias)
    if not after < before:
        codes, scale, bias, after = nearest, layer.scale, layer.bias, before
    return Rounded(codes.to(torch.int8).numpy(), scale.numpy().reshape(-1), bias.numpy(), before, after)
