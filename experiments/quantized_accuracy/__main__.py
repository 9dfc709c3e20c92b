"""How many quantized files does a predictor need that knows accuracies in full precision, and is a joint search better?

python -m experiments.quantized_accuracy --out FOLDER [--images digits|cifar10] [--data DIR] [--part curves|product]
    [--steps N] [--inherited N] [--files N] [--splits 5] [--budget N] [--seeds N] [--costs size bits] [--networks 1 6]

Trains a tiny `mbconv` supernet, takes accuracies of random subnets in fp32 with its weights, and makes real ONNX files
of random subnets under random policies (fp32, int8, w4a8, w3a8, w2a8 for each block), whose accuracy is ONNX Runtime's.
All of it is kept in `--out`.  `curves`: Kendall's tau-b and mean absolute error on files that were not seen, with 95 %
intervals over splits.  `product`: hypervolume of searching both at once against one after the other, in a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from experiments.lines import open_lines, read_lines
from experiments.quantized_accuracy.collect import Effort, Points, collect
from experiments.quantized_accuracy.curves import METHODS, SIZES, Found, compared, interval
from experiments.quantized_accuracy.product import truth_of, volumes

PARTS = ("curves", "product")


def shown(found: Sequence[Found]) -> Table:
    """One row per method, tau-b and error in points after each number of files."""
    table = Table("method", *(f"{size} files" for size in SIZES), title="tau-b; mean absolute error in points")
    for name in METHODS:
        cells = []
        for size in SIZES:
            own = [f for f in found if f.method == name and f.size == size]
            (tau, tau_half), (error, error_half) = (
                interval([getattr(f, field) for f in own]) for field in ("kendall", "error")
            )
            cells.append(f"{tau:.2f} ± {tau_half:.2f}; {100 * error:.1f} ± {100 * error_half:.1f}")
        table.add_row(name, *cells)
    return table


def product(points: Points, given: argparse.Namespace, console: Console) -> None:
    """Searches, each seed once, and prints what each way reaches, and by how much searching at once is better."""
    file = given.out / f"product-{given.budget}.jsonl"
    known = {(row["cost"], row["seed"]): row["volumes"] for row in read_lines(file)}
    for cost in given.costs:
        truth = truth_of(points, cost)
        with open_lines(file) as lines:
            for seed in range(given.seeds):
                if (cost, seed) not in known:
                    found = known[cost, seed] = volumes(truth, given.budget, seed, given.networks)
                    lines.write(json.dumps({"cost": cost, "seed": seed, "volumes": found}) + "\n")
        console.print(ahead(cost, [known[cost, seed] for seed in range(given.seeds)]))


def ahead(cost: str, found: Sequence[Mapping[str, float]]) -> str:
    """By how much the first way is ahead of each other one, over seeds."""
    first, *others = found[0]
    parts = []
    for name in others:
        gaps = [f[first] - f[name] for f in found]
        (mean, half), wins = interval(gaps), sum(gap > 0 for gap in gaps)
        reached = ", ".join(f"{way} {np.mean([f[way] for f in found]):.3f}" for way in (first, name))
        parts.append(f"{reached}; ahead by {mean:.3f} ± {half:.3f}, in {wins} of {len(gaps)} seeds")
    return f"{cost}: " + " | ".join(parts)


def main() -> None:
    """Collects and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", default="digits", help="digits, cifar10 or another data set")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--inherited", type=int, default=200)
    parser.add_argument("--files", type=int, default=150)
    parser.add_argument("--randoms", type=int, default=1, help="random subnets in each step of the training")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--budget", type=int, default=144, help="look-ups of each search")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--costs", nargs="+", default=["size", "bits"], choices=("size", "bits"))
    parser.add_argument(
        "--networks", type=int, nargs="+", default=[1, 6], help="whose policies are searched afterwards"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=180)
    effort = Effort(given.images, given.steps, given.inherited, given.files, given.randoms)
    points = collect(effort, given.data, given.out)
    for name, accuracy in (("inherited", points.inherited[1]), ("files", points.files[1])):
        quantiles = ", ".join(f"{100 * q:.1f}" for q in np.quantile(accuracy, [0, 0.25, 0.5, 0.75, 1]))
        console.print(f"{len(accuracy)} {name}: accuracies (quartiles) {quantiles} %")
    if given.part in (None, "curves"):
        console.print(shown(list(compared(points, SIZES, given.splits))))
    if given.part in (None, "product"):
        product(points, given, console)


if __name__ == "__main__":
    main()
