"""Parts that several ready-made networks are made of."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, activation
from search_spaces.value import Choice, Size


def conv_norm(
    inputs: Size,
    outputs: Size,
    kernel: Size = 1,
    stride: int = 1,
    groups: Size = 1,
    act: Choice | str | None = None,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, where `act` is given, the activation."""
    layers: list[nn.Module] = [Conv2d(inputs, outputs, kernel, stride, groups, bias=False), BatchNorm2d(outputs)]
    if act is not None:
        layers.append(activation(act))
    return nn.Sequential(*layers)


class InvertedBottleneck(nn.Module):
    """1x1 expand, depthwise k x k, 1x1 project, each with a norm; ReLU but after the last; residual where shapes allow.

    The block of MobileNetV2 (arXiv:1801.04381, figure 4b), with plain ReLU and an expansion also of 1.

    Args:
        groups: of both 1x1 convolutions; where there are several, their channels are shuffled after the first one
            (ShuffleNet, arXiv:1707.01083, section 3.1).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, expansion: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = conv_norm(inputs, hidden, groups=groups, act="relu")
        self.shuffle = nn.ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, hidden, act="relu")
        self.project = conv_norm(hidden, outputs, groups=groups)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) → (b, outputs, h / stride, w / stride)."""
        y: Tensor = self.project(self.depthwise(self.shuffle(self.expand(x))))
        return x + y if self.residual else y
