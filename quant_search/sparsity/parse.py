"""From the text that a user gives to the pattern that it names; loads no torch."""

from __future__ import annotations

import difflib
import re

from quant_search.sparsity.catalog import PATTERNS
from quant_search.sparsity.patterns import Pattern

_NUMBER = r"(\d+\.?\d*|\.\d+)"
_WORD = re.compile(r"[a-z]+")


def parse_pattern(text: str) -> Pattern:
    """The pattern of a text: `dense`, `channels:0.75`, `2:4`, `16x4:0.5` or `unstructured:0.8`.

    The number is the share that is kept, but for `unstructured`, where it is the share of zeros.

    Raises:
        ValueError: no such pattern, with the nearest one, or a number that it cannot have.
    """
    for entry in PATTERNS.values():
        found = re.fullmatch(entry.form.replace("NUMBER", _NUMBER), text)
        if found:
            kinds = zip(found.groups(), entry.fields, strict=True)
            return entry.pattern(*(kind(number) for number, kind in kinds))
    raise ValueError(f"unknown sparsity {text!r}{_nearest(text)}: there are {', '.join(_EXAMPLES)}")


_EXAMPLES = tuple(entry.example for entry in PATTERNS.values())


def _nearest(text: str) -> str:
    """An example of the kind that was meant, with the number that was given where it has one."""
    word, _, number = text.partition(":")
    close = difflib.get_close_matches(word.lower(), [e.partition(":")[0] for e in _EXAMPLES], n=1)
    if not close:
        return ""
    example = next(e for e in _EXAMPLES if e.partition(":")[0] == close[0])
    kind, colon, usual = example.partition(":")
    given = number if re.fullmatch(_NUMBER, number) else usual
    meant = f"{kind}:{given}" if colon and _WORD.fullmatch(kind) else example
    return f" (did you mean {meant!r}?)"
