"""What a differentiable search knows of cost before it trains: a table of what options take.

It is fitted to the latencies that the device profile predicts of random architectures, and adds up what single choices
and some pairs cost, as an expected cost needs it.
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.blocks import BlockTracer
from nas.anatomy import Anatomy
from nas.device_profile import Profile
from nas.errors import CannotBeDone
from nas.format import duration
from nas.progress import Stage
from search_spaces.network import relaxable
from search_spaces.space import INDEX, Architecture, SearchSpace
from supernet.atomic import write_json
from supernet.relaxed.best import best_architectures, fastest_cost
from supernet.relaxed.cost_table import MOST_COMBINATIONS, CostTable, combinations
from supernet.relaxed.fit_table import fit_paired_table

FILE = "table.json"
_POOL = 400  # architectures whose latencies are predicted; more change the table's error little
_COMPARED = 40  # of them, by which precisions are compared


@dataclass(frozen=True, eq=False)
class Guide:
    """A cost table, and the random architectures that it was fitted to.

    Args:
        precision: of all blocks, that in which networks are faster here.
        pool: random architectures (n, d) without policies.
        seconds: their predicted latencies (n,) in that precision.
        fastest_s: the least latency that is predicted, in any precision.
        profile_error: mean relative error of the profile on networks that it had not seen.
    """

    space: SearchSpace
    table: CostTable
    precision: str
    pool: np.ndarray
    seconds: np.ndarray
    fastest_s: float
    profile_error: float

    @property
    def error(self) -> float:
        """Mean relative error to be expected of the table's costs: its own, and that of the profile."""
        return float(np.hypot(self.table.error or 0.0, self.profile_error))

    @functools.cached_property
    def least_cost(self) -> float:
        """What the fastest architecture costs by the table, in seconds."""
        return fastest_cost(self.space, self.table)

    def fastest(self, n: int) -> list[Architecture]:
        """The n of the pool that are predicted to be fastest."""
        return [self.space.row(row) for row in self.pool[np.argsort(self.seconds, kind="stable")[:n]]]

    def max_cost(self, bound_s: float | None) -> float | None:
        """What costs are held to, so that latencies keep to a bound: less by the error, and what there is at least."""
        if bound_s is None:
            return None
        return max(bound_s * (1 - self.error), self.least_cost)

    def is_near(self, bound_s: float | None) -> bool:
        """Whether a bound is so little above the least latency that the profile may err about it."""
        return bound_s is not None and bound_s < self.fastest_s * (1 + self.profile_error)

    def check(self, bound_s: float | None) -> None:
        """Refuses a bound that nothing can keep to.

        Raises:
            CannotBeDone: with the least latency.
        """
        if bound_s is not None and bound_s < self.fastest_s * (1 - self.profile_error):
            raise CannotBeDone(
                f"no architecture of {self.space.name} takes at most {duration(bound_s)}: the fastest possible takes "
                f"about {duration(self.fastest_s)} here; raise --max-latency"
            )

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of a run."""
        return {
            "precision": self.precision,
            "pairs": [list(names) for names in self.table.tables if len(names) > 1],
            "error": self.table.error,
            "fitted": len(self.pool),
            "fastest_s": self.fastest_s,
        }


def fit_guide(anatomy: Anatomy, space: SearchSpace, profile: Profile, seed: int, folder: Path, stage: Stage) -> Guide:
    """Fits the table of a run, or reads it from `folder`: a training that is resumed needs the very same.

    Args:
        space: of architectures without policies, all choices of which the table is over.
    """
    file = folder / FILE
    if not file.exists():
        # With the profile's error, that bounds are lowered by: it is another one once networks are timed again.
        write_json(file, {**_fitted(anatomy, space, profile, seed, stage), "profile_error": profile.held_out.mape})
    found = json.loads(file.read_text())
    table = CostTable(found["base"], {tuple(names): np.array(t) for names, t in found["tables"]}, found["error"])
    pool = np.array(found["pool"], dtype=INDEX)
    seconds, fastest_s, profile_error = np.array(found["seconds"]), found["fastest_s"], found["profile_error"]
    guide = Guide(space, table, found["precision"], pool, seconds, fastest_s, profile_error)
    pairs = sum(len(names) > 1 for names in table.tables)
    stage.say(
        f"{len(pool)} architectures, single choices and {pairs} pairs, held-out error "
        f"{100 * (table.error or 0):.1f} %, fastest about {duration(guide.fastest_s)} ({guide.precision})"
    )
    return guide


def _fitted(anatomy: Anatomy, space: SearchSpace, profile: Profile, seed: int, stage: Stage) -> dict[str, Any]:
    pool = random_range_rows(space, _POOL, np.random.default_rng(seed))
    ends = np.array([space.smallest().indices, space.largest().indices], dtype=INDEX)
    pool = np.unique(np.concatenate([pool, ends]), axis=0)
    precision = _faster(anatomy, space, profile, pool)
    seconds = _predicted(anatomy, space, profile, pool, precision)
    known = _measured(space, profile, precision)
    seconds = np.array([known.get(tuple(row), s) for row, s in zip(pool.tolist(), seconds.tolist(), strict=True)])
    more = np.array([row for row in known if row not in set(map(tuple, pool.tolist()))], dtype=INDEX)
    pool = np.concatenate([pool, more.reshape(-1, len(space))])
    seconds = np.append(seconds, [known[tuple(row)] for row in more.tolist()])
    rigid = {c.name for c in space.choices} - {c.name for c in relaxable(anatomy.tracer.network, space)}
    table = fit_paired_table(space, pool, seconds, choice_pairs(anatomy.tracer, space, rigid), seed)
    # What the table takes for the fastest is measured against the others by the profile as well.
    own = best_architectures({}, space, table, fastest_cost(space, table))
    pool = np.concatenate([pool, own[~(own[:, None] == pool[None]).all(2).any(1)]])
    seconds = np.append(seconds, _predicted(anatomy, space, profile, pool[len(seconds) :], precision))
    first = pool[np.argsort(seconds)[:_COMPARED]]
    fastest_s = min(float(_predicted(anatomy, space, profile, first, p).min()) for p in anatomy.precisions)
    return {
        "base": table.base,
        "tables": [[list(names), costs.tolist()] for names, costs in table.tables.items()],
        "error": table.error,
        "precision": precision,
        "pool": pool.tolist(),
        "seconds": seconds.tolist(),
        "fastest_s": fastest_s,
    }


def random_range_rows(space: SearchSpace, n: int, rng: np.random.Generator) -> np.ndarray:
    """Random architectures (n, d) of all costs, of which uniform draws have only those near their mean.

    Half of them are uniform; of each other one, all choices are drawn from the same random range of their options.
    """
    ends = np.sort(rng.random((n, 2)), axis=1)
    ends[: n // 2] = (0.0, 1.0)
    low, high = np.floor(ends[:, :1] * space.cardinalities), np.ceil(ends[:, 1:] * space.cardinalities)
    return space.canonical((low + np.floor(rng.random((n, len(space))) * (high - low))).astype(INDEX))


def choice_pairs(tracer: BlockTracer, space: SearchSpace, everywhere: set[str]) -> list[tuple[str, str]]:
    """The pairs of choices that a block depends on both, in the order of the space, but for those of too many options.

    Args:
        everywhere: choices that all blocks depend on, such as the resolution.
    """
    names = [choice.name for choice in space.choices]
    found: dict[tuple[str, str], None] = {}
    for block in tracer.blocks:
        read = {*everywhere, *tracer.choices_of(block), *(c.choice for clause in block.when for c in clause)}
        found |= dict.fromkeys(itertools.combinations([name for name in names if name in read], 2))
    return [pair for pair in found if combinations(space, pair) <= MOST_COMBINATIONS]


def _predicted(anatomy: Anatomy, space: SearchSpace, profile: Profile, rows: np.ndarray, precision: str) -> np.ndarray:
    """Latencies (n,) of rows (n, d) with all blocks in one precision."""
    networks = [anatomy.placed(anatomy.joined(space.row(row), precision)) for row in rows]
    return profile.table.predict(networks).mean if networks else np.zeros(0)


def _measured(space: SearchSpace, profile: Profile, precision: str) -> dict[tuple[int, ...], float]:
    """The networks of the profile that were timed in this precision, and their latencies."""
    seen = [s for s in profile.seen if s.kind == precision]
    options = [[s.arch.assignment[choice.name] for choice in space.choices] for s in seen]
    rows = [[c.index(o) for c, o in zip(space.choices, row, strict=True)] for row in options]
    canonical = space.canonical(np.array(rows, dtype=INDEX).reshape(len(rows), len(space)))
    return {tuple(row): s.seconds for row, s in zip(canonical.tolist(), seen, strict=True)}


def _faster(anatomy: Anatomy, space: SearchSpace, profile: Profile, pool: np.ndarray) -> str:
    """The precision in which architectures are faster, by the profile."""
    rows = pool[:: max(1, len(pool) // _COMPARED)]
    took = {p: float(np.log(_predicted(anatomy, space, profile, rows, p)).mean()) for p in anatomy.precisions}
    return min(took, key=lambda precision: took[precision])
