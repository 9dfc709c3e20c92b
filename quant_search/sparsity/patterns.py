"""Patterns of zeros in the weights of a layer, as values, and the masks that they ask for.

Weights are (o, i, *k): output channels, input channels of a group, kernel taps.  N:M sparsity is that of "Learning N:M
fine-grained structured sparse networks from scratch" (arXiv:2102.04010), along input channels at each tap; blocks are
of output x input channels at each tap, which one vector of products of bytes covers (16 x 4 with AVX-512 VNNI).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Pattern(ABC):
    """Which sets of weights may be zero together, and how many are."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its text, from which `parse.parse_pattern` makes an equal pattern."""

    @property
    @abstractmethod
    def density(self) -> float:
        """The share of weights that are kept, where tails do not matter."""

    @abstractmethod
    def kept(self, scores: np.ndarray) -> np.ndarray:
        """What is kept, bool (o, i, *k), of weights with the scores (o, i, *k): what scores most, the first of equals.

        Scores must not be negative: those of weights that go together are added up.
        """

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether weights of this shape (o, i, *k) are large enough for the pattern to mean anything."""
        return math.prod(shape) > 0


@dataclass(frozen=True)
class Dense(Pattern):
    """All weights."""

    name = "dense"
    density = 1.0

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """All."""
        return np.ones(scores.shape, bool)


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels: of c channels round(c * share) are kept, one at least.

    Raises:
        ValueError: a share of channels to keep that is not between 0 and 1.
    """

    share: float

    def __post_init__(self) -> None:
        _check_share("channels", "to keep", self.share)

    @property
    def name(self) -> str:
        """Such as `channels:0.75`."""
        return f"channels:{_text(self.share)}"

    @property
    def density(self) -> float:
        """The share of output channels that are kept."""
        return self.share

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """Whole rows (o)."""
        rows = scores.reshape(len(scores), -1).sum(1)
        best = _largest(rows, count_of(self.share, len(rows)))
        return np.broadcast_to(best.reshape(-1, *[1] * (scores.ndim - 1)), scores.shape).copy()


@dataclass(frozen=True)
class NofM(Pattern):
    """Of every `m` successive input channels `n` are kept, at each output channel and tap.

    A tail of t < m channels counts as filled up with zeros: min(n, t) of it are kept.

    Raises:
        ValueError: not 1 <= n < m.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise ValueError(f"sparsity '{self.n}:{self.m}': expected N:M with 1 <= N < M, such as 2:4")

    @property
    def name(self) -> str:
        """Such as `2:4`."""
        return f"{self.n}:{self.m}"

    @property
    def density(self) -> float:
        """n / m."""
        return self.n / self.m

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """The `n` largest of every group."""
        last = np.moveaxis(scores, 1, -1)
        tail = -last.shape[-1] % self.m
        padded = np.pad(last, [(0, 0)] * (last.ndim - 1) + [(0, tail)], constant_values=-np.inf)
        groups = padded.reshape(*last.shape[:-1], -1, self.m)
        order = np.argsort(-groups, axis=-1, kind="stable")
        best = np.zeros(groups.shape, bool)
        np.put_along_axis(best, order[..., : self.n], True, axis=-1)
        return np.moveaxis(best.reshape(padded.shape)[..., : last.shape[-1]], -1, 1)

    def fits(self, shape: Sequence[int]) -> bool:
        """Layers of fewer than `m` input channels, such as depthwise ones and first ones, are left dense."""
        return len(shape) > 1 and shape[1] >= self.m


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of `rows` output x `columns` input channels at one tap; round(share * blocks) are kept, one at least.

    Blocks at the ends of both axes may be cut short; they count as whole ones, since a kernel works on them as such.

    Raises:
        ValueError: an empty block, or a share of blocks to keep that is not between 0 and 1.
    """

    rows: int
    columns: int
    share: float

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            got = f"{self.rows}x{self.columns}"
            raise ValueError(f"sparsity {got!r}: blocks need one output and one input channel at least, as in 16x4:0.5")
        _check_share(f"{self.rows}x{self.columns}", "to keep", self.share)

    @property
    def name(self) -> str:
        """Such as `16x4:0.5`."""
        return f"{self.rows}x{self.columns}:{_text(self.share)}"

    @property
    def density(self) -> float:
        """The share of blocks that are kept."""
        return self.share

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """The blocks that score most in sum."""
        taps = scores.reshape(*scores.shape[:2], -1)
        o, i, k = taps.shape
        padded = np.pad(taps, ((0, -o % self.rows), (0, -i % self.columns), (0, 0)))
        split = padded.reshape(-1, self.rows, padded.shape[1] // self.columns, self.columns, k)
        sums = split.sum((1, 3))
        best = _largest(sums.ravel(), count_of(self.share, sums.size)).reshape(sums.shape)
        whole = best.repeat(self.rows, 0).repeat(self.columns, 1)
        return np.ascontiguousarray(whole[:o, :i].reshape(scores.shape))

    def fits(self, shape: Sequence[int]) -> bool:
        """Layers that do not fill a block are left dense."""
        return len(shape) > 1 and shape[0] >= self.rows and shape[1] >= self.columns


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weights: of n weights round(n * zeros) are zero, all but one at most.

    Raises:
        ValueError: a share of zeros that is not between 0 and 1.
    """

    zeros: float

    def __post_init__(self) -> None:
        _check_share("unstructured", "of zeros", self.zeros)

    @property
    def name(self) -> str:
        """Such as `unstructured:0.8`."""
        return f"unstructured:{_text(self.zeros)}"

    @property
    def density(self) -> float:
        """1 - zeros."""
        return 1 - self.zeros

    def kept(self, scores: np.ndarray) -> np.ndarray:
        """The largest, wherever they stand."""
        n = scores.size
        return _largest(scores.ravel(), max(1, n - _rounded(self.zeros * n))).reshape(scores.shape)


def mask(weight: np.ndarray, pattern: Pattern, scores: np.ndarray | None = None) -> np.ndarray:
    """What is kept of `weight` (o, i, *k), bool of its shape.

    Args:
        scores: how much each weight matters (o, i, *k), not negative; by default its square.

    Raises:
        ValueError: scores of another shape, negative ones or none that are finite, or a weight without two axes.
    """
    scores = np.square(np.asarray(weight, np.float64)) if scores is None else np.asarray(scores, np.float64)
    if weight.ndim < 2:
        raise ValueError(f"a weight has output and input channels, (o, i, *k), got the shape {weight.shape}")
    if scores.shape != weight.shape:
        raise ValueError(f"scores must have the shape of the weight, {weight.shape}, got {scores.shape}")
    if not (np.isfinite(scores).all() and (scores >= 0).all()):
        raise ValueError("scores of weights must be finite and not negative: take squares or magnitudes")
    return pattern.kept(scores)


def count_of(share: float, n: int) -> int:
    """How many of `n` a share is: rounded, one at least."""
    return max(1, _rounded(share * n))


def _rounded(x: float) -> int:
    return math.floor(x + 0.5)  # half up, where Python's own rounding goes to the even one


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    """Which `n` of the scores (m,) are largest; of equal ones the first."""
    best = np.zeros(len(scores), bool)
    best[np.argsort(-scores, kind="stable")[:n]] = True
    return best


def _text(share: float) -> str:
    return np.format_float_positional(share, trim="-")


def _check_share(kind: str, what: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"sparsity {kind!r}: the share {what} must lie between 0 and 1, got {share}; all is 'dense'")
