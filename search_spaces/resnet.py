"""The resnet space: bottleneck blocks of elastic depth, width, expansion and resolution, behind an elastic stem.

Once-for-all (Cai et al., arXiv:1908.09791) as released for ResNet-50: the blocks of ResNet-50D (He et al.,
arXiv:1812.01187, figure 2).  Per stage: depth and width; per block: expansion; for the stem: both widths, and whether
it has its second block, which is residual; for all: input resolution.  The widths are 0.65, 0.8 and 1 times the
largest.  ResNet-50D itself is in the space, but for the residual sum in the stem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces.elastic import Linear, OneOf, Resize, Sequence
from search_spaces.network import Network
from search_spaces.parts import conv_norm
from search_spaces.preset import find_preset, mobile_resolutions, tiny_resolutions
from search_spaces.value import Choice, Size, round_to

WIDTH_FACTORS = (0.65, 0.8, 1.0)
MORE_BLOCKS = (0, 1, 2)  # than the least, in every stage


@dataclass(frozen=True)
class Preset:
    """The options of a resnet space.

    Args:
        resolutions: from the native image size in pixels to the elastic resolutions.
        pooled: whether the stem has a stride of 2 and a pool with another.
        stages: the largest width and least depth of each; all but the first have stride 2.
        expansions: the widths of a block's inner layers, as parts of the stage's width.
        largest_image: the largest native image size the preset is meant for.
    """

    resolutions: Callable[[int], tuple[int, ...]]
    stem_width: int
    pooled: bool
    stages: tuple[tuple[int, int], ...]
    expansions: tuple[float, ...]
    largest_image: int


PRESETS = {
    "tiny": Preset(
        resolutions=tiny_resolutions,
        stem_width=16,
        pooled=False,
        stages=((32, 1), (64, 1), (128, 1)),
        expansions=(0.25, 0.5, 1.0),  # smaller ones would round to equal widths
        largest_image=32,
    ),
    "imagenet": Preset(
        resolutions=mobile_resolutions,
        stem_width=64,
        pooled=True,
        stages=((256, 2), (512, 2), (1024, 4), (2048, 2)),
        expansions=(0.2, 0.25, 0.35),
        largest_image=4096,
    ),
}


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3 with the stride, 1x1 restore; beside them the input, pooled and through a 1x1 where it must fit.

    ResNet-D, arXiv:1812.01187, figure 2b and 2c.
    """

    def __init__(self, inputs: Size, outputs: Size, hidden: Size, stride: int) -> None:
        super().__init__()
        self.reduce = conv_norm(inputs, hidden, act="relu")
        self.conv = conv_norm(hidden, hidden, 3, stride, act="relu")
        self.restore = conv_norm(hidden, outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else _shortcut(inputs, outputs, stride)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h / stride, w / stride)."""
        y: Tensor = self.act(self.shortcut(x) + self.restore(self.conv(self.reduce(x))))
        return y


class Residual(nn.Module):
    """A 3x3 convolution, norm and ReLU, added to their input."""

    def __init__(self, width: Size) -> None:
        super().__init__()
        self.conv = conv_norm(width, width, 3, act="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, h, w) → the same shape."""
        y: Tensor = x + self.conv(x)
        return y


class ResNetwork(Network):
    """An elastic residual network for images (b, in_channels, image_size, image_size)."""

    def __init__(self, preset: Preset, image_size: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.resize = Resize(Choice("resolution", preset.resolutions(image_size)), native=image_size)
        widths = _widths(preset.stem_width)
        width = Choice("stem.width", widths)
        inner = Choice("stem.inner", tuple(dict.fromkeys(round_to(w // 2, 8) for w in widths)))
        self.stem = nn.Sequential(
            conv_norm(in_channels, inner, 3, 2 if preset.pooled else 1, act="relu"),
            OneOf(Choice("stem.second", (False, True)), {False: nn.Identity(), True: Residual(inner)}),
            conv_norm(inner, width, 3, act="relu"),
            nn.MaxPool2d(3, 2, 1) if preset.pooled else nn.Identity(),
        )
        for i, (largest, least) in enumerate(preset.stages, start=1):
            stage, width = _stage(f"stage{i}", width, largest, least, preset.expansions, 1 if i == 1 else 2)
            self.add_module(f"stage{i}", stage)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(width, num_classes)


def _widths(largest: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(round_to(largest * factor, 8) for factor in WIDTH_FACTORS))


def _stage(
    name: str, inputs: Choice, largest: int, least: int, expansions: tuple[float, ...], stride: int
) -> tuple[Sequence, Choice]:
    """One stage and the width that it hands on."""
    depth = Choice(f"{name}.depth", tuple(least + more for more in MORE_BLOCKS))
    width = Choice(f"{name}.width", _widths(largest))
    blocks = []
    for i in range(least + MORE_BLOCKS[-1]):
        hidden = (width * Choice(f"{name}.block{i + 1}.expansion", expansions)).rounded(8)
        blocks.append(Bottleneck(inputs, width, hidden, stride) if i == 0 else Bottleneck(width, width, hidden, 1))
    return Sequence(*blocks, depth=depth), width


def _shortcut(inputs: Size, outputs: Size, stride: int) -> nn.Sequential:
    """A 1x1 convolution and norm, behind a pool that has the stride: no input is left out."""
    pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if stride > 1 else []
    return nn.Sequential(*pool, *conv_norm(inputs, outputs))


def resnet(image_size: int, in_channels: int, num_classes: int, preset: str | None = None) -> ResNetwork:
    """The elastic residual network for images (b, in_channels, image_size, image_size).

    Args:
        preset: a name in `PRESETS`; by default the one for the image size.

    Raises:
        ValueError: an unknown preset, or none for the image size.
    """
    return ResNetwork(find_preset("resnet", PRESETS, image_size, preset), image_size, in_channels, num_classes)
