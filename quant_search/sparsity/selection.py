"""Which channels stay: units of a group by the scores of the weights that make them, in numbers that suit a device.

Across groups units are compared by LAMP (arXiv:2010.07611) on their scores, as its authors do with single weights:
every group gets its own density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from quant_search.sparsity.catalog import CRITERIA
from quant_search.sparsity.channels import ChannelGroup
from quant_search.sparsity.criterion import Examples, Scores
from quant_search.sparsity.lamp import relative
from quant_search.sparsity.weighted import layers_of

UnitScores = Mapping[str, np.ndarray]  # group name to scores (units,)


def score_units(
    model: onnx.ModelProto,
    groups: Sequence[ChannelGroup],
    criterion: str = "magnitude",
    examples: Examples | None = None,
) -> dict[str, np.ndarray]:
    """The scores (units,) of each group: of all weights that make a unit, added up.

    Raises:
        ValueError: an unknown criterion, or as of the criterion.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion {criterion!r}: there are {', '.join(CRITERIA)}")
    wanted = {part.tensor for group in groups for part in group.parts if part.role == "made"}
    layers = [layer for layer in layers_of(model) if layer.weight in wanted]
    scores = CRITERIA[criterion].load()(model, layers, examples)
    return {group.name: unit_scores(group, scores) for group in groups}


def unit_scores(group: ChannelGroup, scores: Scores) -> np.ndarray:
    """The sums (units,) over the weights that make each unit, of scores (o, i, *k) by the name of the weight."""
    total = np.zeros(group.size)
    for part in group.parts:
        if part.role == "made" and part.tensor in scores:
            rows = scores[part.tensor].reshape(len(part.units), -1).sum(1)
            units = np.array(part.units)
            np.add.at(total, units[units >= 0], rows[units >= 0])
    return total


def counts_of(group: ChannelGroup, round_to: int = 1) -> list[int]:
    """The numbers of units that leave the widest layer a multiple of `round_to` channels, and all of them; rising.

    Raises:
        ValueError: `round_to` is not positive.
    """
    if round_to < 1:
        raise ValueError(f"channels can be rounded to multiples of 1 or more, got {round_to}")
    channels = group.width // group.size  # of a unit
    step = round_to // math.gcd(round_to, channels)
    return [*range(step, group.size, step), group.size]


def nearest_count(group: ChannelGroup, density: float, round_to: int = 1) -> int:
    """The allowed number of units that is nearest to a share of them, the smaller of two.

    Raises:
        ValueError: a density that is not above 0 and at most 1, or as of `counts_of`.
    """
    if not 0 < density <= 1:
        raise ValueError(f"the density of channels must be above 0 and at most 1, got {density}")
    return min(counts_of(group, round_to), key=lambda count: abs(count - density * group.size))


def best_units(scores: np.ndarray, count: int) -> tuple[int, ...]:
    """The `count` units with the largest scores (units,), in order; of equal ones the first."""
    return tuple(sorted(np.argsort(-scores, kind="stable")[:count].tolist()))


def uniform_keep(
    groups: Sequence[ChannelGroup], scores: UnitScores, density: float, round_to: int = 1
) -> dict[str, tuple[int, ...]]:
    """The units to keep at the same density in every group.

    Raises:
        ValueError: as of `nearest_count`.
    """
    return {g.name: best_units(scores[g.name], nearest_count(g, density, round_to)) for g in groups}


def adaptive_keep(
    groups: Sequence[ChannelGroup], scores: UnitScores, density: float, round_to: int = 1
) -> dict[str, tuple[int, ...]]:
    """The units to keep at this density over all groups, each group with its own: the largest by LAMP.

    Raises:
        ValueError: as of `nearest_count`.
    """
    if not groups:
        return {}
    relatives = [relative(scores[group.name]) for group in groups]
    together = np.concatenate(relatives)
    best = best_units(together, max(1, round(density * len(together))))
    owner = np.repeat(np.arange(len(groups)), [g.size for g in groups])
    shares = np.bincount(owner[list(best)], minlength=len(groups))
    counts = [nearest_count(g, max(1, share) / g.size, round_to) for g, share in zip(groups, shares, strict=True)]
    return {g.name: best_units(scores[g.name], count) for g, count in zip(groups, counts, strict=True)}
