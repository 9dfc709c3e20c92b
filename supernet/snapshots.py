"""Averaged weights as they were in the course of a training, for whoever asks how they came to be good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from supernet.checkpoint import AVERAGE, Checkpoint, save_checkpoint

FOLDER = "snapshots"
_NAME = re.compile(r"step-(\d+)\.safetensors")


def write_snapshot(network: nn.Module, folder: Path, step: int) -> None:
    """Keep a network's weights after `step` steps below a training's folder, as `load_averaged_` reads them.

    Raises:
        OSError: the disk is full or not writable.
    """
    tensors = {f"{AVERAGE}{name}": value for name, value in network.state_dict().items()}
    save_checkpoint(Checkpoint(tensors, {"step": step}), folder / FOLDER / f"step-{step:08d}.safetensors")


def find_snapshots(folder: Path) -> Mapping[int, Path]:
    """The snapshots of the training in `folder`: steps to files, in order."""
    found = {int(match[1]): file for file in (folder / FOLDER).glob("*") if (match := _NAME.fullmatch(file.name))}
    return dict(sorted(found.items()))
