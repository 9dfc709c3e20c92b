"""Averaged weights as they were in the course of a training, for whoever asks how they came to be good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from supernet.atomic import write_bytes

FOLDER = "snapshots"
_NAME = re.compile(r"step-(\d+)\.safetensors")


def write_snapshot(network: nn.Module, folder: Path, step: int) -> None:
    """Keep a network's weights after `step` steps below a training's folder.

    Raises:
        OSError: the disk is full or not writable.
    """
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    write_bytes(folder / FOLDER / f"step-{step:08d}.safetensors", safetensors.torch.save(tensors))


def find_snapshots(folder: Path) -> Mapping[int, Path]:
    """The snapshots of the training in `folder`: steps to files, in order."""
    found = {int(match[1]): file for file in (folder / FOLDER).glob("*") if (match := _NAME.fullmatch(file.name))}
    return dict(sorted(found.items()))


def read_snapshot(file: Path) -> dict[str, Tensor]:
    """The state dict in a snapshot."""
    tensors: dict[str, Tensor] = safetensors.torch.load_file(file)
    return tensors
