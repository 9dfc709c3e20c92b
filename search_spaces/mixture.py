"""Relaxed choices: a choice that takes several of its options at once, with weights.

`relaxed` sets the weights for one forward call, beside the architecture of `bound`, and elastic layers mix what their
options give: layers of a `OneOf` and depths of a `Sequence` by their outputs (DARTS, arXiv:1806.09055, equation 2),
kernel sizes and channels by masks over the largest one's weights and inputs (Single-Path NAS, arXiv:1904.02877,
equations 1 to 6; FBNetV2, arXiv:2004.05565, section 3.1).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from search_spaces.value import Option, Value, choices_of, resolve


@dataclass(frozen=True, eq=False)
class Gates:
    """The weights of one choice's options.

    Args:
        weights: (k,), one for each option.
        on: positions of the options that are computed; the others are off, whatever their weight. None: all.
        silent: those of `on` whose weight is 0 and only stands for its own gradient: their layers run without history.

    Raises:
        ValueError: no option is on.
    """

    weights: Tensor
    on: tuple[int, ...] | None = None
    silent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.on is not None and not self.on:
            raise ValueError("gates need at least one option that is on, got none")

    @property
    def computed(self) -> tuple[int, ...]:
        """Positions of the options that are computed, in order."""
        return tuple(range(len(self.weights))) if self.on is None else self.on


_RELAXED: ContextVar[Mapping[str, Gates] | None] = ContextVar("gates", default=None)
_AFFINE: ContextVar[bool] = ContextVar("affine", default=True)  # of norms in layers that are mixed
_MIXED: ContextVar[bool] = ContextVar("mixed", default=False)  # whether what runs now is a layer that is mixed


@contextlib.contextmanager
def relaxed(weights: Mapping[str, Tensor | Gates], affine: bool = True) -> Iterator[None]:
    """Elastic layers called inside the block mix the options of the choices named, with weights (k,) of their own.

    All other choices stand at the option of the bound architecture.

    Args:
        affine: whether norms in the mixed layers of a `OneOf` scale and shift. Without, γ is 1 and β 0 there, whatever
            they are, and neither has a gradient (DARTS, appendix A.1.1): γ could undo the weight of a layer.
    """
    gates = {name: w if isinstance(w, Gates) else Gates(w) for name, w in weights.items()}
    token, scaling = _RELAXED.set(gates), _AFFINE.set(affine)
    try:
        yield
    finally:
        _AFFINE.reset(scaling)
        _RELAXED.reset(token)


@contextlib.contextmanager
def mixed_layer(silent: bool) -> Iterator[None]:
    """What is called inside the block belongs to a layer that is mixed with others; a silent one has no history."""
    token = _MIXED.set(True)
    try:
        with torch.no_grad() if silent else contextlib.nullcontext():
            yield
    finally:
        _MIXED.reset(token)


def norms_scale() -> bool:
    """Whether a norm that is called now scales and shifts."""
    return _AFFINE.get() or not _MIXED.get()


def gates_of(name: str) -> Gates | None:
    """The gates of a choice that is relaxed now."""
    gates = _RELAXED.get()
    return None if gates is None else gates.get(name)


@dataclass(frozen=True, eq=False)
class Mixture:
    """What a value is where choices in it are relaxed: `results`, which may repeat, of the combinations of `gates`."""

    results: tuple[Option, ...]
    gates: tuple[Gates, ...]

    @property
    def most(self) -> int:
        """The largest result."""
        return max(cast("tuple[int, ...]", self.results))

    @functools.cached_property
    def weights(self) -> Tensor:
        """The weights of the results (r,): choices are independent, so products of their options' weights."""
        return _product(self.gates)

    def channels(self, like: Tensor) -> Tensor:
        """The mask (c,) over the most channels: of each, the weight of all results that have it."""
        inside = _first(self.results, like.device, like.dtype)
        return self.weights.to(like.dtype) @ inside

    def taps(self, like: Tensor) -> Tensor:
        """The mask (k, k) over the largest kernel: of each tap, the weight of all kernels that have it."""
        inside = _centre(self.results, like.device, like.dtype)
        return torch.tensordot(self.weights.to(like.dtype), inside, 1)


def mixture_of(value: Value, assignment: Mapping[str, Option] | None) -> Mixture | None:
    """`value` as a mixture, other choices as `assignment` says; None where no choice in it is relaxed."""
    gates = _RELAXED.get()
    if not gates or assignment is None:
        return None
    choices = [choice for choice in choices_of(value) if choice.name in gates]
    if not choices:
        return None
    names = [choice.name for choice in choices]
    options = [[choice.options[i] for i in gates[choice.name].computed] for choice in choices]
    results = tuple(
        resolve(value, {**assignment, **dict(zip(names, together, strict=True))})
        for together in itertools.product(*options)
    )
    return Mixture(results, tuple(gates[name] for name in names))


def _product(gates: Sequence[Gates]) -> Tensor:
    """The weights of every combination of options that are on, the last choice's running fastest."""
    parts = [g.weights if g.on is None else g.weights[list(g.on)] for g in gates]
    joint = parts[0]
    for part in parts[1:]:
        joint = (joint[:, None] * part).flatten()
    return joint


@functools.lru_cache(maxsize=1024)
def _first(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Which of the most channels each size has (r, c)."""
    with torch.inference_mode(False):  # kept, and used in training too, whoever asks first
        channel = torch.arange(max(sizes), device=device)
        return (channel < torch.tensor(sizes, device=device)[:, None]).to(dtype)


@functools.lru_cache(maxsize=1024)
def _centre(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Which taps of the largest kernel each kernel has (r, k, k)."""
    with torch.inference_mode(False):
        away = (torch.arange(max(sizes), device=device) - max(sizes) // 2).abs()
        inside = away <= torch.tensor(sizes, device=device)[:, None] // 2
        return (inside[:, :, None] & inside[:, None, :]).to(dtype)
