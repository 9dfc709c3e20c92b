"""The mbconv space: inverted residual blocks of elastic depth, width, kernel, expansion and resolution.

The MobileNetV3 / once-for-all / BigNAS family (arXiv:1905.02244, 1908.09791, 2003.11142): a stem,
stages of inverted residuals, and a head.  Per stage: depth, width, squeeze-and-excitation on or off, and
the activation; per block: kernel size and expansion; for all: stem width and input resolution.

Preset `lite` contains EfficientNet-Lite0 (EfficientNet, arXiv:1905.11946, table 1, without squeeze-and-excitation and
with ReLU6), whose published weights it may start from; nothing in it is wider, deeper or more expanded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces.elastic import Linear, OneOf, Resize, Sequence, SqueezeExcite
from search_spaces.network import Network
from search_spaces.parts import conv_norm
from search_spaces.preset import choice_or_option, find_preset, mobile_resolutions, tiny_resolutions
from search_spaces.value import Choice, Size

KERNELS = (3, 5, 7)
ACTIVATIONS = ("relu", "h-swish")


@dataclass(frozen=True)
class Stage:
    """The options of one stage; its first block has the stride."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[int, ...]
    stride: int


@dataclass(frozen=True)
class Preset:
    """The options of an mbconv space.

    Args:
        resolutions: from the native image size in pixels to the elastic resolutions.
        operators_per_stage: whether each stage has its own choice of squeeze-and-excitation and activation, or
            the network one of each: a short training serves fewer combinations better.
        largest_image: the largest native image size the preset is meant for.
        kernels: the kernel sizes of every block.
        se: whether blocks may have squeeze-and-excitation.
        activations: those of the stages.
        end_activation: that of stem and head.
    """

    resolutions: Callable[[int], tuple[int, ...]]
    stem_widths: tuple[int, ...]
    stem_stride: int
    stages: tuple[Stage, ...]
    head_width: int
    operators_per_stage: bool
    largest_image: int
    kernels: tuple[int, ...] = KERNELS
    se: tuple[bool, ...] = (False, True)
    activations: tuple[str, ...] = ACTIVATIONS
    end_activation: str = "relu"


