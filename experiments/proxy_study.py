"""Which zero-cost proxies are worth their second: on published tables, as we compute them, and combined by RoBoT.

python -m experiments.proxy_study [--data DIR] [--parts tables,ours,robot] [--nets 120] [--cache FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from experiments.proxy_robot import CHECKPOINTS, ROUNDS, Found, race
from experiments.proxy_scores import Scored, score_cells
from experiments.proxy_tables import BASELINES, Standing, Task, standings, tasks
from experiments.tables import DATA, read
from predictors.zero_cost.catalog import PROXIES

NB201 = "nb201/cifar10"
ROBOT_TASKS = (NB201, "nb201/cifar100", "transbench101_micro/class_scene", "transbench101_macro/jigsaw")
_COLUMNS = {"naswot": "nwot", "macs": "flops"}  # what the table calls a proxy of ours, where it is not the same


@dataclass(frozen=True)
class Agreement:
    """One of our proxies on real networks; Spearman correlations, none where there is nothing to compare.

    Args:
        with_table: of the first seed with the table's column, and of the mean over seeds where there are several.
        between_seeds: of the first two seeds with each other: what chance leaves of a rank.
        accuracy, table_accuracy: of ours and of the table's column with the table's accuracy.
        lead, low, high: of ours over the better of our baselines, and its 95 % bootstrap interval over networks.
        seconds: for one network, in the median.
    """

    proxy: str
    networks: int
    with_table: float | None
    repeated: int
    mean_with_table: float | None
    between_seeds: float | None
    accuracy: float
    table_accuracy: float | None
    lead: float
    low: float
    high: float
    seconds: float


def main() -> None:
    """Runs the parts that are asked for and prints their tables."""
    arguments = _arguments()
    torch.set_num_threads(1)
    console, found, published = Console(width=155), {}, tasks(arguments.data)
    if "tables" in arguments.parts:
        stands = [standing for task in published for standing in standings(task)]
        found["tables"] = [asdict(s) | {"beats_both": s.beats_both} for s in stands]
        console.print(_standings_table(stands))
    if "ours" in arguments.parts:
        (task,) = (task for task in published if task.name == NB201)
        ours = agreements(task, _scored(arguments, task))
        found["ours"] = [asdict(a) for a in ours]
        console.print(_ours_table(ours))
    if "robot" in arguments.parts:
        races = [f for t in published if t.name in ROBOT_TASKS for f in race(t, range(arguments.robot_seeds))]
        found["robot"] = [asdict(f) for f in races]
        console.print(_robot_table(races))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["tables", "ours", "robot"])
    parser.add_argument("--nets", type=int, default=120, help="networks to score, drawn from the table")
    parser.add_argument("--repeated", type=int, default=30, help="of which so many by several seeds")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--proxies", type=lambda text: text.split(","), default=list(PROXIES))
    parser.add_argument("--cache", type=Path, default=Path("proxy_scores.jsonl"), help="scores known so far")
    parser.add_argument("--photos", action="store_true", help="in the place of CIFAR-10; give it a cache of its own")
    parser.add_argument("--robot-seeds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _scored(arguments: argparse.Namespace, task: Task) -> list[Scored]:
    """The scores of the networks that are asked for: all by seed 0, and the first of them by further seeds."""
    strings = {row["index"]: row["arch_str"] for row in read(arguments.data / "nb201.csv.gz")}
    drawn = np.random.default_rng(0).permutation(len(task.keys))[: arguments.nets]
    chosen = [task.keys[i] for i in drawn]
    cells = [
        (int(key), strings[key], seed)
        for i, key in enumerate(chosen)
        for seed in range(arguments.seeds if i < arguments.repeated else 1)
    ]
    proxies = [name for name, entry in PROXIES.items() if entry.baseline or name in arguments.proxies]
    return list(score_cells(cells, proxies, arguments.data, arguments.cache, arguments.photos))


def agreements(task: Task, scored: list[Scored]) -> list[Agreement]:
    """Our scores beside the table's, proxy by proxy."""
    names = [name for name in PROXIES if all(name in s.scores for s in scored)]
    columns = {name: _by_seed(task, scored, name) for name in names}
    first = {_COLUMNS.get(name, name): values[:, 0] for name, values in columns.items()}
    own = {_standing_name(s): s for s in standings(Task("ours", task.keys, task.accuracy, first))}
    return [_agreement(task, scored, name, columns[name], own[name]) for name in names]


