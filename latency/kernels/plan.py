"""Where tensors lie in one piece of memory: those that are never needed together share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A tensor's size and the first and last step, counted from 0, that need it."""

    size_bytes: int
    first: int
    last: int


def planned(lifetimes: Sequence[Lifetime], gap_bytes: int = 0) -> tuple[list[int], int]:
    """An offset for each tensor, and the size of the memory; `gap_bytes` stay free behind each tensor.

    Larger tensors are placed first, each as low as those allow that live at the same time.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for i in sorted(range(len(lifetimes)), key=lambda i: -lifetimes[i].size_bytes):
        life = lifetimes[i]
        others = [j for j in placed if lifetimes[j].first <= life.last and life.first <= lifetimes[j].last]
        for j in sorted(others, key=offsets.__getitem__):
            if offsets[i] + life.size_bytes + gap_bytes <= offsets[j]:
                break
            end = offsets[j] + lifetimes[j].size_bytes + gap_bytes
            offsets[i] = max(offsets[i], -(-end // ALIGNMENT) * ALIGNMENT)
        placed.append(i)
    ends = (offset + life.size_bytes + gap_bytes for offset, life in zip(offsets, lifetimes, strict=True))
    return offsets, max(ends, default=0)
