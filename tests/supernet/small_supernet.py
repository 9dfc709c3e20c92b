"""A supernet and data small enough to train in a second; run as a program, it trains into the folder given."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, Sequence
from search_spaces.network import Network
from search_spaces.value import Choice
from supernet.data import Dataset
from supernet.recipe import Recipe
from supernet.train import TrainState, train_supernet

RECIPE = Recipe(epochs=5, batch=16, lr=0.05, optimizer="sgd", shift=1, evaluations=2, erase=0.2, mixup=0.2)


class SmallNet(Network):
    """Elastic width and depth, and dropout, which draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        width = Choice("width", (4, 8))
        self.stem = nn.Sequential(Conv2d(1, width, 3), BatchNorm2d(width), nn.ReLU())
        blocks = [nn.Sequential(Conv2d(width, width, 3), BatchNorm2d(width), nn.ReLU()) for _ in range(2)]
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2)))
        self.drop = nn.Dropout(0.2)
        self.classifier = Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.drop(self.body(self.stem(x)).mean((2, 3))))


def small_net(seed: int = 0) -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallNet()


def small_dataset(seed: int = 0, n: int = 80) -> Dataset:
    """Three kinds of stripes under noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.5, (n, 1, 6, 6)).astype(np.float32)
    x[y == 0, :, ::2] += 1
    x[y == 1, :, :, ::2] += 1
    cuts = [slice(0, n // 2), slice(n // 2, 3 * n // 4), slice(3 * n // 4, n)]
    (a, b), (c, d), (e, f) = [(x[cut], y[cut]) for cut in cuts]
    return Dataset("stripes", a, b, c, d, e, f, 3, (0.0,), (1.0,), True)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _say(state: TrainState) -> None:
    sys.stdout.write(f"{state.step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    train_supernet(small_net(), small_dataset(), RECIPE, Path(sys.argv[1]), _say, checkpoint_every_s=0.0)
