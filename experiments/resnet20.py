"""ResNet-20 for CIFAR-10 with the weights of `resnet20_cifar10.th`, which the studies of quantization share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency.lowering import to_onnx

MEAN, STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # that the weights were trained with


class Block(nn.Module):
    """Two convolutions; a shortcut to more channels skips every other pixel and adds channels of zeros."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        self.stride, self.added = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added // 2))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """He et al. (arXiv:1512.03385), section 4.2, n = 3, with shortcuts of option A."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, 10) of images (b, 3, 32, 32)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def resnet20(file: Path) -> onnx.ModelProto:
    """The network with the weights of `file`, as ONNX."""
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return to_onnx(network, (3, 32, 32))


def normalised(images: np.ndarray) -> np.ndarray:
    """Images (n, 32, 32, 3) uint8 as (n, 3, 32, 32) float32 in the weights' units."""
    x = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
