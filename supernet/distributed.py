"""Training by several processes, one a device: each takes its share of every batch, and all take the same step.

Data parallelism with the same subnets on all processes.  `DistributedDataParallel` is not used, since it expects one
forward pass a step that reaches every weight: here a step has several passes, each through some of the weights, and
gradients are averaged once, after the last.  Batch norms take the statistics of the joined batch, so that a step is
that of one process with all images, whatever the number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Which process this is, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def joined() -> Iterator[torch.device]:
    """Joins the processes that `torchrun` started, inside the block; gives the device of this one.

    Where `torchrun` started none, this process is alone.  A process has the GPU of its local number, if there are
    GPUs, and NCCL connects them; else it has the CPU, and gloo does.

    Raises:
        ValueError: there are GPUs, but fewer than processes on this machine.
    """
    gpus, processes = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % gpus) if gpus else torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield device
        return
    if 0 < gpus < processes:
        raise ValueError(f"{processes} processes need a GPU each, and there are {gpus}: give --nproc-per-node {gpus}")
    if gpus:  # also for what is sent by pickle, which goes by the current GPU
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo", device_id=device if gpus else None)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def average_(tensors: Sequence[Tensor]) -> None:
    """Put into each tensor its mean over all processes, which hold tensors of the same shapes in the same order."""
    _, size = world()
    if size == 1 or not tensors:
        return
    joint = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(joint)
    joint /= size
    parts = joint.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def extremes_of(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of a tensor, of all processes' tensors together; none of them empty."""
    low, high = tensor.amin(), tensor.amax()
    if world()[1] == 1:
        return low, high
    ends = torch.stack([-low, high]).float()
    dist.all_reduce(ends, dist.ReduceOp.MAX)
    return -ends[0], ends[1]


def mean_of(value: float, device: torch.device) -> float:
    """The mean of a number over all processes."""
    if world()[1] == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    average_([held])
    return float(held)


def first_says(value: T) -> T:
    """What the first process holds: for what hangs on a clock or a file, on which all must agree."""
    if world()[1] == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]
