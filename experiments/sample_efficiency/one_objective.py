"""One objective: the best architecture within a latency bound, and the best of all.

python -m experiments.sample_efficiency.one_objective --out FILE.jsonl [--data DIR] [--part bounds|optimum]
    [--searchers linas random local nsga2 … "random, feasible"] [--bounds 20] [--seeds 20] [--tasks …]

`bounds`: for each device 20 latency bounds, drawn uniformly between the 2nd and the 90th percentile of its latencies,
a seed each; 100 evaluations.  Regret is the accuracy of the enumerated optimum minus that of the best feasible
architecture, in points.  LINAS knows the latency of every architecture beforehand.  The other searchers learn that of
what they evaluate, and spend evaluations on what breaks the bound.  "random, feasible" is the least that anybody with a
table of latencies would do: it knows them as LINAS does, and draws uniformly among what keeps to the bound.

`optimum`: evaluations until the best accuracy of NAS-Bench-201 on CIFAR-10; there is no latency to know.
What FILE holds is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import nas
from experiments.lines import open_lines, read_lines
from experiments.sample_efficiency.tasks import DEVICES, Task, task
from experiments.tables import ACCURACY, COST, DATA

BUDGET, MOST = 100, 1_000  # evaluations within a bound, and at most until the optimum
_FROM, _TO = 0.02, 0.9
SEARCHERS = ("linas", "random", "local", "nsga2", "evolution")
FEASIBLE = "random, feasible"


def bounded(here: Task, searcher: str, seed: int) -> dict[str, float]:
    """The regret, in points, within the bound that the seed draws."""
    values = here.benchmark.values(here.benchmark.rows)
    rng = np.random.default_rng(seed)
    limit = float(np.quantile(values[COST], rng.uniform(_FROM, _TO)))
    feasible = values[ACCURACY][values[COST] <= limit]
    if searcher == FEASIBLE:
        best = rng.choice(feasible, min(BUDGET, len(feasible)), replace=False).max()
    else:
        best = _best_within(here, searcher, seed, limit)
    return {"limit": limit, "regret": 100 * float(feasible.max() - best)}


def _best_within(here: Task, searcher: str, seed: int, limit: float) -> float:
    """The best accuracy that a searcher finds within a bound, 0 where it finds none."""
    found = nas.optimize(
        here.benchmark.space,
        here.evaluate,
        [nas.maximize(ACCURACY)],
        budget=BUDGET,
        searcher=searcher,
        seed=seed,
        constraints={COST: limit},
        cheap=(COST,),
    )
    return max((e.values[ACCURACY] for e in found.front), default=0.0)


def until_optimum(here: Task, searcher: str, seed: int) -> dict[str, float]:
    """The evaluations until the best accuracy of all; infinite where it is not found."""
    goal = here.benchmark.values(here.benchmark.rows)[ACCURACY].max()
    found = nas.optimize(
        here.benchmark.space, here.evaluate, [nas.maximize(ACCURACY)], budget=MOST, searcher=searcher, seed=seed
    )
    at = [i + 1 for i, e in enumerate(found.evaluations) if e.values[ACCURACY] >= goal]
    return {"evaluations": float(at[0]) if at else float("inf")}


def main() -> None:
    """Runs what FILE does not hold, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--part", choices=("bounds", "optimum"), default="bounds")
    parser.add_argument("--searchers", nargs="+", help=f"with {FEASIBLE!r} in the part `bounds` alone")
    parser.add_argument("--tasks", nargs="+", default=list(DEVICES))
    parser.add_argument("--seeds", "--bounds", type=int, default=20)
    given = parser.parse_args()
    searchers = given.searchers or [*SEARCHERS, *([FEASIBLE] if given.part == "bounds" else [])]
    if given.part == "optimum" and FEASIBLE in searchers:
        parser.error(f"{FEASIBLE!r} needs a bound: leave it out of the part `optimum`")
    rows = read_lines(given.out)
    done = {(r["part"], r["task"], r["searcher"], r["seed"]) for r in rows}
    tasks = given.tasks if given.part == "bounds" else given.tasks[:1]  # the accuracies are those of any device
    with open_lines(given.out) as out, threadpool_limits(1):
        for seed in range(given.seeds):
            for name in tasks:
                for searcher in searchers:
                    if (given.part, name, searcher, seed) in done:
                        continue
                    study = bounded if given.part == "bounds" else until_optimum
                    found = study(task(given.data, name), searcher, seed)
                    rows.append({"part": given.part, "task": name, "searcher": searcher, "seed": seed, **found})
                    out.write(json.dumps(rows[-1]) + "\n")
    measure = "regret" if given.part == "bounds" else "evaluations"
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["part"] == given.part:
            groups[row["searcher"], row["task"]].append(row[measure])
    for (searcher, name), own in sorted(groups.items()):
        said = f"median {np.median(own):.3f}, mean {np.mean(own):.3f}, worst {max(own):.3f}"
        print(f"{searcher:16} {name:14} {measure}: {said} ({len(own)})")


if __name__ == "__main__":
    main()
