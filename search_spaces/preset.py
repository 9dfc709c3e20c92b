"""What the presets of ready-made spaces share: how one is chosen, and which resolutions suit a native one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from search_spaces.value import Choice


class Preset(Protocol):
    """The options of a space for images of some size."""

    @property
    def largest_image(self) -> int:
        """The largest native image size in pixels that the preset is meant for."""


P = TypeVar("P", bound=Preset)
AnyOption = TypeVar("AnyOption", int, bool, str)


def preset_for(space: str, presets: Mapping[str, Preset], image_size: int) -> str:
    """The name of the preset for images of `image_size` pixels: the first that is meant for them.

    Raises:
        ValueError: images larger than any preset is meant for.
    """
    for name, preset in presets.items():
        if image_size <= preset.largest_image:
            return name
    largest = max(preset.largest_image for preset in presets.values())
    raise ValueError(f"no {space} preset is meant for images of {image_size} pixels: shrink them to at most {largest}")


def find_preset(space: str, presets: Mapping[str, P], image_size: int, name: str | None, multiple: int = 1) -> P:
    """The preset called `name`; by default, the one for images of `image_size` pixels.

    Args:
        multiple: of pixels, that the space's strides divide.

    Raises:
        ValueError: an unknown preset, none for the image size, or an image size that is no multiple.
    """
    name = name or preset_for(space, presets, image_size)
    if name not in presets:
        raise ValueError(f"unknown {space} preset {name!r}: there are {', '.join(presets)}")
    if image_size < 1 or image_size % multiple:
        nearest = max(multiple, round(image_size / multiple) * multiple)
        what = f"sizes that are multiples of {multiple} pixels" if multiple > 1 else "sizes from 1 pixel"
        raise ValueError(f"{space} takes image {what}, got {image_size}: resize images to {nearest}")
    return presets[name]


def tiny_resolutions(native: int) -> tuple[int, ...]:
    """Up to 16 pixels, images may also be enlarged; larger ones may be shrunk, but not below 16 pixels."""
    if native <= 16:
        sizes = (max(1, 3 * native // 4), native, 3 * native // 2)
    else:
        sizes = (max(16, native // 2), max(16, 3 * native // 4), native)
    return tuple(dict.fromkeys(sizes))


def mobile_resolutions(native: int) -> tuple[int, ...]:
    """Steps of 32 pixels, the total stride, from about half the native size up to it."""
    steps = {max(32, round(native * f / 32) * 32) for f in (4 / 7, 5 / 7, 6 / 7)}
    return (*sorted(step for step in steps if step < native), native)


def choice_or_option(name: str, options: tuple[AnyOption, ...]) -> Choice | AnyOption:
    """A choice, or the plain option where there is nothing to choose."""
    return Choice(name, options) if len(options) > 1 else options[0]
