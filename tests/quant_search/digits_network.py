"""A small network that is trained on scikit-learn's digits, for tests in which accuracy means something."""

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from latency.lowering import to_onnx

TRAIN, SHAPE = 1000, (1, 8, 8)


class Small(nn.Module):
    """Convolutions with and without ReLU, one of them depthwise, a residual addition and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.spatial = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(12, 12, 1, bias=False), nn.BatchNorm2d(12))
        self.down = nn.Sequential(nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(24, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.spatial(x))
        return self.classifier(self.pool(self.down(x)).flatten(1))


@functools.cache
def digits():
    """Images (n, 1, 8, 8) float32 and labels (n,); the first TRAIN are trained on."""
    found = load_digits()
    return found.images[:, None].astype(np.float32) / 16, found.target.astype(np.int64)


@functools.cache
def trained(steps=150):
    """The network in fp32 as ONNX."""
    x, y = (torch.from_numpy(part[:TRAIN]) for part in digits())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Small()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randint(TRAIN, (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[some]), y[some]).backward()
        optimizer.step()
    return to_onnx(network, SHAPE)
