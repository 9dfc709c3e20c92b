"""What a training went through: the material of the report's training curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One moment of a training, after `step` steps.

    `loss` is the mean label loss since the entry before, of what the strategy records: of the largest network, where
    others imitate it, and else of the networks that were trained.  `seconds` counts all sessions of a resumed
    training; accuracies are fractions on the validation images, taken at some moments only, of the extracted and
    calibrated networks with averaged weights at the strategy's ends: the largest and the smallest, mostly.
    """

    step: int
    seconds: float
    loss: float | None
    lr: float
    val_largest: float | None = None
    val_smallest: float | None = None


@dataclass(frozen=True)
class History:
    """The moments of one training of `total_steps` steps, in order."""

    total_steps: int
    entries: tuple[Entry, ...]

    @property
    def evaluated(self) -> tuple[Entry, ...]:
        """The entries that have validation accuracies."""
        return tuple(entry for entry in self.entries if entry.val_largest is not None)

    @property
    def final(self) -> Entry:
        """The last entry with validation accuracies.

        Raises:
            ValueError: there is none, because the training has not ended.
        """
        if not self.evaluated:
            raise ValueError("this history has no validation accuracies yet: the training has not ended")
        return self.evaluated[-1]

    def plain(self) -> list[dict[str, Any]]:
        """Give the entries as JSON objects."""
        return [asdict(entry) for entry in self.entries]


def entries_from(rows: Sequence[dict[str, Any]]) -> list[Entry]:
    """Read entries back from `History.plain`."""
    return [Entry(**row) for row in rows]
