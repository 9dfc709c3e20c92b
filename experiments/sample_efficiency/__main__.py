"""Hypervolume against evaluations, for every searcher here and for the libraries used directly.

python -m experiments.sample_efficiency --out FILE.jsonl [--data DIR] [--tasks samsung_a50 … macro accel ofa]
    [--searchers linas nsga2 … "pymoo NSGA-II" …] [--unknown] [--seeds 20] [--first-seed 0] [--budget 200] [--jobs 2]
python -m experiments.sample_efficiency.summary FILE.jsonl …

Accuracy against latency of NAS-Bench-201 on six devices, against MACs of NAS-Bench-Macro, and against latency of
Accel-NASBench and once-for-all.  Costs are scaled to the ideal and nadir of the true front (in the two large spaces, of
the best that a long search finds), the reference is (1.1, 1.1).  The cost is given as `cheap`, with `--unknown` not;
of the other searchers the 15-line loop alone uses it, and always.  What FILE holds is not run again; a longer run
counts for a shorter one whose numbers of evaluations it noted, though LINAS begins a budget below 80
with fewer random ones.

Defaults were chosen on six other devices (`--tasks chosen-on`) and on seeds from 1,000 on (`--first-seed 1000`).  They
are less apart than it sounds: all devices share one column of accuracies, and the latencies of some are close to those
chosen on (Spearman with the nearest: samsung_a50 0.98, gold_6240 0.96, 2080ti_1 0.95, pixel3 0.85, titanx_256 0.80,
eyeriss 0.63).  Of macro, accel and ofa only the seeds differ.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import nas
from experiments.lines import open_lines, read_lines
from experiments.sample_efficiency.direct import DIRECT
from experiments.sample_efficiency.tasks import CHOSEN_ON, DEVICES, OTHERS, Task, task
from experiments.tables import ACCURACY, COST, DATA
from nas.searchers.catalog import SEARCHERS

AT = (20, 30, 40, 50, 60, 75, 100, 125, 150, 200)
GROUPS = {"chosen-on": CHOSEN_ON}  # what a name among the tasks may stand for
OWN = tuple(
    name for name, entry in SEARCHERS.items() if entry.most_objectives != 1 and name not in ("gp", "exhaustive")
)


def marks(budget: int) -> list[int]:
    """The numbers of evaluations to note: those of `AT` before the budget, and the budget."""
    return [*(n for n in AT if n < budget), budget]


def missing(
    held: Iterable[Mapping[str, Any]], wanted: Iterable[tuple[str, str, bool, int]], budget: int
) -> list[tuple[str, str, bool, int]]:
    """Which runs (task, searcher, cheap, seed) no held row gives all the marks of a budget for."""
    needed = set(marks(budget))
    done = {(r["task"], r["searcher"], r["cheap"], r["seed"]) for r in held if needed <= set(r["at"])}
    return [key for key in wanted if key not in done]


def run(data: Path, name: str, searcher: str, cheap: bool, seed: int, budget: int) -> dict[str, object]:
    """The shares of one search at the marks of its budget, and the seconds it took."""
    with threadpool_limits(1):
        return _run(task(data, name), name, searcher, cheap, seed, budget)


def _run(here: Task, name: str, searcher: str, cheap: bool, seed: int, budget: int) -> dict[str, object]:
    started_s = time.perf_counter()
    if searcher in DIRECT:
        rows = DIRECT[searcher](here, budget, seed)
    else:
        found = nas.optimize(
            here.benchmark.space,
            here.evaluate,
            [nas.maximize(ACCURACY), nas.minimize(COST)],
            budget=budget,
            searcher=searcher,
            seed=seed,
            cheap=(COST,) if cheap else (),
        )
        rows = np.array([e.arch.indices for e in found.evaluations])
    seconds = time.perf_counter() - started_s
    at = marks(budget)
    return {
        "task": name,
        "searcher": searcher,
        "cheap": cheap,
        "seed": seed,
        "at": at,
        "shares": here.shares(rows, at),
        "seconds": seconds,
    }


def main() -> None:
    """Runs what FILE does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--tasks", nargs="+", default=[*DEVICES, *OTHERS])
    parser.add_argument("--searchers", nargs="+", default=[*OWN, *DIRECT])
    parser.add_argument("--unknown", action="store_true", help="the cost has to be learnt too")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    wanted = [
        (name, searcher, not given.unknown, seed)
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for searcher in given.searchers
        for group in given.tasks
        for name in GROUPS.get(group, (group,))
        if not (searcher == "15-line loop" and name in ("accel", "ofa"))
    ]
    runs = missing(read_lines(given.out), wanted, given.budget)
    with ProcessPoolExecutor(given.jobs) as pool, open_lines(given.out) as out:
        for future in as_completed([pool.submit(run, given.data, *key, given.budget) for key in runs]):
            out.write(json.dumps(future.result()) + "\n")


if __name__ == "__main__":
    main()
