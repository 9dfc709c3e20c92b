"""What do differentiable searches end with on NAS-Bench-201, and which of them collapse to skip connections?

python -m experiments.collapse --strategy darts --out results/ [--data DIR]

Searches the space of cells on a part of CIFAR-10 without a bound, in a supernet half as wide as the benchmark's
networks, and looks up in the benchmark what the most probable cell at each tenth of the training reaches when it is
trained by itself.  The paper's DARTS is `--strategy darts --warmup 0`.  A study that was killed goes on when its
command is repeated.  Without `--strategy`, prints a table of all results in `--out`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from experiments.decode_images import read_cifar10
from experiments.tables import read
from search_spaces.cell import CellNetwork, Preset, operations_of
from search_spaces.equal_cells import EDGES, OPERATIONS
from search_spaces.network import find_space
from search_spaces.value import Choice
from supernet.catalog import STRATEGIES
from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.recipe import Recipe
from supernet.relaxed.found import found_trace
from supernet.relaxed.search import Relaxed
from supernet.train import train_supernet

SKIP = OPERATIONS.index("skip_connect")
_LOOKS = 10
_IMAGE_SIZE, _BATCH = 16, 64


def read_accuracies(data: Path) -> dict[tuple[int, ...], float]:
    """Mean test accuracy in percent after 200 epochs of every cell, as indices into `OPERATIONS`."""
    rows = read(data / "nb201.csv.gz")
    cells = (operations_of(row["arch_str"]) for row in rows)
    indices = (tuple(OPERATIONS.index(name) for name in cell) for cell in cells)
    return dict(zip(indices, (float(row["c10_test_200ep_mean"]) for row in rows), strict=True))


def study(arguments: argparse.Namespace) -> dict[str, object]:
    """Searches, or goes on searching, and looks up what was found."""
    warmup = "" if arguments.warmup is None else f"-warmup{arguments.warmup:g}"
    sizes = (arguments.cells, arguments.images, arguments.steps, arguments.seed)
    folder = arguments.out / ("-".join([arguments.strategy, *map(str, sizes)]) + warmup)
    dataset = read_cifar10(arguments.data, _IMAGE_SIZE)
    spread = np.linspace(0, len(dataset.y_train) - 1, arguments.images).astype(int)  # the files are sorted by class
    dataset = dataclasses.replace(dataset, x_train=dataset.x_train[spread], y_train=dataset.y_train[spread])
    edges = [Choice(f"edge{i}", OPERATIONS) for i in range(len(EDGES))]
    preset = Preset(channels=(8, 16, 32), cells=arguments.cells, largest_image=_IMAGE_SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(arguments.seed)
        network = CellNetwork(preset, edges, 3, dataset.num_classes)
    made = cast(Relaxed, STRATEGIES[arguments.strategy].make())
    strategy = made if arguments.warmup is None else dataclasses.replace(made, warmup=arguments.warmup)
    learning = arguments.images * (1 - strategy.held_out)
    recipe = Recipe(
        strategy=strategy,
        epochs=math.ceil(arguments.steps / (learning // _BATCH)),
        batch=_BATCH,
        lr=0.1,
        label_smoothing=0.0,
        evaluations=1,
        seed=arguments.seed,
    )
    history = train_supernet(network, dataset, recipe, folder)
    trace = found_trace(load_checkpoint(folder / FILE_NAME), find_space(network))
    probabilities = np.stack(list(trace.probabilities.values()), axis=1)  # (moments, edges, operations)
    accuracies = read_accuracies(arguments.data)
    looks = np.unique(np.linspace(0, len(trace.progress) - 1, _LOOKS + 1).round().astype(int))
    course = [look(float(trace.progress[i]), probabilities[i], accuracies) for i in looks]
    result = {
        "strategy": arguments.strategy,
        "cells": arguments.cells,
        "images": arguments.images,
        "warmup": strategy.warmup,
        "seed": arguments.seed,
        "steps": history.total_steps,
        "minutes": history.final.seconds / 60,
        "course": course,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def look(progress: float, probabilities: np.ndarray, accuracies: Mapping[tuple[int, ...], float]) -> dict[str, object]:
    """What the probabilities (edges, operations) of one moment say."""
    cell = tuple(int(i) for i in probabilities.argmax(1))
    return {
        "progress": progress,
        "cell": [OPERATIONS[i] for i in cell],
        "skips": cell.count(SKIP),
        "accuracy": accuracies[cell],
        "better": float(np.mean(np.array(list(accuracies.values())) > accuracies[cell])),
        "probabilities": dict(zip(OPERATIONS, probabilities.mean(0).round(3).tolist(), strict=True)),
    }


def table(out: Path, data: Path) -> str:
    """The end of every study in a folder, most accurate first, and chance, as Markdown."""
    results = [json.loads(file.read_text()) for file in out.glob("*/result.json")]
    lines = [
        "| strategy, warm-up, seed | steps | min | cell | skips, in the course | accuracy, in the course | better |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: -r["course"][-1]["accuracy"]):
        looks, last = r["course"][1::3], r["course"][-1]
        lines.append(
            f"| {r['strategy']}, {r['warmup']:g}, {r['seed']} | {r['steps']:,} | {r['minutes']:.0f} | "
            f"{short(last['cell'])} | "
            f"{', '.join(str(moment['skips']) for moment in looks)} | "
            f"{', '.join(format(moment['accuracy'], '.1f') for moment in looks)} | {100 * last['better']:.1f} % |"
        )
    known = np.array(list(read_accuracies(data).values()))
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    lines.append(f"| a random cell (quartiles) | | | | | {low:.1f}, {middle:.1f}, {high:.1f} | 50 % |")
    return "\n".join(lines)


def short(cell: Sequence[str]) -> str:
    """A cell in one word for each edge."""
    names = dict(zip(OPERATIONS, ("-", "skip", "pool", "1x1", "3x3"), strict=True))
    return " ".join(names[name] for name in cell)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    searching = [n for n, entry in STRATEGIES.items() if entry.relaxed and n != "superkernel"]  # which needs kernels
    parser.add_argument("--strategy", choices=searching)
    parser.add_argument("--cells", type=int, default=1, help="in each of three stages")
    parser.add_argument("--images", type=int, default=5000, help="to train on, of which DARTS holds half out")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--warmup", type=float, help="share of the steps, instead of the strategy's own")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.strategy is None:
        print(table(arguments.out, arguments.data))
    else:
        print(json.dumps(study(arguments), indent=1))


if __name__ == "__main__":
    main()
