"""What architectures cost as a sum over a table, and what a distribution over them is expected to cost.

Expected latency from a look-up table: FBNet (arXiv:1812.03443), equation 3; ProxylessNAS (arXiv:1812.00332),
equations 5 and 6; for choices that only exist where others say so, HardCoRe-NAS (arXiv:2102.11646), section 3.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search_spaces.space import INDEX, SearchSpace

MOST_COMBINATIONS = 2**16  # of the options that a group's cost depends on


@dataclass(frozen=True, eq=False)
class CostTable:
    """cost(a) = base + Σ over groups of choices of table[the options taken], where all choices of the group are active.

    Args:
        base: what every architecture costs, in seconds.
        tables: from the names of a group of choices, in any order, to seconds, an array with an axis for each; one
            name may stand alone.
        error: mean relative error of the table on architectures that it was not fitted to, where that is known.

    Raises:
        ValueError: a number that is not finite.
    """

    base: float
    tables: Mapping[tuple[str, ...], np.ndarray]
    error: float | None = None

    def __post_init__(self) -> None:
        tables = {(names,) if isinstance(names, str) else tuple(names): t for names, t in self.tables.items()}
        object.__setattr__(self, "tables", {names: np.asarray(t, float) for names, t in tables.items()})
        for names, table in self.tables.items():
            if not np.isfinite(table).all():
                raise ValueError(f"the costs of {', '.join(names)} must be finite, got {table.tolist()}")
        if not math.isfinite(self.base):
            raise ValueError(f"the base cost must be finite, got {self.base}")

    def __repr__(self) -> str:
        """With a digest of the tables: equal tables, equal text, as a training's identity needs it."""
        digest = hashlib.blake2b(digest_size=8)
        for names, table in sorted(self.tables.items()):
            digest.update(repr((names, table.tolist())).encode())
        return f"CostTable(base={self.base!r}, tables={digest.hexdigest()})"

    def groups(self, space: SearchSpace) -> list[tuple[list[int], np.ndarray]]:
        """Columns of each group's choices in `space`, and its table.

        Raises:
            ValueError: a choice that the space does not have, or a table of another shape than its choices'.
        """
        position = {choice.name: j for j, choice in enumerate(space.choices)}
        found = []
        for names, table in self.tables.items():
            missing = [name for name in names if name not in position]
            if missing:
                raise ValueError(f"the cost table has a choice {missing[0]!r} that space {space.name!r} has not")
            columns = [position[name] for name in names]
            expected = tuple(space.cardinalities[columns].tolist())
            if table.shape != expected:
                raise ValueError(f"the costs of {', '.join(names)} must have shape {expected}, got {table.shape}")
            found.append((columns, table))
        return found

    def costs(self, space: SearchSpace, population: np.ndarray) -> np.ndarray:
        """Costs (n,) in seconds of a canonical population (n, d).

        Raises:
            ValueError: the table is one of another space.
        """
        active = space.active(population)
        costs = np.full(len(population), float(self.base))
        for columns, table in self.groups(space):
            costs += group_costs(table, columns, population, active)
        return costs


def group_costs(table: np.ndarray, columns: list[int], population: np.ndarray, active: np.ndarray) -> np.ndarray:
    """What a group adds (n,) to the costs of a population (n, d) whose choices are `active` (n, d)."""
    taken: np.ndarray = table[tuple(population[:, columns].T)]
    return np.where(active[:, columns].all(1), taken, 0.0)


class ExpectedCost:
    """The expected cost of independent choices, differentiable in their probabilities.

    Rows that are the same network (`search_spaces.space.Equivalence`) cost each what it says itself: a mixture computes
    all options, those as well that would be of no use by themselves.

    Complexity: the options of a group's choices, and of those its conditions name, are gone through together.

    Raises:
        ValueError: as `CostTable.groups`, or a group with more combinations than 65,536.
    """

    def __init__(self, table: CostTable, space: SearchSpace, device: torch.device | None = None) -> None:
        self.table, self.space, self.device = table, space, device or torch.device("cpu")
        self._terms = [self._term(columns, costs) for columns, costs in table.groups(space)]

    def _term(self, columns: list[int], table: np.ndarray) -> tuple[list[int], Tensor, Tensor]:
        """The columns that a group's cost depends on, their combinations (columns, r) and what each costs (r,)."""
        read = ancestors(self.space, columns)
        sizes = self.space.cardinalities[read].tolist()
        if math.prod(sizes) > MOST_COMBINATIONS:
            names = ", ".join(self.space.choices[j].name for j in columns)
            raise ValueError(
                f"the cost of {names} depends on {len(read)} choices of space {self.space.name!r}, whose options make "
                f"{math.prod(sizes):,} combinations, and at most {MOST_COMBINATIONS:,} can be gone through: give these "
                "choices fewer options or fewer conditions on others, or take a strategy that does not search"
            )
        together = np.array(list(itertools.product(*map(range, sizes))), dtype=INDEX)
        rows = np.zeros((len(together), len(self.space)), dtype=INDEX, order="F")
        rows[:, read] = together
        apart = self.space.unmerged
        rows = apart.canonical(rows)
        costs = group_costs(table, columns, rows, apart.active(rows))
        counted = costs != 0
        taken = torch.from_numpy(together[counted].T.astype(np.int64))
        return read, taken.to(self.device), torch.from_numpy(costs[counted]).to(self.device)

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected seconds, a float64 scalar; choices without probabilities (k,) take every option alike."""
        given = [self._probability(j, probabilities) for j in range(len(self.space))]
        total = torch.tensor(float(self.table.base), dtype=torch.float64, device=self.device)
        for read, taken, costs in self._terms:
            weights = costs
            for column, options in zip(read, taken, strict=True):
                weights = weights * given[column][options]
            total = total + weights.sum()
        return total

    def _probability(self, j: int, probabilities: Mapping[str, Tensor]) -> Tensor:
        choice = self.space.choices[j]
        if choice.name in probabilities:
            return probabilities[choice.name].double()
        size = len(choice.options)
        return torch.full((size,), 1 / size, dtype=torch.float64, device=self.device)


def combinations(space: SearchSpace, names: Iterable[str]) -> int:
    """How many combinations of options the cost of a group of choices depends on."""
    columns = [j for j, choice in enumerate(space.choices) if choice.name in set(names)]
    return math.prod(space.cardinalities[ancestors(space, columns)].tolist())


def ancestors(space: SearchSpace, columns: Iterable[int]) -> list[int]:
    """`columns` and those that decide, directly or through others, whether their choices are active, in order."""
    position = {choice.name: j for j, choice in enumerate(space.choices)}
    found: set[int] = set()
    left = list(columns)
    while left:
        j = left.pop()
        if j not in found:
            found.add(j)
            left += [position[condition.choice] for clause in space.choices[j].clauses for condition in clause]
    return sorted(found)
