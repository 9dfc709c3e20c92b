"""The nas_bench_macro space: 8 layers, each of which is nothing or one of two inverted residuals.

NAS-Bench-Macro (Su et al., arXiv:2103.11922, section 4): all 3^8 = 6,561 networks were trained three times on CIFAR-10.
Three stages, the first layer of each with stride 2 and twice the channels.  What "identity" is where the shape changes
the paper does not say; the published parameters and MACs are those of a 1x1 convolution with the stride and a norm.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from search_spaces.elastic import Linear, OneOf
from search_spaces.network import Network
from search_spaces.parts import InvertedBottleneck, conv_norm
from search_spaces.preset import find_preset
from search_spaces.space import Architecture, SearchSpace
from search_spaces.value import Choice, Option

OPERATIONS = ("identity", "mb3_k3", "mb6_k5")  # from the cheapest, and as the published digits 0, 1, 2
LAYERS = (2, 3, 3)  # of each stage
_EXPANSIONS_AND_KERNELS = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}


@dataclass(frozen=True)
class Preset:
    """The sizes of a network; each stage doubles the channels.

    Args:
        largest_image: the largest native image size the preset is meant for.
    """

    stem_width: int
    head_width: int
    largest_image: int


PRESETS = {
    "tiny": Preset(stem_width=8, head_width=128, largest_image=16),
    "full": Preset(stem_width=32, head_width=1280, largest_image=4096),
}


class MacroNetwork(Network):
    """The elastic network for images (b, in_channels, h, w); layer i of 8 is the choice `layer{i}`."""

    def __init__(self, preset: Preset, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = preset.stem_width
        self.stem = conv_norm(in_channels, width, 3, act="relu")
        strides = [2 if i == 0 else 1 for layers in LAYERS for i in range(layers)]
        for i, stride in enumerate(strides, start=1):
            self.add_module(f"layer{i}", _layer(Choice(f"layer{i}", OPERATIONS), width, width * stride, stride))
            width *= stride
        self.head = nn.Sequential(
            *conv_norm(width, preset.head_width, act="relu"), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.classifier = Linear(preset.head_width, num_classes)


def _layer(choice: Choice, inputs: int, outputs: int, stride: int) -> OneOf:
    identity = nn.Identity() if stride == 1 else conv_norm(inputs, outputs, stride=stride)
    layers: dict[Option, nn.Module] = {"identity": identity}
    for name, (expansion, kernel) in _EXPANSIONS_AND_KERNELS.items():
        layers[name] = InvertedBottleneck(inputs, outputs, kernel, expansion, stride)
    return OneOf(choice, layers)


def nas_bench_macro(image_size: int, in_channels: int, num_classes: int, preset: str | None = None) -> MacroNetwork:
    """The elastic network of NAS-Bench-Macro for images (b, in_channels, image_size, image_size).

    Args:
        preset: a name in `PRESETS`; by default the one for the image size.

    Raises:
        ValueError: an unknown preset, or none for the image size.
    """
    return MacroNetwork(find_preset("nas_bench_macro", PRESETS, image_size, preset), in_channels, num_classes)


def macro_architecture(space: SearchSpace, digits: str) -> Architecture:
    """The architecture that the benchmark's table writes as 8 digits: 0 identity, 1 `mb3_k3`, 2 `mb6_k5`.

    Args:
        space: of a network of `nas_bench_macro`.

    Raises:
        ValueError: other than 8 digits from 0 to 2.
    """
    if len(digits) != sum(LAYERS) or not set(digits) <= set("012"):
        raise ValueError(f"a network of NAS-Bench-Macro is {sum(LAYERS)} digits from 0 to 2, got {digits!r}")
    return space.architecture({f"layer{i}": OPERATIONS[int(digit)] for i, digit in enumerate(digits, start=1)})
