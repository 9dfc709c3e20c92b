"""What does training a chosen network on bring to its int8 and w4a8 files, against the inherited weights?

python -m experiments.finetuned_front [--data ../shared/data] [--images cifar10 digits] [--steps 100 300]

A supernet of mbconv tiny is trained (or read from `--out`, where it was trained before), and some architectures of it,
evenly scaled from the smallest to the largest, are fine-tuned as `nas search --finetune` does it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import nas
from experiments.decode_images import read_cifar10
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.candidate import Builder
from nas.finetune import Tuning
from quant_search.policy import joint_space, uniform
from search_spaces.network import find_blocks
from supernet.data import Dataset, load_data

_SIZE = 16  # pixels of CIFAR-10: four times as many steps in a minute as 32


def read(name: str, data: Path) -> Dataset:
    """The images of a name."""
    return load_data("digits") if name == "digits" else read_cifar10(data, _SIZE)


def study(dataset: Dataset, arguments: argparse.Namespace) -> list[list[str]]:
    """Rows of the table: precision, steps, mean accuracies before and after, seconds of a training."""
    out = arguments.out / dataset.name
    trained = nas.train(
        "mbconv", data=dataset, preset="tiny", budget_s=arguments.budget, autocast=False, out=out, quiet=True
    )
    joint = joint_space(trained.space, find_blocks(trained.network), ("fp32", *arguments.precisions))
    tracer, device = BlockTracer(trained.network, dataset.image_shape), parse_device("cpu")
    builder = Builder(trained.network, tracer, dataset, ("fp32", *arguments.precisions))
    shares = np.linspace(0, 1, arguments.networks + 1)[:-1]
    archs = [trained.space.scaled(float(share)).assignment for share in shares]
    rows = []
    for precision in arguments.precisions:
        for steps in arguments.steps:
            tuning, found, started_s = Tuning(builder, dataset, device, steps, 0, joint.largest()), [], time.monotonic()
            for arch in archs:
                row = uniform(joint.architecture({**joint.smallest().assignment, **arch}), precision)
                after = tuning.train(row, lambda *_: None)
                files = (builder.build(row).model, after.file)
                tests = [accuracy(open_session(file, device), dataset.x_test, dataset.y_test) for file in files]
                found.append((after.tuned.inherited, after.tuned.finetuned or 0.0, *tests))
                print(dataset.name, precision, steps, *(f"{100 * share:.2f}" for share in found[-1]), flush=True)
            means = 100 * np.mean(found, axis=0)
            gain = 100 * np.array([b - a for *_, a, b in found])
            seconds = (time.monotonic() - started_s) / len(archs)
            rows.append(
                [
                    *(dataset.name, precision, str(steps)),
                    *(f"{mean:.2f}" for mean in means),
                    f"{gain.mean():+.2f} ({gain.min():+.2f} to {gain.max():+.2f})",
                    f"{seconds:.0f}",
                ]
            )
    return rows


def main() -> None:
    """Prints a row for each precision and number of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/finetuned_front"), help="of supernets")
    parser.add_argument("--images", nargs="+", default=["digits", "cifar10"], choices=["digits", "cifar10"])
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of a supernet's training")
    parser.add_argument("--precisions", nargs="+", default=["int8", "w4a8"])
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 300])
    parser.add_argument("--networks", type=int, default=3)
    arguments = parser.parse_args()
    columns = ("images", "precision", "steps", "validation", "after", "test", "after", "gain (test)", "s")
    table = Table(*columns)
    for name in arguments.images:
        for row in study(read(name, arguments.data), arguments):
            table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
