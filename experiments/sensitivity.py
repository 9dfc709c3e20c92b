"""Does each sensitivity measure order the layers of ResNet-20 as the accuracy that they lose does, and at what price?

python -m experiments.decode_images --out cifar10.npz
python -m experiments.sensitivity --images cifar10.npz [--data DIR] [--options w4a8 ...] [--probes N]

Measures see `--calibration` training images; the truth is the drop of accuracy on `--test` test images of files in
which one layer alone has the option.  Kendall's tau-b over layers, for each option and over all pairs of both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from experiments.resnet20 import resnet20
from experiments.resnet20_qat import drawn
from quant_search.sensitivity.catalog import MEASURES
from quant_search.sensitivity.subject import Subject, by_layer


def tau(damage: np.ndarray, truth: np.ndarray) -> str:
    """Kendall's tau-b of two arrays of one shape, to two places."""
    return f"{kendalltau(damage.ravel(), truth.ravel()).statistic:.2f}"


def main() -> None:
    """Prints a row for each measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--options", nargs="+", default=["w4a8", "w3a8", "w2a8"])
    parser.add_argument("--calibration", type=int, default=256, help="training images that measures see")
    parser.add_argument("--test", type=int, default=2_000, help="test images for the truth")
    parser.add_argument("--probes", type=int, default=16, help="of the Hessian's trace, at most")
    arguments = parser.parse_args()
    content = np.load(arguments.images)
    model = resnet20(arguments.data / "resnet20_cifar10.th")

    def subject(split: str, n: int) -> Subject:
        return Subject(model, by_layer(model), arguments.options, *drawn(content, split, n))

    seen, truth = subject("train", arguments.calibration), subject("test", arguments.test)
    lost = MEASURES["leave-one-out"].measure(truth).damage
    table = Table("measure", *arguments.options, "all", "s")
    for name, entry in MEASURES.items():
        found = entry.measure(seen, **({"probes": arguments.probes} if name == "hessian" else {}))
        columns = (tau(found.damage[:, i], lost[:, i]) for i in range(len(arguments.options)))
        table.add_row(name, *columns, tau(found.damage, lost), f"{found.seconds:.1f}")
    table.add_row("drop, in points", *(f"{100 * drop.mean():.1f} ({100 * drop.max():.1f})" for drop in lost.T), "", "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
