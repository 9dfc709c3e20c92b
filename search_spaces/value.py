"""Choices, the conditions under which they are active, and arithmetic over them.

A layer argument is a *value*: a plain number, a `Choice`, or an `Expression` over both
(``width * expansion``).  `resolve` turns a value into a number for one assignment.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

Option = int | float | str | bool


@dataclass(frozen=True)
class Condition:
    """Holds when the choice named `choice` is active and takes one of `options`."""

    choice: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))


Clause = tuple[Condition, ...]


class _Arithmetic:
    """Operators shared by `Choice` and `Expression`; each builds an `Expression`."""

    def __mul__(self, other: Size | float) -> Expression:
        return _expression("*", self, other)

    __rmul__ = __mul__

    def __add__(self, other: Size | float) -> Expression:
        return _expression("+", self, other)

    __radd__ = __add__

    def __floordiv__(self, other: Size | float) -> Expression:
        return _expression("//", self, other)

    def rounded(self, multiple: int = 8) -> Expression:
        """Rounded to the nearest multiple, at least one multiple, losing at most 10 % (MobileNetV2's rule)."""
        return _expression("rounded", self, multiple)


@dataclass(frozen=True)
class Choice(_Arithmetic):
    """One decision: a name and its options, listed from the cheapest to the dearest.

    Args:
        when: the clauses of which one must hold for the choice to matter; a clause is a tuple
            of `Condition`s that must all hold.  A single `Condition` may be given.  Empty: always.
        offered: the clauses of each option under which there is it; where none of them holds, the last option stands
            in its place.  Empty: all, always.  So options that would make equal networks are offered once.

    Raises:
        ValueError: no name, no options, an option that is no number, text or truth value, an option
            given twice (1, 1.0 and True are equal), `when` of another form, or `offered` not for each option, the last
            one always.
    """

    name: str
    options: tuple[Option, ...]
    when: tuple[Clause, ...] = ()
    offered: tuple[tuple[Clause, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        object.__setattr__(self, "when", _clauses(self.name, self.when))
        object.__setattr__(self, "offered", tuple(_clauses(self.name, each) or ((),) for each in self.offered))
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"a choice needs a name, got {self.name!r}")
        if not self.options:
            raise ValueError(f"choice {self.name!r} has no options")
        for option in self.options:
            if not isinstance(option, Option):
                raise ValueError(f"choice {self.name!r} takes plain numbers, texts or truth values, got {option!r}")
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"choice {self.name!r} lists an option twice: {self.options}")
        if self.offered and (len(self.offered) != len(self.options) or () not in self.offered[-1]):
            raise ValueError(
                f"choice {self.name!r} must say of each of its {len(self.options)} options when it is offered, and of "
                f"the last one that it always is (by an empty clause), got {len(self.offered)}"
            )

    @property
    def clauses(self) -> Iterator[Clause]:
        """All clauses that it depends on."""
        yield from self.when
        yield from itertools.chain.from_iterable(self.offered)

    def among(self, *options: Option) -> Condition:
        """The condition that this choice takes one of `options`.

        Raises:
            ValueError: no options, or one that the choice does not have.
        """
        if not options:
            raise ValueError(f"a condition on choice {self.name!r} needs at least one of its options {self.options}")
        for option in options:
            self.index(option)
        return Condition(self.name, options)

    def index(self, option: Option) -> int:
        """The position of `option`.

        Raises:
            ValueError: the choice has no such option.
        """
        for position, known in enumerate(self.options):
            if known == option and isinstance(known, bool) == isinstance(option, bool):
                return position
        raise ValueError(f"choice {self.name!r} has options {self.options}, got {option!r}")


@dataclass(frozen=True)
class Expression(_Arithmetic):
    """An arithmetic expression over choices and numbers."""

    operator: str
    operands: tuple[Value, ...]


Size = int | Choice | Expression
Value = Option | Choice | Expression


def _clauses(name: str, when: object) -> tuple[Clause, ...]:
    """`when` as clauses.

    Raises:
        ValueError: as `Choice`.
    """
    if isinstance(when, Condition):
        return ((when,),)
    clauses = tuple(when) if isinstance(when, Iterable) else (when,)
    for clause in clauses:
        if not isinstance(clause, (tuple, list)) or not all(isinstance(c, Condition) for c in clause):
            raise ValueError(
                f"choice {name!r}: when is one condition or a tuple of clauses, which are tuples of conditions; "
                f"got the clause {clause!r}"
            )
    return tuple(map(tuple, clauses))


def _expression(operator: str, *operands: object) -> Expression:
    for term in operands:
        if not isinstance(term, (Choice, Expression, int, float)):
            raise TypeError(f"arithmetic over choices takes choices and numbers, got {term!r}")
    return Expression(operator, cast("tuple[Value, ...]", operands))


def round_to(number: float, multiple: int) -> int:
    """`number` rounded to the nearest multiple, at least one multiple, losing at most 10 % (MobileNetV2's rule)."""
    rounded = max(multiple, int(number + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * number else rounded


def thinned(width: Size, density: Choice, multiple: int) -> Expression:
    """The channels of `width` that are kept at a density, at most that share of them: a multiple, at least one.

    A width below one multiple stays as it is.
    """
    return _expression("thinned", width, density, multiple)


def _kept(width: int, density: float, multiple: int) -> int:
    kept = math.floor(width * density + 1e-9)  # of products such as 0.7 x 720, which are a little less than whole
    return width if density == 1 else min(width, max(1, kept // multiple) * multiple)


_OPERATORS: dict[str, Callable[..., int | float]] = {
    "*": operator.mul,
    "+": operator.add,
    "//": operator.floordiv,
    "rounded": round_to,
    "thinned": _kept,
}


def resolve(value: Value, assignment: Mapping[str, Option]) -> Option:
    """`value` under an assignment of options to choice names."""
    if isinstance(value, Choice):
        return assignment[value.name]
    if isinstance(value, Expression):
        return _OPERATORS[value.operator](*(resolve(term, assignment) for term in value.operands))
    return value


def choices_of(value: Value) -> tuple[Choice, ...]:
    """The choices that `value` depends on, each once, in order of appearance."""
    if isinstance(value, Choice):
        return (value,)
    if isinstance(value, Expression):
        return tuple(dict.fromkeys(c for term in value.operands for c in choices_of(term)))
    return ()


def possible_together(*values: Value) -> tuple[tuple[Option, ...], ...]:
    """Every combination of results that `values` can take at once, in the order of the choices' options."""
    choices = tuple(dict.fromkeys(c for value in values for c in choices_of(value)))
    names = [choice.name for choice in choices]
    assignments = (
        dict(zip(names, options, strict=True)) for options in itertools.product(*(choice.options for choice in choices))
    )
    return tuple(dict.fromkeys(tuple(resolve(v, assignment) for v in values) for assignment in assignments))


def possible(value: Value) -> tuple[Option, ...]:
    """Every result that `value` can take, in the order of the choices' options, each once."""
    return tuple(result for (result,) in possible_together(value))


def possible_ints(value: Value, what: str) -> tuple[int, ...]:
    """Every result of a value that must be a positive whole number.

    Raises:
        ValueError: a result that is not one.
    """
    results = possible(value)
    for result in results:
        if not isinstance(result, int) or isinstance(result, bool) or result < 1:
            raise ValueError(f"{what} must be a positive whole number, got {result!r}")
    return tuple(r for r in results if isinstance(r, int))
