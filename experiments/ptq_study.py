"""What post-training quantization is worth: EfficientNet-Lite0 on photos, ResNet-20 on CIFAR-10, step by step.

python -m experiments.ptq_study --weights efficientnet-lite0-57934424.pth [--data DIR] [--network lite0] [--steps 500]

Calibrated on some images (200 photos, 500 of CIFAR-10), shown on others; every number is that of a QDQ file in ONNX
Runtime.  `off` is the root mean square of the change of logits over that of the logits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization.calibrate import TensorsData

from experiments.decode_images import decode
from experiments.pretrained import EPS, SIDE, photos
from experiments.resnet20 import normalised, resnet20
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.bias_correction import correct_biases
from quant_search.ptq.equalize import absorb_biases, equalize, without_clips
from quant_search.ptq.intake import prepared
from quant_search.ptq.learned_rounding import Setting
from quant_search.ptq.reconstruct import METHODS, reconstruct
from quant_search.weight_codes import WeightCodes, rounded
from search_spaces.mbconv import mbconv
from search_spaces.network import extract
from supernet.pretrained import load_pretrained_
from supernet.published import read_weights

CLIP_IMAGES = 32  # every Clip between two layers costs a pass over them
CPU = parse_device("cpu")


@dataclass
class Study:
    """A network with images to calibrate on and others, and what was found so far."""

    model: onnx.ModelProto
    images: np.ndarray
    x: np.ndarray
    y: np.ndarray
    steps: int
    logits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.logits = _run(self.model, self.x)
        self.say("fp32", self.model, 0.0)

    @property
    def nodes(self) -> list[str]:
        """All of them."""
        return [node.name for node in self.model.graph.node]

    def say(self, what: str, model: onnx.ModelProto, seconds: float) -> None:
        """A line about a file."""
        logits = _run(model, self.x)
        off = np.sqrt(np.square(logits - self.logits).mean() / np.square(self.logits).mean())
        size = len(model.SerializeToString()) / 1e6
        top = (logits.argmax(1) == self.y).mean()
        print(f"{what:34} top-1 {top:6.1%}  off {off:6.3f}  {size:6.2f} MB  {seconds:5.0f} s", flush=True)

    def quantized(
        self,
        what: str,
        model: onnx.ModelProto,
        ranges: TensorsData,
        codes: Mapping[str, WeightCodes] | None,
        start: float,
    ) -> None:
        """A line about the file of a model."""
        self.say(what, quantize(model, self.nodes, ranges, codes), time.monotonic() - start)

    def uniform(self, bits: int, model: onnx.ModelProto) -> dict[str, int]:
        """So many bits for all layers but the first and the last, which keep eight as in the papers."""
        weighted = list(rounded(model, dict.fromkeys(self.nodes, 8)))
        return dict.fromkeys(self.nodes, bits) | {weighted[0]: 8, weighted[-1]: 8}

    def run(self, widths: tuple[int, ...], methods: Sequence[str]) -> None:
        """Every step at every width."""
        ranges = activation_ranges(self.model, self.images)
        start = time.monotonic()
        free, gone = without_clips(self.model, self.images[:CLIP_IMAGES])
        even = absorb_biases(equalize(free), self.images[:CLIP_IMAGES])
        self.say(f"fp32 equalized, {len(gone)} clips gone", even, time.monotonic() - start)
        forms = {"": (self.model, ranges), " equalized": (even, activation_ranges(even, self.images))}
        for bits in widths:
            for form, (model, ends) in forms.items():
                uniform, start = self.uniform(bits, model), time.monotonic()
                self.quantized(f"w{bits}{form}, one scale", model, ends, rounded(model, uniform, "max", False), start)
                for kind in ("mse", "max"):
                    codes = rounded(model, uniform, kind)
                    self.quantized(f"w{bits}{form}, {kind}", model, ends, codes, start)
                    corrected = correct_biases(model, self.nodes, ends, self.images, codes)
                    self.quantized(f"w{bits}{form}, {kind}, corrected", corrected, ends, codes, start)
            for method in methods:
                self.learn(bits, method, ranges)

    def learn(self, bits: int, method: str, ranges: TensorsData) -> None:
        """Learned rounding, without and with bias correction after it."""
        start, uniform = time.monotonic(), self.uniform(bits, self.model)
        setting = Setting(steps=self.steps)
        found = reconstruct(self.model, self.nodes, ranges, self.images, uniform, method, setting)
        self.quantized(f"w{bits}, {method}", found.model, ranges, found.codes, start)
        corrected = correct_biases(found.model, self.nodes, ranges, self.images, found.codes, target=self.model)
        self.quantized(f"w{bits}, {method}, corrected", corrected, ranges, found.codes, start)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString(), CPU)
    return np.concatenate([session.run(part) for part in np.array_split(x, max(1, len(x) // 10))])


def lite0(data: Path, weights: Path) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """EfficientNet-Lite0 turned by 180 degrees, as `experiments.pretrained` has it, and 500 photos with labels."""
    x, y = photos(data / "imagenet_1per_class_256.npz")
    tensors = {name: t.flip(2, 3) if t.dim() == 4 else t for name, t in read_weights(weights).tensors.items()}
    torch.manual_seed(0)
    network = mbconv(SIDE, 3, len(y), "lite").eval()
    plain = extract(network, load_pretrained_(network, tensors, eps=EPS).arch)
    return to_onnx(plain, (3, SIDE, SIDE)), np.ascontiguousarray(x[::2, :, ::-1, ::-1]), y[::2]


def cifar10(data: Path, _weights: Path) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """ResNet-20 and 2,500 test images with labels, drawn anew: in the file they stand class by class."""
    images, labels = decode(data / "cifar10_jpg_test.npz")
    some = np.random.default_rng(0).permutation(len(images))[:2500]
    return resnet20(data / "resnet20_cifar10.th"), normalised(images[some]), labels[some]


NETWORKS: dict[str, tuple[Callable[..., tuple[onnx.ModelProto, np.ndarray, np.ndarray]], int, tuple[int, ...]]] = {
    "lite0": (lite0, 200, (8, 4)),
    "resnet20": (cifar10, 500, (8, 4, 3, 2)),
}
"""What reads it, how many images it is calibrated on, and widths of weights."""


def main() -> None:
    """Prints a line per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, help="of EfficientNet-Lite0")
    parser.add_argument("--network", choices=[*NETWORKS], default="lite0")
    parser.add_argument("--steps", type=int, default=500, help="to learn a layer's rounding in")
    parser.add_argument("--bits", type=int, nargs="+", help="widths of weights")
    parser.add_argument("--methods", nargs="*", choices=[*METHODS], default=[*METHODS], help="to learn rounding")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    read, count, widths = NETWORKS[arguments.network]
    model, x, y = read(arguments.data, arguments.weights)
    calibration = np.arange(len(x)) < count if arguments.network != "lite0" else np.arange(len(x)) % 5 < 2
    study = Study(prepared(model), x[calibration], x[~calibration], y[~calibration], arguments.steps)
    study.run(tuple(arguments.bits or widths), arguments.methods)


if __name__ == "__main__":
    main()
