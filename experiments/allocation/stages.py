"""One int8 stage of SpaceEvo for each of six places of a network, within a latency.

The table (arXiv:2303.08308) has 132,000 stages: the place and kind of stage, its layers (kernel#channels#expansion,
joined by _), the shape of its input, the loss of quality of a network with that stage in place of a teacher's, millions
of FLOPs and of parameters, and milliseconds on a CPU with VNNI.  A network is a stage for each place whose channels
and side of input are those that the stage before puts out; its loss is taken as the sum, as SpaceEvo does.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import lsqr

from quant_search.allocate import Allocation, Pair, Problem, Table, allocate

LATENCY = "latency_s"
_HALVED = (True, True, True, False, True)  # whether the map shrinks between places, from the first to the last


@dataclass(frozen=True)
class Stage:
    """A stage of the table; of equal ones the mean loss.

    Args:
        place: 1 to 6.
        side: of its input.
    """

    place: int
    kind: str
    layers: str
    in_channels: int
    out_channels: int
    side: int
    loss: float
    latency_s: float

    @property
    def name(self) -> str:
        """What tells it from others of its place."""
        return f"{self.kind} {self.layers} {self.in_channels}x{self.side}"


def read_stages(data: Path) -> tuple[list[Stage], float]:
    """All stages, and the standard deviation of the loss of one, from those that are in the table several times."""
    losses: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    times: dict[tuple[str, str, str], float] = {}
    with gzip.open(data / "spaceevo_onnx_vnni_blocks.csv.gz", "rt", newline="") as file:
        for kind, layers, shape, loss, _, _, ms in csv.reader(file):
            losses[kind, layers, shape].append(float(loss))
            times[kind, layers, shape] = float(ms) / 1e3
    stages = []
    for (kind, layers, shape), found in losses.items():
        _, channels, side, _ = (int(number) for number in shape.split("x"))
        out = int(layers.rpartition("_")[2].split("#")[1])
        place = int(kind.removeprefix("stage").partition("_")[0])
        loss, latency_s = float(np.mean(found)), times[kind, layers, shape]
        stages.append(Stage(place, kind, layers, channels, out, side, loss, latency_s))
    spread = [np.var(found, ddof=1) * (len(found) - 1) for found in losses.values() if len(found) > 1]
    return stages, math.sqrt(sum(spread) / sum(len(found) - 1 for found in losses.values()))


def useful(stages: Iterable[Stage]) -> list[list[Stage]]:
    """By place, the stages that no other with the same input and output beats in loss and latency."""
    alike: dict[tuple[int, int, int, int], list[Stage]] = defaultdict(list)
    for stage in stages:
        alike[stage.place, stage.in_channels, stage.out_channels, stage.side].append(stage)
    kept: list[list[Stage]] = [[] for _ in range(6)]
    for key in sorted(alike):
        least = math.inf
        for stage in sorted(alike[key], key=lambda s: (s.latency_s, s.loss)):
            if stage.loss < least:
                least = stage.loss
                kept[key[0] - 1].append(stage)
    return kept


def problem(places: list[list[Stage]], budget_s: float = math.inf) -> Problem:
    """A stage for each place, of the least summed loss, whose channels and maps meet."""
    pairs = tuple(Pair(i, i + 1, meeting(places[i], places[i + 1], _HALVED[i])) for i in range(len(places) - 1))
    return Problem(
        layers=tuple(f"stage{i + 1}" for i in range(len(places))),
        options=tuple(tuple(stage.name for stage in stages) for stages in places),
        damage=Table("damage", tuple(tuple(stage.loss for stage in stages) for stages in places)),
        costs=(Table(LATENCY, tuple(tuple(stage.latency_s for stage in stages) for stages in places), pairs),),
        budgets={LATENCY: budget_s},
    )


def meeting(before: list[Stage], after: list[Stage], halved: bool) -> tuple[tuple[float, ...], ...]:
    """Zero where one stage's output is the other's input, else infinity."""
    side = np.array([s.side // 2 if halved else s.side for s in before])[:, None]
    same = side == np.array([s.side for s in after])
    same &= np.array([s.out_channels for s in before])[:, None] == np.array([s.in_channels for s in after])
    return tuple(map(tuple, np.where(same, 0.0, math.inf).tolist()))


def even(places: list[list[Stage]], budget_s: float, shares: int = 200) -> Allocation:
    """Uniform scaling: every stage may take the same share of its own range of times, as much as the budget allows."""
    ranges = [(min(s.latency_s for s in stages), max(s.latency_s for s in stages)) for stages in places]
    best: Allocation | None = None
    for share in np.linspace(0, 1, shares + 1).tolist():
        within = [
            [s for s in stages if s.latency_s <= low + share * (high - low) + 1e-12]
            for stages, (low, high) in zip(places, ranges, strict=True)
        ]
        try:
            found = allocate(problem(within), "dynamic-programming")
        except ValueError:
            continue  # too small a share for stages that meet
        if found.costs[LATENCY] > budget_s:
            break
        best = found
    if best is None:
        raise ValueError(f"no even share keeps {budget_s:g} s")
    return best


def one_side(places: list[list[Stage]], side: int) -> list[list[Stage]]:
    """Stages of networks whose first stage has inputs of a side."""
    sides = [side]
    for halved in _HALVED:
        sides.append(sides[-1] // 2 if halved else sides[-1])
    return [[s for s in stages if s.side == at] for stages, at in zip(places, sides, strict=True)]


def additive(stages: list[Stage], value: str, seed: int = 0) -> tuple[float, float, int]:
    """Is a stage's number the sum of its layers' numbers?  Fitted on four fifths of all stages, tried on the rest.

    Returns the mean relative error, that of a mean of each kind, and how many stages it was tried on: those that have
    no layer which is in no stage of the fit.
    """
    train = np.random.default_rng(seed).random(len(stages)) < 0.8
    parts = [layers_of(stage) for stage in stages]
    known = {part: 0 for part, used in zip(parts, train, strict=True) if used for part in part}
    columns = {part: i for i, part in enumerate(known)}
    tried = [i for i in np.flatnonzero(~train) if all(part in columns for part in parts[i])]
    y = np.array([getattr(stage, value) for stage in stages])

    def matrix(rows: Iterable[int]) -> coo_array:
        places = [(r, columns[part]) for r, i in enumerate(rows) for part in parts[i]]
        r, c = np.array(places).T
        return coo_array((np.ones(len(r)), (r, c)), shape=(r.max() + 1, len(columns))).tocsr()

    fit = np.flatnonzero(train)
    of_each = lsqr(matrix(fit), y[fit], damp=1e-4, iter_lim=2_000)[0]
    by_kind = {k: np.mean([y[i] for i in fit if stages[i].kind == k]) for k in {stage.kind for stage in stages}}
    error = np.abs(matrix(tried) @ of_each / y[tried] - 1).mean()
    plain = np.abs(np.array([by_kind[stages[i].kind] for i in tried]) / y[tried] - 1).mean()
    return float(error), float(plain), len(tried)


def layers_of(stage: Stage) -> list[tuple[str, str, str, int, bool]]:
    """The layers of a stage: its kind of block, what a layer is, and what comes in."""
    found, channels, side = [], str(stage.in_channels), stage.side
    block = stage.kind.split("_")[1]
    for i, layer in enumerate(stage.layers.split("_")):
        found.append((block, layer, channels, side if i == 0 else side // 2, i == 0))
        channels = layer.split("#")[1]
    return found


def with_budget(given: Problem, budget_s: float) -> Problem:
    """The same problem with another latency."""
    return dataclasses.replace(given, budgets={LATENCY: budget_s})
