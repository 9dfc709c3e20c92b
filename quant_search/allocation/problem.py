"""An allocation problem as a value: one option for each layer, sums of tables, and budgets that the sums must keep.

The integer programme of HAWQ-V3 (arXiv:2011.10680, section 3.4): the damage and each cost of a network are sums over
its layers; damage is minimised under limits of size, bit operations and latency.  Here a sum may also have terms of
*pairs* of layers, such as the time of a conversion where neighbours differ in format.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DAMAGE = "damage"

Rows = Mapping[str, Mapping[str, float]]
"""Layer to option to amount."""
Pairs = Mapping[tuple[str, str], Mapping[tuple[str, str], float]]
"""Two layers to their options to amount; those that are not named cost nothing."""


@dataclass(frozen=True)
class Pair:
    """Amounts of two layers' options together: `amounts[o][p]` of option o of `first` and p of `second`.

    `first` and `second` are places of layers, in that order.  An infinite amount forbids the combination.
    """

    first: int
    second: int
    amounts: tuple[tuple[float, ...], ...]

    @functools.cached_property
    def array(self) -> np.ndarray:
        """The amounts (options of the first, of the second), not to be written to."""
        found = np.array(self.amounts)
        found.flags.writeable = False
        return found


@dataclass(frozen=True)
class Table:
    """What is summed: `rows[i][o]` of option o of layer i, and amounts of pairs.

    Amounts are finite and may be negative: a measured loss of accuracy is, by noise.
    """

    name: str
    rows: tuple[tuple[float, ...], ...]
    pairs: tuple[Pair, ...] = ()

    def terms(self, choice: Sequence[int]) -> list[float]:
        """The amounts that a choice, an option's place for each layer, adds up."""
        own = [row[o] for row, o in zip(self.rows, choice, strict=True)]
        return own + [pair.amounts[choice[pair.first]][choice[pair.second]] for pair in self.pairs]

    def total(self, choice: Sequence[int]) -> float:
        """The sum of a choice, the same in whatever order the layers stand; inf where a pair is forbidden."""
        return math.fsum(self.terms(choice))

    @functools.cached_property
    def forbids(self) -> bool:
        """Whether a pair is forbidden."""
        return any(np.isinf(pair.array).any() for pair in self.pairs)

    @functools.cached_property
    def span(self) -> float:
        """How far the sums of two choices can lie apart, at most; 0 where all are equal."""
        sets = [np.array(row) for row in self.rows] + [p.array[np.isfinite(p.array)] for p in self.pairs]
        return math.fsum(float(np.ptp(values)) for values in sets if values.size)


@dataclass(frozen=True)
class Allocation:
    """A choice with its sums.

    Args:
        choice: layer to option.
        costs: cost to its sum.
        optimal: whether nothing better is possible, up to 1e-9 of what choices differ in.
        gap: by how much the minimised sum may exceed the least possible, in its units; None where not known.
    """

    choice: Mapping[str, str]
    damage: float
    costs: Mapping[str, float]
    optimal: bool
    gap: float | None


@dataclass(frozen=True)
class Problem:
    """Layers, the options that each has, and tables of equal form.

    Args:
        options: of each layer, in the order of the tables' rows; layers may have different ones.
        budgets: the most that the sum of a cost, or the damage, may be; what is not named is free.
        minimise: the damage, or in the dual form a cost.
    """

    layers: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    damage: Table
    costs: tuple[Table, ...] = ()
    budgets: Mapping[str, float] = field(default_factory=dict)
    minimise: str = DAMAGE

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("an allocation needs layers, got none")
        for names, what in ((self.layers, "layers"), ([t.name for t in self.tables], "tables")):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} need names of their own, got {', '.join(names)}")
        for layer, options in zip(self.layers, self.options, strict=True):
            if not options or len(set(options)) < len(options):
                raise ValueError(f"layer {layer!r} needs options, each once, got {options}")
        for table in self.tables:
            self._check_table(table)
        for name, budget in self.budgets.items():
            if math.isnan(budget):
                raise ValueError(f"the budget of {name!r} is no number: leave it out where there is none")
            self.table(name)
        self.table(self.minimise)

    def _check_table(self, table: Table) -> None:
        sizes = [len(options) for options in self.options]
        if [len(row) for row in table.rows] != sizes:
            raise ValueError(f"table {table.name!r} needs an amount for each option: {sizes} in each layer")
        for layer, options, row in zip(self.layers, self.options, table.rows, strict=True):
            for option, amount in zip(options, row, strict=True):
                if not math.isfinite(amount):
                    raise ValueError(
                        f"{table.name} of layer {layer!r} with {option!r} is {amount}, expected a finite number: "
                        "leave an option that a layer lacks out of its options"
                    )
        for pair in table.pairs:
            if not 0 <= pair.first < pair.second < len(sizes):
                raise ValueError(
                    f"a pair of {table.name!r} is of layers {pair.first} and {pair.second}: name two in order"
                )
            shape = [len(row) for row in pair.amounts]
            if shape != [sizes[pair.second]] * sizes[pair.first]:
                names = f"{self.layers[pair.first]!r} and {self.layers[pair.second]!r}"
                raise ValueError(f"{table.name} of the pair {names} needs an amount for each two of their options")
            if (np.isnan(pair.array) | np.isneginf(pair.array)).any():
                raise ValueError(f"a pair of {table.name!r} has an amount that is no number or -inf")

    @property
    def tables(self) -> tuple[Table, ...]:
        """The damage and the costs."""
        return (self.damage, *self.costs)

    def table(self, name: str) -> Table:
        """The table of a name.

        Raises:
            ValueError: there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise ValueError(f"no table {name!r}: there are {', '.join(t.name for t in self.tables)}")

    @property
    def objective(self) -> Table:
        """The table whose sum is minimised."""
        return self.table(self.minimise)

    @functools.cached_property
    def limits(self) -> tuple[tuple[Table, float], ...]:
        """Tables with a budget, beside what they may sum to.

        A forbidden pair of any table is forbidden: a table that has one is bounded by infinity.
        """
        bounds = {t.name: math.inf for t in self.tables if t.forbids} | dict(self.budgets)
        return tuple((self.table(name), budget) for name, budget in bounds.items())

    def fits(self, choice: Sequence[int]) -> bool:
        """Whether a choice, an option's place for each layer, is possible and keeps the budgets."""
        return all(
            (total := table.total(choice)) <= budget + slack(table, budget) and total < math.inf
            for table, budget in self.limits
        )

    def allocation(self, choice: Sequence[int], optimal: bool = False, gap: float | None = None) -> Allocation:
        """A choice, an option's place for each layer, with its sums."""
        named = {layer: options[o] for layer, options, o in zip(self.layers, self.options, choice, strict=True)}
        costs = {table.name: table.total(choice) for table in self.costs}
        return Allocation(named, self.damage.total(choice), costs, optimal, 0.0 if optimal else gap)


