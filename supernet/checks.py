"""Checks of single numbers where they enter, with one message each."""

from __future__ import annotations

from collections.abc import Callable


def at_least(name: str, value: object, low: int) -> None:
    """Refuse what is no integer, or one below `low`.

    Raises:
        ValueError: with the name and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")


def expect(name: str, value: float | None, expected: str, holds: Callable[[float], bool]) -> None:
    """Refuse a number that is not as `expected`, which says in words what `holds` says; None passes.

    Raises:
        ValueError: with the name and the value.
    """
    if value is not None and not holds(value):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
