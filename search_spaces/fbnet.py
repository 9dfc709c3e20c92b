"""The fbnet space: 22 layers, each of which is one of 9 operations.

FBNet (Wu et al., arXiv:1812.03443): table 1 (the network), table 2 (the operations) and figure 3 (their block).  As in
HW-NAS-Bench (Li et al., arXiv:2103.10584), every layer may be skipped, which makes 9^22 networks: where the shape
changes, `skip` is a 1x1 convolution with the stride, a norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from search_spaces.elastic import Linear, OneOf
from search_spaces.network import Network
from search_spaces.parts import InvertedBottleneck, conv_norm
from search_spaces.preset import find_preset
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice, Option

_BLOCKS = {  # name to kernel size, expansion and groups, from the fewest MACs at 17 channels and more
    "k3_e1_g2": (3, 1, 2),
    "k5_e1_g2": (5, 1, 2),
    "k3_e1": (3, 1, 1),
    "k5_e1": (5, 1, 1),
    "k3_e3": (3, 3, 1),
    "k5_e3": (5, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e6": (5, 6, 1),
}
# Where channels grow by more than 18 without a stride, `skip` takes more than the grouped operations.
OPERATIONS = ("skip", *_BLOCKS)
PUBLISHED = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")  # by their index
LAYERS = (1, 4, 4, 4, 4, 4, 1)  # of each stage


@dataclass(frozen=True)
class Preset:
    """The sizes of a network; the first layer of each stage has the stride.

    Args:
        largest_image: the largest native image size the preset is meant for.
    """

    stem_width: int
    stem_stride: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    head_width: int
    largest_image: int


PRESETS = {
    "tiny": Preset(
        stem_width=8,
        stem_stride=1,
        widths=(8, 12, 16, 20, 24, 32, 48),
        strides=(1, 1, 2, 2, 1, 2, 1),  # HW-NAS-Bench's for CIFAR-100
        head_width=128,
        largest_image=32,
    ),
    "full": Preset(
        stem_width=16,
        stem_stride=2,
        widths=(16, 24, 32, 64, 112, 184, 352),
        strides=(1, 2, 2, 2, 1, 2, 1),
        head_width=1984,
        largest_image=4096,
    ),
}


class FBNetwork(Network):
    """The elastic network for images (b, in_channels, h, w); layer i of 22 is the choice `layer{i}`."""

    def __init__(self, preset: Preset, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width, i = preset.stem_width, 0
        self.stem = conv_norm(in_channels, width, 3, preset.stem_stride, act="relu")
        for layers, outputs, first in zip(LAYERS, preset.widths, preset.strides, strict=True):
            for stride in (first, *[1] * (layers - 1)):
                i += 1
                self.add_module(f"layer{i}", _layer(Choice(f"layer{i}", OPERATIONS), width, outputs, stride))
                width = outputs
        self.head = nn.Sequential(
            *conv_norm(width, preset.head_width, act="relu"), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.classifier = Linear(preset.head_width, num_classes)


def _layer(choice: Choice, inputs: int, outputs: int, stride: int) -> OneOf:
    same = stride == 1 and inputs == outputs
    layers: dict[Option, nn.Module] = {
        "skip": nn.Identity() if same else conv_norm(inputs, outputs, stride=stride, act="relu")
    }
    for name, (kernel, expansion, groups) in _BLOCKS.items():
        layers[name] = InvertedBottleneck(inputs, outputs, kernel, expansion, stride, groups)
    return OneOf(choice, layers)


def fbnet(image_size: int, in_channels: int, num_classes: int, preset: str | None = None) -> FBNetwork:
    """The elastic network of FBNet for images (b, in_channels, image_size, image_size).

    Args:
        preset: a name in `PRESETS`; by default the one for the image size.

    Raises:
        ValueError: an unknown preset, or none for the image size.
    """
    return FBNetwork(find_preset("fbnet", PRESETS, image_size, preset), in_channels, num_classes)


def fbnet_architecture(space: SearchSpace, operations: Sequence[int]) -> Architecture:
    """The architecture that HW-NAS-Bench (and HELP, arXiv:2106.08630) writes as 22 indices into `PUBLISHED`.

    Args:
        space: of a network of `fbnet`.

    Raises:
        ValueError: other than 22 indices from 0 to 8.
    """
    layers, last = sum(LAYERS), len(PUBLISHED) - 1
    if len(operations) != layers or not all(0 <= index <= last for index in operations):
        raise ValueError(f"a network of FBNet is {layers} indices from 0 to {last}, got {tuple(operations)}")
    return space.architecture({f"layer{i}": PUBLISHED[index] for i, index in enumerate(operations, start=1)})
