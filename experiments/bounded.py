"""What do differentiable searches find under a bound on latency, beside a random search of equal cost?

python -m experiments.bounded --data cifar10.npz --space nas_bench_macro --strategy proxyless --bound 30us --out DIR

One whole run of `nas search`, to files that were measured; `random` trains shared weights by single paths for its share
of the same time, and evaluates as many random networks that are predicted to keep to the bound.  For nas_bench_macro
the benchmark's stand-alone accuracies (`--tables DIR`) stand beside.  A run that was killed goes on when its command is
repeated.  Without `--strategy`, prints a table of all results in `--out`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nas
from experiments.tables import read
from nas.config import parse_duration, parse_quantity
from nas.errors import CannotBeDone
from search_spaces.nas_bench_macro import OPERATIONS
from supernet.catalog import STRATEGIES

RANDOM = "random"
MACRO = "nas_bench_macro"


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs, or goes on running, one search, and says what it found."""
    bound_s = parse_quantity(arguments.bound, "s")
    name = f"{arguments.space}-{arguments.strategy}-{arguments.bound}-{arguments.seed}"
    by_chance = arguments.strategy == RANDOM
    result: dict[str, Any] = {key: vars(arguments)[key] for key in ("space", "strategy", "bound", "budget", "seed")}
    folder = arguments.out / name
    try:
        found = nas.search(
            arguments.space,
            data=arguments.data,
            image_size=arguments.image_size,
            preset="tiny",
            precisions=("fp32",),
            strategy="single-path" if by_chance else arguments.strategy,
            searcher=RANDOM if by_chance else "linas",
            baselines=False,
            budget_s=parse_duration(arguments.budget),
            evaluations=arguments.evaluations,
            max_latency_s=bound_s,
            seed=arguments.seed,
            out=folder,
            quiet=True,
        )
    except CannotBeDone as error:
        return result | {"refused": str(error)}
    truth = read_macro(arguments.tables) if arguments.space == MACRO else {}
    result["front"] = [
        {
            "accuracy": point["accuracy"],
            "latency_s": point["latency_s"]["median"],
            "stand_alone": truth.get(digits(point["arch"])),
        }
        for point in found.front
    ]
    result |= {"seconds": found.record["seconds"], "held": all(p["latency_s"] <= bound_s for p in result["front"])}
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    return result


def read_macro(tables: Path) -> dict[str, float]:
    """Mean stand-alone test accuracies, 0 to 1, by the benchmark's digits."""
    return {row["arch"]: float(row["acc_mean"]) / 100 for row in read(tables / "nas_bench_macro.csv.gz")}


def digits(arch: dict[str, Any]) -> str:
    """An architecture of nas_bench_macro as the benchmark writes it; of other spaces nothing."""
    return "".join(str(OPERATIONS.index(arch[f"layer{i}"])) for i in range(1, 9)) if "layer1" in arch else ""


def table(out: Path) -> str:
    """What every run in a folder found, by space and bound, as Markdown: of its front, the most accurate file."""
    results = [json.loads(file.read_text()) for file in out.glob("*/result.json")]
    lines = [
        "| space | bound | strategy | files | best file | its latency | stand-alone | held | took |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: (r["space"], parse_quantity(r["bound"], "s"), r["strategy"])):
        best = max(r["front"], key=lambda point: point["accuracy"])
        alone = "" if best["stand_alone"] is None else f"{100 * best['stand_alone']:.2f} %"
        lines.append(
            f"| {r['space']} | {r['bound']} | {r['strategy']}, {r['seed']} | {len(r['front'])} | "
            f"{100 * best['accuracy']:.1f} % | {1e6 * best['latency_s']:.1f} µs | {alone} | "
            f"{'yes' if r['held'] else 'no'} | {r['seconds']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="an .npz as `experiments.decode_images` makes it, or what `nas search` takes")
    parser.add_argument("--tables", type=Path, default=Path("../shared/data"))
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
    print(table(arguments.out) if arguments.strategy is None else json.dumps(study(arguments), indent=1))


if __name__ == "__main__":
    main()
