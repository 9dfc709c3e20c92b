"""Checkpoints: one safetensors file with the tensors, and the rest as JSON in its header. No pickle.

A checkpoint is replaced in one step, so a run killed at any moment leaves the last whole one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from search_spaces.elastic import add_kernel_transforms_, kernel_transforms_in
from supernet.atomic import write_bytes

FILE_NAME = "checkpoint.safetensors"
FORMAT = 1
AVERAGE = "average/"  # before the names of averaged weights


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, and `meta`, a JSON object."""

    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def save_checkpoint(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint to `file` in one step.

    Raises:
        OSError: the disk is full or not writable; an older file stays as it was.
    """
    # A copy of each: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in checkpoint.tensors.items()}
    header = {"format": str(FORMAT), "meta": json.dumps(checkpoint.meta)}
    # Written by our own call: safetensors' writer hides a full disk in an error of its own class.
    write_bytes(file, safetensors.torch.save(tensors, header))


def load_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint from `file`, tensors on the CPU.

    Raises:
        ValueError: the file is not a checkpoint of this format.
        OSError: it cannot be read.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {file}")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a checkpoint: {error}") from error
    if header.get("format") != str(FORMAT):
        raise ValueError(f"{file} has checkpoint format {header.get('format')}, expected {FORMAT}; train anew")
    return Checkpoint(tensors, json.loads(header["meta"]))


def averaged_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state dict of the averaged weights in a training's checkpoint: what a finished training ends with."""
    kept = checkpoint.tensors.items()
    return {name.removeprefix(AVERAGE): value for name, value in kept if name.startswith(AVERAGE)}


def load_averaged_(network: nn.Module, file: Path) -> None:
    """Give a supernet the averaged weights of the training whose checkpoint `file` is, kernel transforms included.

    Raises:
        ValueError: as `load_checkpoint`, or the weights are those of another network.
        OSError: it cannot be read.
    """
    weights = averaged_weights(load_checkpoint(file))
    if kernel_transforms_in(weights):
        add_kernel_transforms_(network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is the checkpoint of another supernet: {reason}") from error