def slack(table: Table, budget: float) -> float:
    """By how much a sum may pass its budget and still count as equal: what rounding of floats makes of it."""
    return 1e-9 * max(abs(budget), table.span) if math.isfinite(budget) else 0.0


def problem_of(
    damage: Rows,
    costs: Mapping[str, Rows] | None = None,
    budgets: Mapping[str, float] | None = None,
    pairs: Mapping[str, Pairs] | None = None,
    minimise: str = DAMAGE,
) -> Problem:
    """The problem of tables by names.

    Args:
        damage: its layers and options are those that can be chosen.
        costs: cost to amounts of each layer and option.
        budgets: cost, or `damage`, to the most that it may sum to.
        pairs: cost, or `damage`, to amounts of pairs of layers; an infinite one forbids the combination.
        minimise: what is minimised, `damage` or a cost.

    Raises:
        ValueError: an amount is missing or not finite, or a name is not known.
    """
    costs, pairs = costs or {}, pairs or {}
    layers = tuple(damage)
    options = tuple(tuple(row) for row in damage.values())
    if unknown := set(pairs) - {DAMAGE, *costs}:
        raise ValueError(f"pairs of {min(unknown)!r}, which is no table: there are {', '.join((DAMAGE, *costs))}")

    def table(name: str, rows: Rows) -> Table:
        taken = tuple(_row(name, layer, rows, of) for layer, of in zip(layers, options, strict=True))
        return Table(name, taken, tuple(_pair(name, damage, key, of) for key, of in pairs.get(name, {}).items()))

    tables = tuple(table(name, rows) for name, rows in costs.items())
    return Problem(layers, options, table(DAMAGE, damage), tables, dict(budgets or {}), minimise)


def _row(name: str, layer: str, rows: Rows, options: Sequence[str]) -> tuple[float, ...]:
    row = rows.get(layer, {})
    missing = [option for option in options if option not in row]
    if missing:
        raise ValueError(f"table {name!r} has no amount of layer {layer!r} with {missing[0]!r}: measure it or drop it")
    return tuple(float(row[option]) for option in options)


def _pair(name: str, damage: Rows, key: tuple[str, str], amounts: Mapping[tuple[str, str], float]) -> Pair:
    layers = list(damage)
    for layer in key:
        if layer not in damage:
            raise ValueError(f"a pair of {name!r} is of layer {layer!r}: there are {', '.join(layers)}")
    if key[0] == key[1]:
        raise ValueError(f"a pair of {name!r} is of layer {key[0]!r} twice: name two layers")
    one, other = (list(damage[layer]) for layer in key)
    for o, p in amounts:
        if o not in one or p not in other:
            raise ValueError(f"{name} of the pair {key} has options {(o, p)}, expected of {one} and {other}")
    full = tuple(tuple(float(amounts.get((o, p), 0.0)) for p in other) for o in one)
    first, second = (layers.index(layer) for layer in key)
    return Pair(first, second, full) if first < second else Pair(second, first, tuple(zip(*full, strict=True)))


def alike(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of each row, numbered as they come and equal rows having the same, and a row of each class."""
    # By bytes: sorting rows, as np.unique does, takes a hundred times as long where they are thousands.
    seen: dict[bytes, int] = {}
    classes = [seen.setdefault(row.tobytes(), len(seen)) for row in np.ascontiguousarray(rows) + 0.0]
    return np.array(classes, dtype=int), np.unique(classes, return_index=True)[1]


def without_gains(damage: Rows) -> dict[str, dict[str, float]]:
    """Damage with zero for negative amounts.

    A network does not get better by rounding: a measured gain is noise, and an allocation, which picks the least of
    many noisy numbers, would seek exactly those.
    """
    return {layer: {option: max(0.0, amount) for option, amount in row.items()} for layer, row in damage.items()}
