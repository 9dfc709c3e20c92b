"""The architectures that a differentiable search hands on, and random ones of like latency to hold them against.

Latencies do not depend on weights: with a bound, files are timed before anything more is trained, and what breaks the
bound is not trained at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.anatomy import Anatomy
from nas.config import Settings
from nas.errors import CannotBeDone
from nas.format import duration
from nas.guide import Guide
from nas.progress import Stage
from search_spaces.space import INDEX, Architecture
from supernet.atomic import write_json
from supernet.relaxed.levels import along, cost_levels

FILE = "candidates.json"
_LEVELS, _EACH = 7, 2  # of cost, and architectures at each
_TRIES = 3  # times that levels are lowered for the sake of the bound, or a random architecture is replaced
_RATHER = 0.2  # by how much nearer, as a logarithm of costs, a random architecture must be that was found as well
_FASTEST = 4  # that are timed where the bound is near the least latency, and at last where nothing found keeps to it

Latency = Callable[[Architecture], float]
"""From an architecture of the joint space to the seconds that its file takes, whatever its weights."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Architectures (n, d) without policies, by group: `search`, and `random` if wanted."""

    groups: Mapping[str, np.ndarray]

    def by_cost(self, guide: Guide) -> tuple[tuple[int, ...], ...]:
        """All of them, each once, from the cheapest to the dearest by the table."""
        rows = np.unique(np.concatenate(list(self.groups.values())), axis=0)
        order = np.argsort(guide.table.costs(guide.space, rows), kind="stable")
        return tuple(map(tuple, rows[order].tolist()))


def choose(
    logits: Mapping[str, np.ndarray],
    guide: Guide,
    settings: Settings,
    anatomy: Anatomy,
    latency: Latency,
    folder: Path,
    stage: Stage,
) -> Candidates:
    """Chooses the architectures of a run that are trained and judged, or reads from `folder` which they were.

    Found are the most probable ones at even ratios of cost from the fastest to the bound; as many random ones are
    those of a random pool that cost about as much.

    Args:
        logits: (k,) of each relaxed choice.

    Raises:
        CannotBeDone: none keeps to the bound on latency.
    """
    file = folder / FILE
    if not file.exists():
        timed = _Timed(guide, anatomy, latency, settings.max_latency_s, stage)
        found = _found(logits, guide, timed, wanted(settings))
        groups = {"search": found.tolist()}
        if settings.baselines:
            groups["random"] = _alike(guide, timed, found).tolist()
        write_json(file, groups)
    groups = json.loads(file.read_text())
    width = len(guide.space)
    candidates = Candidates({n: np.array(rows, dtype=INDEX).reshape(-1, width) for n, rows in groups.items()})
    stage.say(", ".join(f"{len(rows)} by {name}" for name, rows in candidates.groups.items()))
    return candidates


def check_timed(
    guide: Guide, bound_s: float | None, anatomy: Anatomy, latency: Latency, folder: Path, stage: Stage
) -> None:
    """Refuses a bound near the least latency, where none of the fastest keeps to it: before a search is trained.

    Raises:
        CannotBeDone: with the fastest that was timed.
    """
    if guide.is_near(bound_s) and not (folder / FILE).exists():
        _last_resort(guide, _Timed(guide, anatomy, latency, bound_s, stage))


def wanted(settings: Settings) -> tuple[int, int]:
    """How many levels of cost, and architectures at each, so that all precisions of all are as many evaluations."""
    most = max(1, settings.evaluations // len(settings.precisions))
    levels = min(_LEVELS, most)
    return levels, min(_EACH, most // levels)


class _Timed:
    """Latencies of architectures in the table's precision, each timed once: predicted, where nothing is bounded."""

    def __init__(self, guide: Guide, anatomy: Anatomy, latency: Latency, bound_s: float | None, stage: Stage) -> None:
        self.bound_s = bound_s
        self._guide, self._anatomy, self._latency, self._stage = guide, anatomy, latency, stage
        self.known: dict[tuple[int, ...], float] = {}

    def seconds(self, rows: np.ndarray) -> np.ndarray:
        """Those of rows (n, d)."""
        return np.array([self._seconds(row) for row in map(tuple, rows.tolist())])

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Whether each of the rows (n,) keeps to the bound."""
        return self.seconds(rows) <= (np.inf if self.bound_s is None else self.bound_s)

    def _seconds(self, row: tuple[int, ...]) -> float:
        if row not in self.known:
            arch = self._guide.space.row(row)
            if self.bound_s is None:
                self.known[row] = float(self._guide.table.costs(self._guide.space, np.array([row]))[0])
            else:
                self.known[row] = self._latency(self._anatomy.joined(arch, self._guide.precision))
                self._stage.advance()
        return self.known[row]


def _found(logits: Mapping[str, np.ndarray], guide: Guide, timed: _Timed, sizes: tuple[int, int]) -> np.ndarray:
    """The most probable architectures (n, d) along levels of cost that keep to the bound, from the cheapest."""
    levels, each = sizes
    limit = guide.max_cost(timed.bound_s)
    kept: dict[tuple[int, ...], None] = {}
    for _ in range(_TRIES):
        costs = cost_levels(guide.space, guide.table, limit, levels)
        rows = along(logits, guide.space, guide.table, costs, each, limit)
        holds = timed.holds(rows)
        kept = dict.fromkeys([*map(tuple, rows[holds].tolist()), *kept])
        if limit is None or timed.bound_s is None or holds.all():
            break
        limit = max(limit * timed.bound_s / float(timed.seconds(rows).max()), guide.least_cost)
    if not kept:
        kept = dict.fromkeys(_last_resort(guide, timed))
    found = np.array(list(kept)[: levels * each], dtype=INDEX)
    return found[np.argsort(timed.seconds(found), kind="stable")]


def _last_resort(guide: Guide, timed: _Timed) -> Sequence[tuple[int, ...]]:
    """Those of the architectures that are predicted to be fastest which keep to the bound.

    Raises:
        CannotBeDone: none does, with the fastest that was timed.
    """
    rows = np.array([arch.indices for arch in guide.fastest(_FASTEST)], dtype=INDEX)
    kept = [tuple(row) for row, holds in zip(rows.tolist(), timed.holds(rows), strict=True) if holds]
    if not kept:
        raise CannotBeDone(
            f"no architecture of {guide.space.name} that was timed takes at most {duration(timed.bound_s or 0.0)}: the "
            f"fastest of {len(timed.known)} takes {duration(min(timed.known.values()))}; raise --max-latency"
        )
    return kept


def _alike(guide: Guide, timed: _Timed, found: np.ndarray) -> np.ndarray:
    """For each found architecture (n, d) a random one of like cost by the table that keeps to the bound."""
    costs, apart = guide.table.costs(guide.space, guide.pool), np.zeros(len(guide.pool))
    apart[(guide.pool[:, None] == found[None]).all(2).any(1)] = _RATHER
    chosen: dict[tuple[int, ...], None] = {}
    for target in guide.table.costs(guide.space, found):
        for _ in range(_TRIES):
            distance = np.abs(np.log(costs / target)) + apart
            nearest = int(np.argmin(distance))
            if np.isinf(distance[nearest]):
                break  # the pool of a small space is used up
            apart[nearest] = np.inf
            if timed.holds(guide.pool[nearest][None])[0]:
                chosen[tuple(guide.pool[nearest].tolist())] = None
                break
            took_s = float(timed.seconds(guide.pool[nearest][None])[0])
            target = min(target, costs[nearest]) * (timed.bound_s or took_s) / took_s
    return np.array(list(chosen), dtype=INDEX).reshape(len(chosen), len(guide.space))
