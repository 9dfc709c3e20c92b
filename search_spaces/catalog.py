"""The ready-made search spaces, by name; torch is loaded when one is built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.network import Network


@dataclass(frozen=True)
class SpaceEntry:
    """A ready-made space.

    Args:
        builder: `module:function`, from (image_size, in_channels, num_classes, preset or None) to an elastic network.
        presets: name to the image size in pixels and number of classes at which it is described without data.
    """

    summary: str
    builder: str
    presets: Mapping[str, tuple[int, int]]

    def build(self, image_size: int, in_channels: int, num_classes: int, preset: str | None) -> Network:
        """The elastic network for square images of `image_size` pixels; without a preset, the one for that size."""
        module, _, function = self.builder.partition(":")
        network: Network = getattr(importlib.import_module(module), function)(
            image_size, in_channels, num_classes, preset
        )
        return network


SPACES = {
    "mbconv": SpaceEntry(
        summary="inverted residuals of elastic depth, width, kernel, expansion, resolution (MobileNetV3, once-for-all)",
        builder="search_spaces.mbconv:mbconv",
        presets={"tiny": (32, 10), "mobile": (224, 1000), "lite": (224, 1000)},
    ),
}
