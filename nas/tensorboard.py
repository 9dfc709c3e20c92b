"""TensorBoard event files of a training, below its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tensorboardX import SummaryWriter

if TYPE_CHECKING:
    from supernet.history import Entry
    from supernet.train import TrainState

FOLDER = "tensorboard"


class Events:
    """Writes what a training goes through; what a killed session wrote beyond the step resumed at is taken back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._writer: SummaryWriter | None = None
        self._newest: Entry | None = None

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def note(self, state: TrainState) -> None:
        """Writes the newest entry of the history, if it is new."""
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=state.step)
        entry = state.entry
        if entry is None or entry == self._newest:
            return
        self._newest = entry
        values = {
            "train/loss": entry.loss,
            "train/lr": entry.lr,
            "val_accuracy/largest": entry.val_largest,
            "val_accuracy/smallest": entry.val_smallest,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, entry.step)
