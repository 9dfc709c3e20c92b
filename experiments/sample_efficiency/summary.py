"""What `python -m experiments.sample_efficiency` found, as a table and a plot.

python -m experiments.sample_efficiency.summary FILE.jsonl … [--plot FILE.html]

Per searcher, whether it knew the cost, and number of evaluations: the median share over seeds of the median task and of
the worst one, and how it compares with LINAS on the same seeds: the mean difference over tasks and seeds, with a 95 %
bootstrap interval over seeds.  Evaluations that LINAS needs for what the other reached at the end are given beside.

Of a run that stands in the files more than once the longest counts, of equally long ones the last; of all runs those
numbers of evaluations that every one has noted.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

from experiments.lines import read_lines

SHOWN = (50, 100, 200)
Curves = dict[tuple[str, bool], dict[tuple[str, int], np.ndarray]]


def curves_of(rows: Iterable[Mapping[str, Any]]) -> tuple[list[int], Curves]:
    """The numbers of evaluations that all runs have noted, and shares (k,) there by task and seed of each searcher.

    Raises:
        ValueError: there are no rows, or no number of evaluations is common to all.
    """
    longest: dict[tuple[str, bool, str, int], dict[int, float]] = {}
    for row in rows:
        key = row["searcher"], row["cheap"], row["task"], row["seed"]
        shares = dict(zip(row["at"], row["shares"], strict=True))
        if key not in longest or max(shares, default=0) >= max(longest[key], default=0):
            longest[key] = shares
    at = sorted(set.intersection(*map(set, longest.values()))) if longest else []
    if not at:
        raise ValueError("no number of evaluations is common to all runs: give files with rows, and of like budgets")
    curves: Curves = defaultdict(dict)
    for (searcher, cheap, task, seed), shares in longest.items():
        curves[searcher, cheap][task, seed] = np.array([shares[n] for n in at])
    return at, dict(curves)


def medians(curves: dict[tuple[str, int], np.ndarray]) -> dict[str, np.ndarray]:
    """The median (k,) over seeds of each task."""
    tasks = sorted({task for task, _ in curves})
    return {task: np.median([c for (t, _), c in curves.items() if t == task], axis=0) for task in tasks}


def behind(
    reference: dict[tuple[str, int], np.ndarray], other: dict[tuple[str, int], np.ndarray], at: int
) -> np.ndarray:
    """The mean of reference minus other on the same tasks and seeds, and its 95 % interval (3,), over seeds."""
    seeds = sorted({seed for _, seed in reference.keys() & other.keys()})
    each = np.array(
        [
            np.mean([reference[k][at] - other[k][at] for k in reference.keys() & other.keys() if k[1] == s])
            for s in seeds
        ]
    )
    rng = np.random.default_rng(0)
    drawn = each[rng.integers(len(each), size=(2000, len(each)))].mean(axis=1)
    return np.array([each.mean(), *np.quantile(drawn, [0.025, 0.975])])


def needed(at: Sequence[int], curve: np.ndarray, share: float) -> float:
    """Evaluations after which a curve reaches a share, interpolated; infinite where it does not."""
    reached = np.flatnonzero(curve >= share)
    if not len(reached):
        return float("inf")
    i = int(reached[0])
    return float(at[0]) if i == 0 else float(np.interp(share, curve[i - 1 : i + 1], at[i - 1 : i + 1]))


def table(at: Sequence[int], curves: Curves) -> Table:
    """One row per searcher, the best first."""
    shown = [n for n in SHOWN if n in at] or at[-1:]
    columns = [f"{what} @{n}" for n in shown for what in ("median", "worst")]
    result = Table("searcher", "cost", "runs", *columns, f"behind LINAS @{shown[-1]}", "LINAS needs")
    best = {cheap: curves.get(("linas", cheap)) for cheap in (True, False)}
    ranked = sorted(
        curves.items(), key=lambda kv: -np.median([c[at.index(shown[-1])] for c in medians(kv[1]).values()])
    )
    for (name, cheap), own in ranked:
        by_task = np.array(list(medians(own).values()))
        cells = [f"{f(by_task[:, at.index(n)]):.4f}" for n in shown for f in (np.median, np.min)]
        lead, fewer = "", ""
        if best[cheap] is not None and name != "linas" and best[cheap].keys() & own.keys():
            low = behind(best[cheap], own, at.index(shown[-1]))
            lead = f"{low[0]:+.4f} ({low[1]:+.4f}, {low[2]:+.4f})"
            ours = medians(best[cheap])
            ratios = [
                needed(at, ours[t], c[at.index(shown[-1])]) / shown[-1] for t, c in medians(own).items() if t in ours
            ]
            fewer = f"{100 * np.median(ratios):.0f} %"
        result.add_row(name, "known" if cheap else "unknown", str(len(own)), *cells, lead, fewer)
    return result


def plot(at: Sequence[int], curves: Curves) -> go.Figure:
    """The median task's share against evaluations."""
    figure = go.Figure(layout={"xaxis_title": "evaluations", "yaxis_title": "share of the true front's hypervolume"})
    for (name, cheap), own in curves.items():
        middle = np.median(list(medians(own).values()), axis=0)
        figure.add_scatter(x=at, y=middle, name=name if cheap else f"{name}, cost unknown")
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    at, curves = curves_of(row for file in given.files for row in read_lines(file))
    Console(width=180).print(table(at, curves))
    if linas := curves.get(("linas", True)):
        for task, curve in medians(linas).items():
            print(f"linas, cost known, {task}: " + ", ".join(f"{s:.4f} @{n}" for n, s in zip(at, curve, strict=True)))
    if given.plot is not None:
        plot(at, curves).write_html(given.plot)


if __name__ == "__main__":
    main()