def _standing_name(standing: Standing) -> str:
    """Our name of the proxy that the table may call otherwise."""
    return {theirs: ours for ours, theirs in _COLUMNS.items()}.get(standing.proxy, standing.proxy)


def _by_seed(task: Task, scored: list[Scored], name: str) -> np.ndarray:
    """Our scores (n, seeds) in the order of the task's networks, NaN where there are none."""
    place = {int(key): i for i, key in enumerate(task.keys)}
    values = np.full((len(place), 1 + max(s.seed for s in scored)), np.nan)
    for s in scored:
        score = s.scores[name]
        values[place[s.index], s.seed] = np.nan if score is None else score
    return values


def _agreement(task: Task, scored: list[Scored], name: str, values: np.ndarray, standing: Standing) -> Agreement:
    column = task.proxies.get(_COLUMNS.get(name, name))
    mean = values.mean(axis=1)  # NaN but for networks that all seeds have scored
    several = values.shape[1] > 1
    there = np.isfinite(values[:, 0])
    return Agreement(
        proxy=name,
        networks=standing.networks,
        with_table=_spearman(values[:, 0], column),
        repeated=int(np.isfinite(mean).sum()) if several else 0,
        mean_with_table=_spearman(mean, column) if several else None,
        between_seeds=_spearman(values[:, 0], values[:, 1]) if several else None,
        accuracy=standing.spearman,
        table_accuracy=None if column is None else _spearman(column[there], task.accuracy[there]),
        lead=standing.lead,
        low=standing.low,
        high=standing.high,
        seconds=statistics.median(s.seconds[name] for s in scored),
    )


def _spearman(a: np.ndarray, b: np.ndarray | None) -> float | None:
    """Where both are finite; none where that says nothing."""
    if b is None:
        return None
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return None
    return float(spearmanr(a[both], b[both]).statistic)


def _standings_table(stands: list[Standing]) -> Table:
    """Spearman by task and proxy, a star where it beats both baselines; the last row counts the stars."""
    names = list(dict.fromkeys([*BASELINES, *(s.proxy for s in stands)]))
    table = Table("task", *names, title="Spearman with accuracy; * beats params and flops (95 %)")
    cells = {(s.task, s.proxy): f"{s.spearman:.2f}{'*' * s.beats_both}" for s in stands}
    for task in dict.fromkeys(s.task for s in stands):
        table.add_row(task, *(cells.get((task, name), "") for name in names))
    table.add_section()
    of = {name: [s.beats_both for s in stands if s.proxy == name] for name in names}
    table.add_row("beats both on", *("" if name in BASELINES else f"{sum(of[name])}/{len(of[name])}" for name in names))
    return table


def _ours_table(found: list[Agreement]) -> Table:
    table = Table(
        *("proxy", "networks", "with table", "repeated", "mean with table", "seed with seed"),
        *("with accuracy", "table's", "lead over baselines", "s"),
        title="Our proxies on NAS-Bench-201 (CIFAR-10): Spearman, and its lead with a 95 % interval",
    )
    for a in found:
        table.add_row(
            *(a.proxy, str(a.networks), _text(a.with_table), str(a.repeated), _text(a.mean_with_table)),
            *(_text(a.between_seeds), _text(a.accuracy), _text(a.table_accuracy)),
            *(f"{a.lead:+.3f} ({a.low:+.2f}, {a.high:+.2f})", f"{a.seconds:.2f}"),
        )
    return table


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _robot_table(found: list[Found]) -> Table:
    headers = [f"best after {k}" for k in CHECKPOINTS]
    title = f"Evaluations until the best network ({ROUNDS} rounds of RoBoT), median and quartiles over seeds"
    table = Table("task", "way", "seeds", "evaluations", *headers, title=title)
    for f in found:
        low, median, high = np.quantile(f.evaluations, [0.25, 0.5, 0.75])
        spread = "" if len(f.evaluations) == 1 else f" ({low:.0f} to {high:.0f})"
        table.add_row(f.task, f.way, str(len(f.evaluations)), f"{median:.0f}{spread}", *(f"{b:.2f}" for b in f.best))
    return table


if __name__ == "__main__":
    main()
