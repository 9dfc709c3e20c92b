"""What do differentiable searches find under a bound on latency, beside a random search of equal cost?

python -m experiments.bounded --images cifar10.npz --space nas_bench_macro --strategy proxyless --bound 30us --out DIR

One whole run of `nas search`, to files that were measured, and are timed once more after it; `random` trains shared
weights by single paths for its share of the same time, and evaluates three times as many random networks, since those
beyond the bound are lost.  For nas_bench_macro the benchmark's stand-alone accuracies (`--data DIR`) stand beside.
Without `--strategy`, prints a table of all results in `--out`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import nas
from experiments.tables import read
from latency.device import parse_device
from latency.harness import CAREFUL, measure_models
from nas.config import parse_duration, parse_quantity
from nas.errors import CannotBeDone
from search_spaces.nas_bench_macro import OPERATIONS
from supernet.catalog import STRATEGIES

RANDOM = "random"
MACRO = "nas_bench_macro"
_LOST = 3


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs, or goes on running, one search, and says what it found."""
    bound_s = parse_quantity(arguments.bound, "s")
    name = f"{arguments.space}-{arguments.strategy}-{arguments.bound}-{arguments.seed}"
    by_chance = arguments.strategy == RANDOM
    result: dict[str, Any] = {key: vars(arguments)[key] for key in ("space", "strategy", "bound", "budget", "seed")}
    folder = arguments.out / name
    started_s = time.perf_counter()
    try:
        found = nas.search(
            arguments.space,
            data=arguments.images,
            image_size=arguments.image_size,
            preset="tiny",
            precisions=("fp32",),
            strategy="single-path" if by_chance else arguments.strategy,
            searcher=RANDOM if by_chance else "linas",
            baselines=False,
            budget_s=parse_duration(arguments.budget),
            evaluations=arguments.evaluations * (_LOST if by_chance else 1),
            max_latency_s=bound_s,
            seed=arguments.seed,
            out=folder,
            quiet=True,
        )
    except CannotBeDone as error:
        result["refused"] = str(error)
    else:
        truth = read_macro(arguments.data) if arguments.space == MACRO else {}
        models = [(folder / point["file"]).read_bytes() for point in found.front]
        again = measure_models(models, parse_device("cpu"), CAREFUL)
        result["front"] = [
            {
                "val_accuracy": point["val_accuracy"],
                "accuracy": point["accuracy"],
                "latency_s": point["latency_s"]["median"],
                "again_s": timed.median_s,
                "stand_alone": truth[digits(point["arch"])] if truth else None,
            }
            for point, timed in zip(found.front, again, strict=True)
        ]
    result["seconds"] = time.perf_counter() - started_s  # of this session
    folder.mkdir(parents=True, exist_ok=True)  # a refused run leaves none
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def read_macro(data: Path) -> dict[str, float]:
    """Mean stand-alone test accuracies, 0 to 1, by the benchmark's digits."""
    return {row["arch"]: float(row["acc_mean"]) / 100 for row in read(data / "nas_bench_macro.csv.gz")}


def digits(arch: dict[str, Any]) -> str:
    """An architecture of nas_bench_macro as the benchmark writes it."""
    return "".join(str(OPERATIONS.index(arch[f"layer{i}"])) for i in range(1, 9))


def table(out: Path) -> str:
    """What every run in a folder found, by space and bound, as Markdown: of its front, the most accurate file."""
    results = [json.loads(file.read_text()) for file in out.glob("*/result.json")]
    lines = [
        "| space | bound | strategy | files | slowest, and timed again | best: accuracy, latency | alone | took |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: (r["space"], parse_quantity(r["bound"], "s"), r["strategy"])):
        lines.append(
            f"| {r['space']} | {r['bound']} | {r['strategy']}, {r['seed']} | {outcome(r)} | {r['seconds']:.0f} s |"
        )
    return "\n".join(lines)


def outcome(result: dict[str, Any]) -> str:
    """The cells of one run."""
    if "refused" in result:
        return f"0 | refused: {result['refused']} | | "
    front = result["front"]
    slowest = max(front, key=lambda point: point["latency_s"])
    best = max(front, key=lambda point: point["val_accuracy"])
    alone = "" if best["stand_alone"] is None else f"{100 * best['stand_alone']:.2f} %"
    return (
        f"{len(front)} | {1e6 * slowest['latency_s']:.1f}, {1e6 * max(p['again_s'] for p in front):.1f} µs | "
        f"{100 * best['accuracy']:.1f} %, {1e6 * best['latency_s']:.1f} µs | {alone}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="an .npz as `experiments.decode_images` makes it, or what `nas search` takes")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where the benchmark's table is")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default=MACRO)
    searching = [name for name, entry in STRATEGIES.items() if entry.relaxed]
    parser.add_argument("--strategy", choices=[*searching, RANDOM])
    parser.add_argument("--bound", default="30us")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--evaluations", type=int, default=14)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.strategy and not arguments.images:
        parser.error("a run needs --images: make them with `python -m experiments.decode_images --out cifar10.npz`")
    print(table(arguments.out) if arguments.strategy is None else json.dumps(study(arguments), indent=1))


if __name__ == "__main__":
    main()
