"""What does quantization-aware training give back on ResNet-20, against rounding to nearest, at the same bits?

python -m experiments.decode_images --out cifar10.npz
python -m experiments.resnet20_qat --images cifar10.npz [--data DIR] [--options w4a8 w2a8 ...] [--steps N] [--lr RATE]

The network and weights are those of pytorch_resnet_cifar10 (91.8 % on CIFAR-10), on the benchmark's JPEGs.  First and
last layer are in int8, as in LSQ (arXiv:1902.08153, section 2.3), unless `--ends` is given.  Training sees the JPEGs,
which the weights have not seen: `fp32` is trained as well, with the same steps, and says what that alone gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.resnet20 import normalised, resnet20
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from quant_search.qat import Recipe, train
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from supernet.augment import shift_and_flip

CALIBRATION = 512


def drawn(content: Mapping[str, np.ndarray], split: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """So many images of a split and their labels, drawn by the seed: in the file they are sorted by class."""
    some = np.random.default_rng(seed).permutation(len(content[f"y_{split}"]))[:n]
    return normalised(content[f"x_{split}"][some]), content[f"y_{split}"][some]


def policy(groups: Mapping[str, Sequence[str]], option: str, ends: bool) -> dict[str, str]:
    """The option for every group; the first and the last in int8 unless `ends`."""
    names = list(groups)
    kept = () if ends or option == "fp32" else (names[0], names[-1])
    return {name: "int8" if name in kept else option for name in names}


def main() -> None:
    """Prints a row for each option: rounded to nearest, and trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--options", nargs="+", default=["fp32", "int8", "w4a8", "w3a8", "w2a8"])
    parser.add_argument("--ends", action="store_true", help="first and last layer at the option's bits, too")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--distill", type=float, default=0.5)
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--test", type=int, default=2_000, help="test images")
    arguments = parser.parse_args()
    content, device = np.load(arguments.images), parse_device("cpu")
    (x, y), (x_test, y_test) = drawn(content, "train", arguments.train), drawn(content, "test", arguments.test)
    model = resnet20(arguments.data / "resnet20_cifar10.th")
    groups = by_layer(model)
    recipe = Recipe(arguments.steps, arguments.batch, arguments.lr, distill=arguments.distill)

    def top1(file: onnx.ModelProto) -> float:
        return 100 * accuracy(open_session(file.SerializeToString(), device), x_test, y_test)

    table = Table("option", "to nearest", "trained: believed", "trained: the file", "outputs that differ", "s")
    for option in arguments.options:
        chosen = policy(groups, option, arguments.ends)
        ranges = activation_ranges(model, x[:CALIBRATION], nodes=nodes_in_int8(groups, chosen))
        before = top1(in_precisions(model, groups, chosen, ranges))
        start = time.perf_counter()
        found = train(model, groups, chosen, x, y, recipe, ranges=ranges, augment=_augment)
        took = time.perf_counter() - start
        with torch.no_grad():
            parts = [found.twin(torch.from_numpy(x_test[i : i + 200])).numpy() for i in range(0, len(x_test), 200)]
        file, logits = found.file(), np.concatenate(parts)
        off = np.abs(open_session(file.SerializeToString(), device).run(x_test) - logits)
        differ = np.mean(off > 1e-4 * np.ptp(logits))  # more than sums in another order do
        believed = 100 * np.mean(logits.argmax(axis=1) == y_test)
        print(option, f"{before:.2f} {believed:.2f}", flush=True)
        table.add_row(option, f"{before:.2f}", f"{believed:.2f}", f"{top1(file):.2f}", f"{differ:.2%}", f"{took:.0f}")
    Console(width=120).print(table)


def _augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    return shift_and_flip(x, 4, True, rng)


if __name__ == "__main__":
    main()
