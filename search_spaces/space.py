"""Search spaces: the choices of a network, the architectures they span, and populations of them.

An architecture is a row of option indices in canonical form: a choice that is inactive stands at
index 0, so equal networks are equal rows.  Where a space says so (`Equivalence`), different options are one
network too, and one of their rows stands for all.  A *population* is an integer array (n, d), stored column by
column because every operation over it works a choice at a time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.value import Choice, Clause, Option

_LARGEST_TABLE = 2**16  # entries
INDEX = np.int16  # a population's element type: option indices
MOST_OPTIONS = 2**14  # of one choice: the sum of two indices is still an INDEX

_Clauses = tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]  # of pairs (column, option indices)
_Open = tuple[_Clauses, ...]  # of a choice: when it is active, and when each of its options is offered


@dataclass(frozen=True)
class Equivalence:
    """Says which rows are the same network, by the one that stands for them.

    Args:
        choices: the names of the choices it looks at, none of which depends on any other choice.
        representatives: from rows of their option indices (n, k), in the order of `choices`, to the rows that stand
            for them (n, k): for those that stand for others, themselves.  Defined at the top of a module, so that
            spaces can be pickled and compared.
    """

    choices: tuple[str, ...]
    representatives: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Architecture:
    """One point of a space, in canonical form.

    Args:
        indices: d option indices; 0 where a choice is inactive.
    """

    space: SearchSpace
    indices: tuple[int, ...]

    def __getitem__(self, name: str) -> Option:
        """The option taken by the choice `name` (its first one where inactive).

        Raises:
            KeyError: the space has no such choice.
        """
        return self.assignment[name]

    @functools.cached_property
    def assignment(self) -> Mapping[str, Option]:
        """Choice name to option for all choices, inactive ones at their first option."""
        return {c.name: c.options[i] for c, i in zip(self.space.choices, self.indices, strict=True)}

    @functools.cached_property
    def values(self) -> Mapping[str, Option]:
        """Choice name to option, active choices only: what a person reads and a file holds."""
        active = self.space.active(np.array([self.indices], dtype=INDEX))[0]
        return {c.name: c.options[i] for c, i, on in zip(self.space.choices, self.indices, active, strict=True) if on}

    def __hash__(self) -> int:
        return hash((self.space.name, self.indices))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.indices == other.indices and self.space == other.space

    def __lt__(self, other: Architecture) -> bool:
        return self.indices < other.indices

    def __str__(self) -> str:
        return " ".join(f"{name}={option}" for name, option in self.values.items())


class SearchSpace:
    """An ordered set of choices and the architectures they span.

    A choice's conditions may only name choices that stand before it.

    Args:
        equivalence: which architectures are the same network; by default, no two of them.

    Raises:
        ValueError: no choices, a name given twice, more than `MOST_OPTIONS` options, a condition on an unknown or later
            choice, on an option it does not have, or on no option; or an equivalence over no choice, an unknown one, or
            one that depends on others than its own.
    """

    def __init__(self, name: str, choices: Sequence[Choice], equivalence: Equivalence | None = None) -> None:
        self.name = name
        self.choices = tuple(choices)
        self.equivalence = equivalence
        self._position = {choice.name: j for j, choice in enumerate(self.choices)}
        self._check()
        self._merged = self._check_equivalence()
        self._clauses = tuple(tuple(self._compile(clause) for clause in c.when) for c in self.choices)
        self._offered = tuple(
            tuple(tuple(self._compile(clause) for clause in clauses) for clauses in c.offered) for c in self.choices
        )

    def _check(self) -> None:
        if not self.choices:
            raise ValueError(f"space {self.name!r} has no choices: give at least one layer argument a Choice")
        if len(self._position) < len(self.choices):
            names = [choice.name for choice in self.choices]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"space {self.name!r} has two choices named {twice!r}: give each its own name")
        for j, choice in enumerate(self.choices):
            if len(choice.options) > MOST_OPTIONS:
                raise ValueError(
                    f"choice {choice.name!r} has {len(choice.options)} options, at most {MOST_OPTIONS} fit"
                )
            for condition in itertools.chain.from_iterable(choice.clauses):
                if self._position.get(condition.choice, j) >= j:
                    raise ValueError(
                        f"choice {choice.name!r} depends on {condition.choice!r}, which does not stand before it: "
                        "list every choice after those it depends on"
                    )
                if not condition.options:
                    raise ValueError(
                        f"choice {choice.name!r} depends on no option of {condition.choice!r}: name at least one"
                    )
                for option in condition.options:
                    self.choices[self._position[condition.choice]].index(option)

    def _check_equivalence(self) -> list[int]:
        """The columns that the equivalence is about, in its order."""
        if self.equivalence is None:
            return []
        names = self.equivalence.choices
        if not names:
            raise ValueError(f"the equivalence of space {self.name!r} names no choices: give those that it looks at")
        for name in names:
            if name not in self._position:
                raise ValueError(f"the equivalence of space {self.name!r} names {name!r}, which is no choice of it")
            parents = {c.choice for clause in self.choices[self._position[name]].clauses for c in clause}
            if outside := parents - set(names):
                raise ValueError(
                    f"choice {name!r} depends on {min(outside)!r}, which the equivalence of space {self.name!r} does "
                    "not name: add it to the equivalence"
                )
        return [self._position[name] for name in names]

    def _compile(self, clause: Clause) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """A clause as pairs (column, option indices)."""
        pairs = []
        for condition in clause:
            column = self._position[condition.choice]
            pairs.append((column, tuple(sorted(map(self.choices[column].index, condition.options)))))
        return tuple(pairs)

    def __len__(self) -> int:
        """The number of choices d (not of architectures, which is `size`)."""
        return len(self.choices)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SearchSpace)
            and self.name == other.name
            and self.choices == other.choices
            and self.equivalence == other.equivalence
        )

    def __hash__(self) -> int:
        return hash((self.name, self.choices))

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {len(self)} choices)"

    @functools.cached_property
    def cardinalities(self) -> np.ndarray:
        """The number of options of each choice (d,)."""
        return np.array([len(choice.options) for choice in self.choices])

    @functools.cached_property
    def unmerged(self) -> SearchSpace:
        """The same choices with each row a network of its own: where weights are trained, and options share evenly.

        Representatives are no fair sample of the options that they stand for.
        """
        return self if self.equivalence is None else SearchSpace(self.name, self.choices)

    # -- canonical form ------------------------------------------------------------------------------

    def active_column(self, population: np.ndarray, j: int) -> np.ndarray | None:
        """Which rows of a *canonical-so-far* population (n, d) choice j matters in (n,); None for all."""
        clauses = self._clauses[j]
        if not clauses:
            return None
        hit = np.zeros(len(population), dtype=bool)
        for clause in clauses:
            hit |= self._clause_holds(population, clause)
        return hit

    @functools.cached_property
    def _parents(self) -> list[list[int]]:
        """The columns that decide which options of a choice are offered; none where all are."""
        return [sorted({column for column, _ in itertools.chain(*itertools.chain(*each))}) for each in self._offered]

    @functools.cached_property
    def _tables(self) -> list[np.ndarray | None]:
        """Of choices whose options are not all offered: which option stands.

        Clauses would be looked at for each option anew, in the innermost loop of a search.  A table has an axis for
        each of the parents, at whose end that one is inactive, and one for the options themselves.  None where it would
        be large.
        """
        found: list[np.ndarray | None] = []
        for j, parents in enumerate(self._parents):
            shape = (*(self.cardinalities[parents] + 1), len(self.choices[j].options))
            small = self._offered[j] and math.prod(map(int, shape)) <= _LARGEST_TABLE
            found.append(self._standing(j, np.indices(shape)) if small else None)
        return found

    def _standing(self, j: int, known: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Which option stands for the one that choice j has.

        Args:
            known: the options of its parents, each one beyond its last where it is inactive, and its own; of one shape.
        """
        at, own = dict(zip(self._parents[j], known, strict=False)), known[-1]
        stands = np.full(own.shape, len(self.choices[j].options) - 1, dtype=INDEX)
        for index, clauses in enumerate(self._offered[j]):
            for clause in clauses:
                holds = own == index
                for column, options in clause:
                    holds &= np.isin(at[column], options)
                stands[holds] = index
        return stands

    def _known(self, rows: np.ndarray, column: int) -> np.ndarray:
        """The options (n,) of a choice, one beyond the last where it is inactive."""
        active = self.active_column(rows, column)
        return rows[:, column] if active is None else np.where(active, rows[:, column], self.cardinalities[column])

    def _clause_holds(self, population: np.ndarray, clause: tuple[tuple[int, tuple[int, ...]], ...]) -> np.ndarray:
        holds = np.ones(len(population), dtype=bool)
        for column, options in clause:
            values = population[:, column]
            last = len(self.choices[column].options) - 1
            if options == tuple(range(options[0], last + 1)):
                holds &= values >= options[0]
            else:
                holds &= np.isin(values, options)
            # A first option is also how an inactive choice is stored: then the parent must be active itself.
            if options[0] == 0 and (parent := self.active_column(population, column)) is not None:
                holds &= parent
        return holds

    def active(self, population: np.ndarray) -> np.ndarray:
        """Which choices matter in which rows of a canonical population: bool (n, d)."""
        result = np.ones(population.shape, dtype=bool, order="F")
        for j in range(len(self)):
            column = self.active_column(population, j)
            if column is not None:
                result[:, j] = column
        return result

    def canonical(self, population: np.ndarray) -> np.ndarray:
        """A copy of `population` (n, d) with inactive choices at index 0, and one row for all that are equivalent.

        Where an option is not offered, the last one of its choice stands.

        Raises:
            ValueError: wrong number of columns, no whole numbers, or an index outside its choice's options.
        """
        given = np.atleast_2d(population)
        if given.ndim != 2 or given.shape[1] != len(self):
            raise ValueError(f"space {self.name!r} has {len(self)} choices, got an array of shape {given.shape}")
        if given.dtype.kind not in "iu":
            raise ValueError(f"option indices are whole numbers, got {given.dtype}: round them to integers first")
        outside = (given < 0) | (given >= self.cardinalities)  # before the cast, which would wrap
        if outside.any():
            i, j = np.argwhere(outside)[0]
            choice = self.choices[j]
            raise ValueError(
                f"choice {choice.name!r} has options 0 to {len(choice.options) - 1}, got index {given[i, j]}"
            )
        return self._canonical_(np.array(given, dtype=INDEX, order="F"))

    def _canonical_(self, rows: np.ndarray) -> np.ndarray:
        """Sets inactive choices of valid `rows` to index 0 and equivalent ones to their representatives, in place."""
        if self.equivalence:
            # First, since others may depend on them: what these switch on keeps the option that it has.
            self._inactive_to_first_(rows, sorted(self._merged))
            rows[:, self._merged] = self.equivalence.representatives(rows[:, self._merged])
        return self._inactive_to_first_(rows, range(len(self)))

    def _inactive_to_first_(self, rows: np.ndarray, columns: Iterable[int]) -> np.ndarray:
        for j in columns:
            if self._offered[j]:
                known = (*(self._known(rows, parent) for parent in self._parents[j]), rows[:, j])
                table = self._tables[j]
                rows[:, j] = self._standing(j, known) if table is None else table[known]
            column = self.active_column(rows, j)
            if column is not None:
                rows[:, j] *= column
        return rows

    # -- making architectures ------------------------------------------------------------------------

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n architectures (n, d): every choice uniform over its options, then made canonical."""
        return self._canonical_(self._draw(n, rng))

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows (n, d) with every choice uniform over its options, active or not."""
        rows = np.empty((n, len(self)), dtype=INDEX, order="F")
        for j, choice in enumerate(self.choices):
            rows[:, j] = rng.integers(len(choice.options), size=n, dtype=INDEX)
        return rows

    def row(self, indices: Sequence[int] | np.ndarray) -> Architecture:
        """The architecture of one row of indices (d,), made canonical.

        Raises:
            ValueError: as `canonical`.
        """
        return Architecture(self, tuple(self.canonical(np.asarray(indices)[None])[0].tolist()))

    def architecture(self, values: Mapping[str, Option]) -> Architecture:
        """The architecture with the options `values`; inactive choices may be left out.

        Raises:
            ValueError: an unknown choice, an option a choice does not have, or an active choice left out.
        """
        for name in values:
            if name not in self._position:
                raise ValueError(f"space {self.name!r} has no choice {name!r}; it has {', '.join(self._position)}")
        indices = [choice.index(values[choice.name]) if choice.name in values else 0 for choice in self.choices]
        arch = self.row(indices)
        missing = [name for name in arch.values if name not in values]
        if missing:
            raise ValueError(f"choice {missing[0]!r} of space {self.name!r} is active but has no value")
        return arch

    def smallest(self) -> Architecture:
        """Every choice at its first (cheapest) option."""
        return self.row([0] * len(self))

    def largest(self) -> Architecture:
        """Every choice at its last (dearest) option."""
        return self.row(self.cardinalities - 1)

    def scaled(self, fraction: float) -> Architecture:
        """Every choice at the same fraction, 0 to 1, of its option list: plain uniform scaling.

        The nearest option, the dearer one of two equally near.

        Raises:
            ValueError: `fraction` outside 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a scale lies between 0 and 1, got {fraction}")
        return self.row(np.floor(fraction * (self.cardinalities - 1) + 0.5).astype(int))

    # -- counting ------------------------------------------------------------------------------------

    @functools.cached_property
    def size(self) -> int:
        """The exact number of architectures.

        Each group of choices connected by conditions is counted choice by choice, and partial rows that leave
        the same conditions open are counted together.  Exponential only in the conditions open at once, and in
        the choices of the equivalence, whose rows are walked.
        """
        return math.prod(self._group_size(group) for group in self._groups())

    def _groups(self) -> list[list[int]]:
        """Columns joined by conditions or by the equivalence, as lists in order."""
        root = list(range(len(self)))

        def find(j: int) -> int:
            while root[j] != j:
                j = root[j]
            return j

        for j, clauses in enumerate(self._clauses):
            for column, _ in itertools.chain.from_iterable((*clauses, *itertools.chain(*self._offered[j]))):
                root[find(j)] = find(column)
        for j in self._merged:
            root[find(j)] = find(self._merged[0])
        groups: dict[int, list[int]] = {}
        for j in range(len(self)):
            groups.setdefault(find(j), []).append(j)
        return list(groups.values())

    def _group_size(self, group: list[int]) -> int:
        merged = sorted(set(group).intersection(self._merged))
        group = [j for j in group if j not in merged]
        start = tuple((self._clauses[j] or ((),), *self._offered[j]) for j in group)
        counts = Counter({start: 1})  # the clauses left open, to partial rows
        if merged:
            counts = self._left_by_merged(start, merged)
        for j in group:
            following: Counter[tuple[_Open, ...]] = Counter()
            for ((own, *offered), *rest), count in counts.items():
                offered = offered or [((),)] * len(self.choices[j].options)
                there: Sequence[int | None] = [index for index, clauses in enumerate(offered) if () in clauses]
                for index in there if () in own else (None,):
                    following[tuple(_left(each, j, index) for each in rest)] += count
            counts = following
        return sum(counts.values())

    def _left_by_merged(self, start: tuple[_Open, ...], columns: list[int]) -> Counter[tuple[_Open, ...]]:
        """What the rows of the equivalence's choices, at `columns`, leave open of the clauses `start`, each counted."""
        alone = SearchSpace(self.name, [self.choices[j] for j in columns], self.equivalence)
        every = np.stack(np.unravel_index(np.arange(math.prod(alone.cardinalities.tolist())), alone.cardinalities), 1)
        rows = np.unique(alone.canonical(every), axis=0)
        indices = np.where(alone.active(rows), rows, -1)
        counts: Counter[tuple[_Open, ...]] = Counter()
        for row in indices.tolist():
            clauses = start
            for column, index in zip(columns, row, strict=True):
                left = {each: _left(each, column, None if index < 0 else index) for each in set(clauses)}
                clauses = tuple(left[each] for each in clauses)
            counts[clauses] += 1
        return counts

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in the order of rows.  Only for spaces small enough to walk."""
        yield from (Architecture(self, row) for row in self._walk(()))

    def _walk(self, prefix: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        j = len(prefix)
        row = np.array([prefix + (0,) * (len(self) - j)], dtype=INDEX)
        if self.equivalence and j == 1 + max(self._merged):
            merged = row[:, self._merged]
            if not np.array_equal(self.equivalence.representatives(merged), merged):
                return
        if j == len(self):
            yield prefix
            return
        mask = self.active_column(row, j)
        for index in range(len(self.choices[j].options) if mask is None or mask[0] else 1):
            row[0, j] = index
            if self._inactive_to_first_(row, [j])[0, j] == index:  # it is offered, or inactive
                yield from self._walk((*prefix, index))


def _left(each: _Open, column: int, index: int | None) -> _Open:
    """What is open of a choice once `column` stands at `index`."""
    return tuple(_left_open(clauses, column, index) for clauses in each)


def _left_open(clauses: _Clauses, column: int, index: int | None) -> _Clauses:
    """What is open of `clauses` once `column` stands at `index` (None: inactive): ((),) holds, () cannot."""
    left = []
    for clause in clauses:
        if all(index in options for j, options in clause if j == column):
            left.append(tuple(pair for pair in clause if pair[0] != column))
    return ((),) if () in left else tuple(dict.fromkeys(left))
