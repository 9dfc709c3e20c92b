"""Is it worth training shared weights in all precisions at once, by what the files of subnets are worth?

python -m experiments.quantized_for_all --out DIR [--images digits|cifar10] [--steps N] [--seed N]

Trains mbconv tiny in fp32, for `fp32,int8,w4a8`, for `fp32,int8,w4a8,w2a8`, and in fp32 for as long as the last took
(in seconds of the processor), all from the same weights.  The same random subnets of each are built as files, in each
precision and in a random one for each block, and compared in pairs.  Repeat the command to go on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from experiments.lines import open_lines, read_lines
from experiments.quantized_for_all.arms import Arm, read_images, trained
from experiments.quantized_for_all.files import accuracies, difference, subnets
from supernet.data import Dataset
from supernet.recipe import Recipe

PRECISIONS = ("fp32", "int8", "w4a8", "w2a8")
PLAIN, FOUR_BITS, TWO_BITS, LONGER = "fp32", "for int8, w4a8", "for int8, w4a8, w2a8", "fp32, as long"


def study(arguments: argparse.Namespace) -> None:
    """Trains what is not trained, and adds a row for each arm to the results."""
    dataset = read_images(arguments.images, arguments.data, arguments.train)
    recipe = Recipe(steps=1, batch=arguments.batch, evaluations=1, seed=arguments.seed)
    steps = arguments.steps
    seconds = {
        arm.name: row(arm, dataset, recipe, arguments)
        for arm in (Arm(PLAIN, steps), Arm(FOUR_BITS, steps, PRECISIONS[:3]), Arm(TWO_BITS, steps, PRECISIONS))
    }
    longer = round(steps * seconds[TWO_BITS] / seconds[PLAIN])
    row(Arm(LONGER, longer), dataset, recipe, arguments)


def row(arm: Arm, dataset: Dataset, recipe: Recipe, arguments: argparse.Namespace) -> float:
    """Trains an arm and writes what its files are worth; the seconds that it trained for."""
    known = {found["arm"]: found for found in read_lines(results(arguments.out))}
    if arm.name not in known:
        network, seconds = trained(arm, dataset, recipe, arguments.out / arm.name.replace(", ", "-").replace(" ", "-"))
        archs = subnets(network, PRECISIONS, arguments.subnets, arguments.seed + 1)
        found = accuracies(network, archs, PRECISIONS, dataset)
        known[arm.name] = {"arm": arm.name, "steps": arm.steps, "seconds": seconds, "accuracies": found}
        with open_lines(results(arguments.out)) as file:
            file.write(json.dumps(known[arm.name]) + "\n")
    return float(known[arm.name]["seconds"])


def results(out: Path) -> Path:
    """Where rows are kept."""
    return out / "arms.jsonl"


def table(out: Path) -> str:
    """Mean accuracies, and differences from those trained in fp32, as Markdown."""
    arms = {found["arm"]: found for found in read_lines(results(out))}
    names = [*PRECISIONS, "mixed"]
    lines = [f"| trained | steps | s | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
    for name, arm in arms.items():
        means = (f"{sum(arm['accuracies'][p]) / len(arm['accuracies'][p]):.2f}" for p in names)
        lines.append(f"| {name} | {arm['steps']} | {arm['seconds']:.0f} | {' | '.join(means)} |")
    for name, other in ((FOUR_BITS, PLAIN), (TWO_BITS, PLAIN), (TWO_BITS, LONGER), (FOUR_BITS, LONGER)):
        if {name, other} <= arms.keys():
            found = (difference(arms[name]["accuracies"][p], arms[other]["accuracies"][p]) for p in names)
            cells = (f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" for mean, low, high in found)
            lines.append(f"| {name} - {other} | | | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--train", type=int, default=10_000, help="training images of CIFAR-10")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--subnets", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    study(arguments)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
