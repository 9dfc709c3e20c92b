"""A small network with everything that post-training quantization meets, trained on scikit-learn's digits."""

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session

CPU = parse_device("cpu")
SHAPE = (1, 8, 8)


class Digits(nn.Module):
    """An inverted residual block between a stem and a head: dense, pointwise, depthwise and strided convolutions."""

    def __init__(self, cut=nn.ReLU):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), cut())
        self.block = nn.Sequential(
            nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), cut(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), cut(),
            nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(16), cut())
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.down(x + self.block(x))
        return self.last(nn.functional.avg_pool2d(x, 2).flatten(1))


@functools.cache
def digits():
    """Images (n, 1, 8, 8) in 0..1 and labels (n,)."""
    data = load_digits()
    return data.images[:, None].astype(np.float32) / 16, data.target


@functools.cache
def trained(cut=nn.ReLU):
    """The ONNX model of the network after a few steps on the first thousand images."""
    x, y = digits()
    torch.manual_seed(0)
    net = Digits(cut)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(80):
        some = slice(step % 10 * 100, step % 10 * 100 + 100)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x[some])), torch.from_numpy(y[some])).backward()
        optimizer.step()
    return to_onnx(net, SHAPE)


def every(model):
    return [node.name for node in model.graph.node]


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def accuracy_of(model, x, y):
    return float((run(model, x).argmax(1) == y).mean())
