"""A way into the elastic convolutions and linear layers, for what computes with their inputs and weights in few bits.

This floor knows no number formats: who sets `rounding` says what is computed with instead.  Nothing is by default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from torch import Tensor, nn

Rounding = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a layer, its input and the slice of its weight (out, ...) to the input and the weight that it computes with."""

_ROUNDING: ContextVar[Rounding | None] = ContextVar("rounding", default=None)


@contextlib.contextmanager
def rounding(by: Rounding) -> Iterator[None]:
    """Elastic layers called inside the block compute with what `by` makes of them; local to the thread."""
    token = _ROUNDING.set(by)
    try:
        yield
    finally:
        _ROUNDING.reset(token)


def rounded(layer: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The input and the weight that `layer` computes with: as they are, where nobody rounds."""
    by = _ROUNDING.get()
    return (x, weight) if by is None else by(layer, x, weight)
