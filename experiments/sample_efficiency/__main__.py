"""Hypervolume against evaluations, for every searcher here and for the libraries used directly.

python -m experiments.sample_efficiency --out FILE.json [--data DIR] [--tasks samsung_a50 … macro accel ofa]
    [--searchers linas nsga2 … "pymoo NSGA-II" …] [--unknown] [--seeds 20] [--first-seed 0] [--budget 200] [--jobs 2]
python -m experiments.sample_efficiency.summary FILE.json

Accuracy against latency of NAS-Bench-201 on six devices, against MACs of NAS-Bench-Macro, and against latency of
Accel-NASBench and once-for-all.  Costs are scaled to the ideal and nadir of the true front (in the two large spaces, of
the best that a long search finds), the reference is (1.1, 1.1).  The cost is given as `cheap`, with `--unknown` not;
other searchers than LINAS do not use it.  What FILE holds is not run again.

Defaults were chosen on the six other devices `CHOSEN_ON` and on seeds from 1,000 on.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import nas
from experiments.sample_efficiency.direct import DIRECT
from experiments.sample_efficiency.tasks import DEVICES, OTHERS, Task, task
from experiments.tables import ACCURACY, COST, DATA
from nas.searchers.catalog import SEARCHERS

AT = (20, 30, 40, 50, 60, 75, 100, 125, 150, 200)
OWN = tuple(
    name for name, entry in SEARCHERS.items() if entry.most_objectives != 1 and name not in ("gp", "exhaustive")
)


def run(data: Path, name: str, searcher: str, cheap: bool, seed: int, budget: int) -> dict[str, object]:
    """The shares of one search after each of `AT` evaluations, and the seconds it took."""
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
    at = [n for n in AT if n <= budget]
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
    held = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(r["task"], r["searcher"], r["cheap"], r["seed"]) for r in held}
    with ProcessPoolExecutor(given.jobs) as pool, given.out.open("a") as out:
        wanted = [
            (given.data, name, searcher, not given.unknown, seed, given.budget)
            for seed in range(given.first_seed, given.first_seed + given.seeds)
            for searcher in given.searchers
            for name in given.tasks
            if (name, searcher, not given.unknown, seed) not in done
            and not (searcher == "15-line loop" and name in ("accel", "ofa"))
        ]
        for future in as_completed([pool.submit(run, *arguments) for arguments in wanted]):
            out.write(json.dumps(future.result()) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
