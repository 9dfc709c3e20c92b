"""Latencies of a space's networks on fused kernels in closed form: nothing of the space is measured.

A block of a network is the steps of native code that it adds, so that estimates of blocks add up.  Each different block
is lowered once, to int8 with neutral weights, as a network of its own in a frame that is taken off.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from latency.blocks import TracedBlock
from latency.device import Device
from latency.fused_prices import prices_of
from latency.fused_roofline import FusedPrices, linear_s, steps_s
from latency.kernels.intake import program_of
from latency.kernels.lowered import lowered
from nas.anatomy import Anatomy
from nas.names import check_device
from nas.profile_data import Role, Subject
from nas.profiles import built_space, profiled_space
from nas.profiling import NeutralModels
from nas.spec import SpaceLike
from search_spaces.space import Architecture, SearchSpace

_PRECISION = "int8"
_DEVICE = "cpu:fused"


class Estimates:
    """Estimated latencies of the architectures of a space, in int8.

    Args:
        prices: of one thread.
        batch: images in a call.
    """

    def __init__(
        self, network: nn.Module, anatomy: Anatomy, image_shape: tuple[int, ...], prices: FusedPrices, batch: int = 1
    ) -> None:
        self._models = NeutralModels(network, anatomy, image_shape, framed=True)
        self._anatomy, self._image_shape, self._prices, self._batch = anatomy, image_shape, prices, batch
        self._frames: dict[tuple[int, ...], float] = {}
        self._blocks: dict[str, float] = {}

    @property
    def space(self) -> SearchSpace:
        """What populations are of."""
        return self._anatomy.space

    def seconds(self, population: np.ndarray) -> np.ndarray:
        """The estimated seconds (n,) of a call with each row of a population (n, d) of `space`.

        Takes some hundredths of a second for each block that was not asked about before.

        Raises:
            ValueError: a block that there are no kernels for.
        """
        return np.array([self._of(self.space.row(row)) for row in population])

    def ranked(self, population: np.ndarray) -> np.ndarray:
        """The rows of a population (n, d) from the fastest to the slowest."""
        ordered: np.ndarray = population[np.argsort(self.seconds(population), kind="stable")]
        return ordered

    def _of(self, arch: Architecture) -> float:
        blocks = self._anatomy.tracer.trace(arch)
        image_s = self._frame_s(blocks[0], arch)  # what makes codes of an image, and logits
        return self._prices.call_s + self._batch * (image_s + sum(self._block_s(block, arch) for block in blocks))

    def _block_s(self, block: TracedBlock, arch: Architecture) -> float:
        if block.structure not in self._blocks:
            if len(block.input_shape) == 1:  # of linear layers
                linear = (layer.channels for layer in block.layers if layer.kind == "linear")
                self._blocks[block.structure] = sum(linear_s(*channels, self._prices) for channels in linear)
            else:
                framed_s = self._lowered_s("block", block, arch)
                self._blocks[block.structure] = framed_s - self._frame_s(block, arch)
        return self._blocks[block.structure]

    def _frame_s(self, block: TracedBlock, arch: Architecture) -> float:
        if block.input_shape not in self._frames:
            self._frames[block.input_shape] = self._lowered_s("frame", block, arch)
        return self._frames[block.input_shape]

    def _lowered_s(self, role: Role, block: TracedBlock, arch: Architecture) -> float:
        subject = Subject(key=block.name, role=role, arch=dict(arch.values), block=block.name, kind=_PRECISION, ways=())
        return sum(steps_s(*lowered(program_of(self._models.build(subject))), self._prices))


def estimates(
    space: SpaceLike = "mbconv",
    *,
    device: str = _DEVICE,
    preset: str | None = None,
    image_size: int | None = None,
    in_channels: int = 3,
    num_classes: int | None = None,
    seed: int = 0,
) -> Estimates:
    """Estimates the latencies of a space's networks in int8 on fused kernels, with no profile.

    What the processor's inner loops take is measured once, in seconds, and kept.  Other arguments are as of
    `nas.profile`.

    Raises:
        ValueError: an argument that cannot be met, another device, or more than one thread.
        RuntimeError: there is no C++ compiler, or it fails.
    """
    chosen = check_device(device, (_PRECISION,))
    check_estimated(chosen)
    profiled = profiled_space(space, preset, image_size, in_channels, num_classes, (_PRECISION,))
    network, anatomy, built = built_space(space, profiled, seed)
    return Estimates(network, anatomy, built.input_shape, prices_of(), chosen.batch)


def check_estimated(device: Device) -> None:
    """Refuses devices whose latencies have no closed form.

    Raises:
        ValueError: another run-time than fused kernels, or more than one thread.
    """
    if device.runtime != "fused":
        raise ValueError(f"latencies have a closed form on {_DEVICE} alone, got device {device.name!r}: measure it")
    if device.threads != 1:
        raise ValueError(f"the closed form is of one thread, got {device.threads}: give {_DEVICE}")
