"""The ready-made search spaces, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from search_spaces.mbconv import PRESETS, mbconv
from search_spaces.network import Network


@dataclass(frozen=True)
class SpaceEntry:
    """A ready-made space.

    Args:
        build: (image_size, in_channels, num_classes, preset or None) to an elastic network.
        presets: name to the image size and number of classes at which the preset is described.
    """

    summary: str
    build: Callable[[int, int, int, str | None], Network]
    presets: Mapping[str, tuple[int, int]]


SPACES = {
    "mbconv": SpaceEntry(
        summary="inverted residuals of elastic depth, width, kernel, expansion, resolution (MobileNetV3, once-for-all)",
        build=mbconv,
        presets={name: preset.shown for name, preset in PRESETS.items()},
    ),
}
