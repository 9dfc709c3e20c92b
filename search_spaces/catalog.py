"""The ready-made search spaces, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search_spaces.mbconv import PRESETS, mbconv
from search_spaces.network import Network


@dataclass(frozen=True)
class SpaceEntry:
    """A ready-made space.

    Args:
        build: (image_size, in_channels, num_classes, preset or None) to an elastic network.
        presets: the names of its presets.
        default_image: the image size each preset is shown at.
    """

    summary: str
    build: Callable[[int, int, int, str | None], Network]
    presets: tuple[str, ...]
    default_image: tuple[int, ...]


SPACES = {
    "mbconv": SpaceEntry(
        summary="inverted residuals of elastic depth, width, kernel, expansion, resolution (MobileNetV3, once-for-all)",
        build=mbconv,
        presets=tuple(PRESETS),
        default_image=tuple(preset.shown_image for preset in PRESETS.values()),
    ),
}
