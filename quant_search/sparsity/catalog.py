"""The patterns of sparsity and the criteria of what is pruned first, by name; loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_search.sparsity.patterns import Blocks, Channels, Dense, NofM, Pattern, Unstructured

if TYPE_CHECKING:
    from quant_search.sparsity.criterion import Criterion


@dataclass(frozen=True)
class PatternEntry:
    """A kind of pattern.

    Args:
        form: a regular expression of its names, in which NUMBER stands for one; a group for each field.
        pattern: what the numbers are given to, converted by `fields`.
        smaller: whether it leaves smaller dense tensors; otherwise tensors of the same size with zeros.
    """

    summary: str
    example: str
    form: str
    pattern: Callable[..., Pattern]
    fields: tuple[Callable[[str], float], ...] = ()
    smaller: bool = False


@dataclass(frozen=True)
class CriterionEntry:
    """A way to score weights.

    Args:
        scorer: `module:function`, a `quant_search.sparsity.criterion.Criterion`.
        needs_data: whether it looks at images and labels.
        across_layers: whether scores of different layers may be compared.
    """

    summary: str
    scorer: str
    needs_data: bool = False
    across_layers: bool = False

    def load(self) -> Criterion:
        """The function; torch is loaded where it needs it."""
        module, _, function = self.scorer.partition(":")
        criterion: Criterion = getattr(importlib.import_module(module), function)
        return criterion


PATTERNS: Mapping[str, PatternEntry] = {
    "dense": PatternEntry("no zeros", "dense", "dense", Dense),
    "channels": PatternEntry(
        "a share of channels is kept, in smaller dense layers",
        "channels:0.75",
        "channels:NUMBER",
        Channels,
        (float,),
        smaller=True,
    ),
    "n:m": PatternEntry("n of every m input channels are kept", "2:4", r"(\d+):(\d+)", NofM, (int, int)),
    "blocks": PatternEntry(
        "a share of blocks of output x input channels is kept",
        "16x4:0.5",
        r"(\d+)x(\d+):NUMBER",
        Blocks,
        (int, int, float),
    ),
    "unstructured": PatternEntry(
        "a share of weights is zero, wherever", "unstructured:0.8", "unstructured:NUMBER", Unstructured, (float,)
    ),
}

CRITERIA: Mapping[str, CriterionEntry] = {
    "magnitude": CriterionEntry(
        "the square of a weight (arXiv:1608.08710)", "quant_search.sparsity.magnitude:magnitude"
    ),
    "taylor": CriterionEntry(
        "the square of weight times gradient (arXiv:1906.10771)",
        "quant_search.sparsity.taylor:taylor",
        needs_data=True,
        across_layers=True,
    ),
    "lamp": CriterionEntry(
        "the square of a weight over the squares of those not smaller (arXiv:2010.07611)",
        "quant_search.sparsity.lamp:lamp",
        across_layers=True,
    ),
}
