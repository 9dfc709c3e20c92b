"""Width by bits: one network in every width and every precision, and which bits are on the front at which cost.

A wider network of fewer bits against a narrower one of more, at equal bytes or bit operations: the sweep of
Abdolrashidi et al., "Pareto-optimal quantized ResNet is mostly 4-bit" (arXiv:2105.03536, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.anatomy import Anatomy
from nas.pareto import non_dominated
from search_spaces.space import Architecture, SearchSpace

WIDTHS = (("width", "inner"), ("expansion",))
"""The last parts of the names of choices that say how many channels there are; those of one kind change together."""


@dataclass(frozen=True)
class Swept:
    """One network of a sweep, and what is known of its file.

    Args:
        arch: of the joint space.
        width: its place among the widths, 0 for the narrowest.
        precision: of all blocks, but for those that the sweep keeps in another one.
        bit_operations: of one image: for each MAC the bits of its weight times those of its activation.
    """

    arch: Architecture
    width: int
    precision: str
    accuracy: float
    size_bytes: int
    bit_operations: float


Made = Callable[[Architecture], tuple[float, int]]
"""From a joint architecture to the accuracy of its file and the file's size in bytes."""


def widths_of(
    space: SearchSpace, base: Architecture | None = None, kinds: Sequence[Sequence[str]] = WIDTHS
) -> list[Architecture]:
    """The architectures of `space` that differ from `base` in width alone, from narrow to wide, all different.

    The kinds of choices are widened in turn, each by one option at a time (evenly, where choices of a kind have
    unequally many).

    Args:
        base: says all other choices; by default those in the middle of their options.

    Raises:
        ValueError: the space has no choice of width.
    """
    start = (space.scaled(0.5) if base is None else base).assignment
    of_kind = [[c for c in space.choices if c.name.rpartition(".")[2] in kind] for kind in kinds]
    steps = max((len(c.options) - 1 for choices in of_kind for c in choices), default=0)
    if not steps:
        wanted = ", ".join(name for kind in kinds for name in kind)
        raise ValueError(f"space {space.name!r} has no choice of width: none of two or more options ends in {wanted}")
    current = {**start, **{c.name: c.options[0] for choices in of_kind for c in choices}}
    found = [space.architecture(current)]
    for step in range(1, steps + 1):
        for choices in of_kind:
            current |= {c.name: c.options[round(step / steps * (len(c.options) - 1))] for c in choices}
            found.append(space.architecture(current))
    return list(dict.fromkeys(found))


def sweep(
    anatomy: Anatomy, widths: Sequence[Architecture], made: Made, kept: Sequence[str] = (), kept_in: str = "int8"
) -> Iterable[Swept]:
    """Each of the widths in each precision of the space, as its file comes out.

    Args:
        kept: blocks that stay in the precision `kept_in` wherever others are quantized, such as the first and last.

    Raises:
        ValueError: blocks or a precision that the space does not have; nothing was made.
    """
    wanted = []
    for width, arch in enumerate(widths):
        for precision in anatomy.precisions:
            same = {} if precision == "fp32" else dict.fromkeys(kept, kept_in)
            wanted.append((anatomy.joined(anatomy.joined(arch, precision), same), width, precision))
    return (_swept(anatomy, joint, width, precision, made) for joint, width, precision in wanted)


def _swept(anatomy: Anatomy, joint: Architecture, width: int, precision: str, made: Made) -> Swept:
    accuracy, size = made(joint)
    operations = float(anatomy.bit_operations(np.array([joint.indices]))[0])
    return Swept(joint, width, precision, accuracy, size, operations)


def front_by(points: Sequence[Swept], cost: str) -> list[Swept]:
    """The points that no other beats in accuracy at no more of `cost` (a field of `Swept`), from cheap to dear."""
    ordered = sorted(points, key=lambda p: (getattr(p, cost), -p.accuracy))
    costs = np.array([(getattr(p, cost), -p.accuracy) for p in ordered], dtype=float).reshape(-1, 2)
    return [p for p, on in zip(ordered, non_dominated(costs), strict=True) if on]


def best_within(points: Sequence[Swept], cost: str, limit: float) -> Swept | None:
    """The most accurate point of at most `limit` of `cost`, the cheaper of two; None where all cost more."""
    allowed = [p for p in points if getattr(p, cost) <= limit]
    return max(allowed, key=lambda p: (p.accuracy, -getattr(p, cost)), default=None)
