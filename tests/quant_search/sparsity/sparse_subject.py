"""A small network that reads digits, trained once a process, with images that it was and was not trained on."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.sparsity.criterion import Examples

CPU = parse_device("cpu")
TRAINED = 1200


@functools.cache
def digits():
    """Images (n, 1, 8, 8) and classes (n,)."""
    data = load_digits()
    return (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)


def train_examples(batch=64):
    images, labels = digits()
    return Examples(images[:TRAINED], labels[:TRAINED], batch)


@functools.cache
def digits_model():
    """Its groups of channels are those of /0/Conv (16), /2/Conv (32) and /6/Conv (32)."""
    images, labels = map(torch.from_numpy, digits())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1, groups=32), nn.ReLU(),
            nn.Conv2d(32, 32, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        for _ in range(200):
            batch = torch.randint(0, TRAINED, (64,))
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return to_onnx(network, (1, 8, 8))


def run(model, images):
    return open_session(model.SerializeToString(), CPU).run(images)


def accuracy(model):
    images, labels = digits()
    return float((run(model, images[TRAINED:]).argmax(1) == labels[TRAINED:]).mean())
