"""Does inherited accuracy rank networks as stand-alone training does, with each strategy, and at what price?

python -m experiments.macro_ranking --strategy single-path --minutes 30 --out results/ [--data DIR]

Trains one supernet of NAS-Bench-Macro on CIFAR-10, takes the inherited accuracy of all 6,561 networks, and compares
their order with the benchmark's stand-alone accuracies.  A study that was killed goes on when its command is repeated.
Without `--strategy`, prints a table of all results in `--out`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch

from experiments.decode_images import read_cifar10
from nas.training import costs_of
from search_spaces.nas_bench_macro import macro_architecture, nas_bench_macro
from search_spaces.network import find_space
from search_spaces.space import SearchSpace
from supernet.catalog import STRATEGIES
from supernet.distributed import joined
from supernet.fidelity import fidelity
from supernet.prefixes import inherited_accuracies
from supernet.recipe import Recipe
from supernet.train import train_supernet


def read_table(data: Path, space: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """All networks (6561, 8) and their mean stand-alone test accuracies (6561,), 0 to 1."""
    with gzip.open(data / "nas_bench_macro.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    population = np.array([macro_architecture(space, row["arch"]).indices for row in rows])
    return population, np.array([float(row["acc_mean"]) / 100 for row in rows])


def study(arguments: argparse.Namespace) -> dict[str, object]:
    """Trains, or goes on training, and ranks."""
    span = f"{arguments.minutes:g}min" if arguments.epochs is None else f"{arguments.epochs}epochs"
    folder = arguments.out / "-".join(
        [arguments.strategy, arguments.preset, str(arguments.image_size), span, str(arguments.seed)]
    )
    dataset = read_cifar10(arguments.data, arguments.image_size)
    with torch.random.fork_rng():
        torch.manual_seed(arguments.seed)
        network = nas_bench_macro(arguments.image_size, 3, dataset.num_classes, arguments.preset)
    space = find_space(network)
    recipe = Recipe(
        strategy=STRATEGIES[arguments.strategy].make(),
        epochs=arguments.epochs,
        budget_s=60 * arguments.minutes if arguments.epochs is None else None,
        batch=arguments.batch,
        lr=arguments.lr,
        label_smoothing=0.0,
        evaluations=1,
        seed=arguments.seed,
    )
    costs = costs_of(network, space, dataset)
    with joined() as device:
        trained_s = -time.process_time()
        history = train_supernet(network.to(device), dataset, recipe, folder, costs=costs)
        trained_s += time.process_time()
        population, truth = read_table(arguments.data, space)
        started_s = time.perf_counter()
        ranked = inherited_accuracies(network, [space.row(row) for row in population], dataset)
        ranking_s = time.perf_counter() - started_s
    np.save(folder / "inherited.npy", ranked)
    best = np.argsort(-truth)[: len(truth) // 10]
    result = {
        "strategy": arguments.strategy,
        "preset": arguments.preset,
        "image_size": arguments.image_size,
        "seed": arguments.seed,
        "minutes": history.final.seconds / 60,
        "cpu_minutes": trained_s / 60,  # of this process: too little after a kill
        "ranking_minutes": ranking_s / 60,
        "steps": history.total_steps,
        "batch": recipe.batch,
        "val_largest": history.final.val_largest,
        **dataclasses.asdict(fidelity(ranked, truth, 0)),
        "kendall_tau_best_tenth": fidelity(ranked[best], truth[best], 0).kendall_tau.value,
        "truth_of_the_best_ranked": float(truth[ranked.argmax()]),
        "rank_of_the_best_ranked": int((truth > truth[ranked.argmax()]).sum()) + 1,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def table(out: Path) -> str:
    """All results in a folder, best first, as Markdown."""
    results = [json.loads(file.read_text()) for file in out.glob("*/result.json")]
    lines = [
        "| strategy | images | steps x batch | CPU min | tau | Spearman | tau, best tenth | truth of the best ranked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: -r["kendall_tau"]["value"]):
        tau, low, high = r["kendall_tau"]["value"], r["kendall_tau"]["low"], r["kendall_tau"]["high"]
        lines.append(
            f"| {r['strategy']} ({r['preset']}, seed {r['seed']}) | {r['image_size']} px | "
            f"{r['steps']:,} x {r['batch']} | "
            f"{r['cpu_minutes']:.1f} | {tau:.3f} ({low:.3f}, {high:.3f}) | {r['spearman']['value']:.3f} | "
            f"{r['kendall_tau_best_tenth']:.3f} | {100 * r['truth_of_the_best_ranked']:.2f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strategy", choices=[name for name, entry in STRATEGIES.items() if not entry.relaxed])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--epochs", type=int, help="instead of minutes")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(table(arguments.out) if arguments.strategy is None else json.dumps(study(arguments), indent=1))


if __name__ == "__main__":
    main()
