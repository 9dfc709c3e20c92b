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
        presets: name to the image size in pixels and number of classes at which it is described without data, from
            the smallest network.
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
    "resnet": SpaceEntry(
        summary="bottlenecks of elastic depth, width, expansion, stem, resolution (ResNet-50D, once-for-all)",
        builder="search_spaces.resnet:resnet",
        presets={"tiny": (32, 10), "imagenet": (224, 1000)},
    ),
    "fbnet": SpaceEntry(
        summary="22 layers, each one of 9 operations (FBNet, HW-NAS-Bench)",
        builder="search_spaces.fbnet:fbnet",
        presets={"tiny": (32, 10), "full": (224, 1000)},
    ),
    "nas_bench_macro": SpaceEntry(
        summary="8 layers, each nothing or one of 2 inverted residuals (NAS-Bench-Macro)",
        builder="search_spaces.nas_bench_macro:nas_bench_macro",
        presets={"tiny": (16, 10), "full": (32, 10)},
    ),
    "nas_bench_201": SpaceEntry(
        summary="cells of 6 edges, each one of 5 operations, equal ones counted once (NAS-Bench-201)",
        builder="search_spaces.cell:nas_bench_201",
        presets={"tiny": (16, 10), "full": (32, 10)},
    ),
}