PRESETS = {
    "tiny": Preset(
        resolutions=tiny_resolutions,
        stem_widths=(8, 16),
        stem_stride=1,
        stages=(
            Stage(widths=(8, 16, 24), depths=(1, 2, 3), expansions=(2, 3, 4), stride=2),
            Stage(widths=(16, 24, 40), depths=(1, 2, 3), expansions=(2, 3, 4), stride=2),
            Stage(widths=(24, 40, 64), depths=(1, 2, 3), expansions=(2, 3, 4), stride=2),
        ),
        head_width=128,
        operators_per_stage=False,
        largest_image=32,
    ),
    "mobile": Preset(
        resolutions=mobile_resolutions,
        stem_widths=(16,),
        stem_stride=2,
        stages=(
            Stage(widths=(16,), depths=(1,), expansions=(1,), stride=1),
            Stage(widths=(24,), depths=(2, 3, 4), expansions=(3, 4, 6), stride=2),
            Stage(widths=(32, 40), depths=(2, 3, 4), expansions=(3, 4, 6), stride=2),
            Stage(widths=(64, 80), depths=(2, 3, 4), expansions=(3, 4, 6), stride=2),
            Stage(widths=(96, 112), depths=(2, 3, 4), expansions=(3, 4, 6), stride=1),
            Stage(widths=(128, 160), depths=(2, 3, 4), expansions=(3, 4, 6), stride=2),
        ),
        head_width=1280,
        operators_per_stage=True,
        largest_image=4096,
    ),
    "lite": Preset(
        resolutions=mobile_resolutions,
        stem_widths=(32,),
        stem_stride=2,
        stages=(
            Stage(widths=(16,), depths=(1,), expansions=(1,), stride=1),
            Stage(widths=(24,), depths=(1, 2), expansions=(3, 4, 6), stride=2),
            Stage(widths=(32, 40), depths=(1, 2), expansions=(3, 4, 6), stride=2),
            Stage(widths=(64, 80), depths=(1, 2, 3), expansions=(3, 4, 6), stride=2),
            Stage(widths=(88, 112), depths=(1, 2, 3), expansions=(3, 4, 6), stride=1),
            Stage(widths=(152, 192), depths=(2, 3, 4), expansions=(3, 4, 6), stride=2),
            Stage(widths=(256, 320), depths=(1,), expansions=(3, 4, 6), stride=1),
        ),
        head_width=1280,
        operators_per_stage=False,
        largest_image=4096,
        kernels=(3, 5),
        se=(False,),
        activations=("relu6",),
        end_activation="relu6",
    ),
}
"""Of presets for equally large images, the first is the default."""


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise k x k, optional squeeze-and-excitation, 1x1 project; residual where shapes allow.

    MobileNetV2, arXiv:1801.04381, figure 4b.
    """

    def __init__(
        self,
        inputs: Size,
        outputs: Size,
        kernel: Size,
        hidden: Size,
        stride: int,
        se: Choice | bool,
        act: Choice | str,
    ) -> None:
        super().__init__()
        self.expand = nn.Identity() if hidden == inputs else conv_norm(inputs, hidden, act=act)
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, hidden, act=act)
        self.attend = _attention(se, hidden)
        self.project = conv_norm(hidden, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h / stride, w / stride)."""
        y: Tensor = self.project(self.attend(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


def _attention(se: Choice | bool, channels: Size) -> nn.Module:
    if isinstance(se, Choice):
        return OneOf(se, {False: nn.Identity(), True: SqueezeExcite(channels)})
    return SqueezeExcite(channels) if se else nn.Identity()


class MBConvNetwork(Network):
    """An elastic network of inverted residuals for images (b, in_channels, image_size, image_size)."""

    def __init__(self, preset: Preset, image_size: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width: Size = choice_or_option("stem.width", preset.stem_widths)
        self.resize = Resize(Choice("resolution", preset.resolutions(image_size)), native=image_size)
        self.stem = conv_norm(in_channels, width, 3, preset.stem_stride, act=preset.end_activation)
        for i, stage in enumerate(preset.stages, start=1):
            name = f"stage{i}"
            sequence, width = _stage(name, preset, stage, width)
            self.add_module(name, sequence)
        self.head = nn.Sequential(
            *conv_norm(width, preset.head_width, act=preset.end_activation), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.classifier = Linear(preset.head_width, num_classes)


def _stage(name: str, preset: Preset, stage: Stage, inputs: Size) -> tuple[Sequence, Size]:
    """One stage and the width that it hands on."""
    prefix = f"{name}." if preset.operators_per_stage else ""
    se, act = choice_or_option(f"{prefix}se", preset.se), choice_or_option(f"{prefix}act", preset.activations)
    width, depth = choice_or_option(f"{name}.width", stage.widths), choice_or_option(f"{name}.depth", stage.depths)
    blocks = []
    for i in range(max(stage.depths)):
        kernel = choice_or_option(f"{name}.block{i + 1}.kernel", preset.kernels)
        expansion = choice_or_option(f"{name}.block{i + 1}.expansion", stage.expansions)
        source, stride = (inputs, stage.stride) if i == 0 else (width, 1)
        hidden: Size = source if expansion == 1 else source * expansion
        blocks.append(InvertedResidual(source, width, kernel, hidden, stride, se, act))
    return Sequence(*blocks, depth=depth), width


def mbconv(image_size: int, in_channels: int, num_classes: int, preset: str | None = None) -> MBConvNetwork:
    """The elastic mbconv network for images (b, in_channels, image_size, image_size).

    Args:
        preset: a name in `PRESETS`; by default the one for the image size.

    Raises:
        ValueError: an unknown preset, or none for the image size.
    """
    return MBConvNetwork(find_preset("mbconv", PRESETS, image_size, preset), image_size, in_channels, num_classes)
