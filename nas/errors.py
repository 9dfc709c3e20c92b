"""The one error of our own that the command line tells apart."""

from __future__ import annotations


class CannotBeDone(Exception):
    """What was asked is well-formed, but cannot be done: a bound that nothing meets, say.  Exit code 1."""
