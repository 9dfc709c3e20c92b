"""The tables that hold values of zero-cost proxies: NAS-Bench-Suite-Zero (arXiv:2210.03230).

Accuracies and proxies of networks of NAS-Bench-101, -201, -301 and of both spaces of TransNAS-Bench-101, by task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from experiments.tables import read

BASELINES = ("params", "flops")
FILES = ("zc_nasbench101", "zc_nasbench301", "zc_transbench101_micro", "zc_transbench101_macro", "nb201_zero_cost_725")
_NOT_PROXIES = ("arch", "index", "task", "dataset", "val_accuracy")
_FAILED = -1e8  # what the authors write where a proxy has no value
_RESAMPLES = 300


@dataclass(frozen=True, eq=False)
class Task:
    """Networks of one space on one task.

    Args:
        keys: what the table calls each of n networks.
        accuracy: of each (n,), higher is better.
        proxies: values by name (n,), NaN where there is none.
    """

    name: str
    keys: tuple[str, ...]
    accuracy: np.ndarray
    proxies: dict[str, np.ndarray]


@dataclass(frozen=True)
class Standing:
    """How a proxy ranks the networks of a task beside the baselines, on the networks for which it has a value.

    Args:
        spearman: with accuracy.
        lead: over the better baseline's, and the bounds of its 95 % bootstrap interval over networks.
    """

    task: str
    proxy: str
    networks: int
    spearman: float
    lead: float
    low: float
    high: float

    @property
    def beats_both(self) -> bool:
        """Whether it ranks better than by chance, and its lead over both baselines is none of chance."""
        return self.spearman > 0 and self.low > 0


def tasks(data: Path) -> list[Task]:
    """Every task of every table, in the files' order."""
    found: dict[str, list[dict[str, str]]] = {}
    for file in FILES:
        short = file.removeprefix("zc_").removesuffix("_zero_cost_725")
        for row in read(data / f"{file}.csv.gz"):
            found.setdefault(f"{short}/{row.get('task') or row['dataset']}", []).append(row)
    return [_task(name, rows) for name, rows in found.items()]


def _task(name: str, rows: list[dict[str, str]]) -> Task:
    names = [column for column in rows[0] if column not in _NOT_PROXIES]
    values = {column: np.array([_value(row[column]) for row in rows]) for column in names}
    keys = tuple(row.get("index") or row["arch"] for row in rows)
    accuracy = np.array([float(row["val_accuracy"]) for row in rows])
    return Task(name, keys, accuracy, {column: v for column, v in values.items() if np.isfinite(v).any()})


def _value(text: str) -> float:
    value = float(text) if text else math.nan
    return math.nan if value == _FAILED else value


def standings(task: Task) -> list[Standing]:
    """How each proxy of a task, baselines too, stands beside the better baseline."""
    return [_standing(task, name) for name in task.proxies]


def _standing(task: Task, name: str) -> Standing:
    there = np.all([np.isfinite(task.proxies[column]) for column in (name, *BASELINES)], axis=0)
    columns = np.stack([task.accuracy, task.proxies[name], *(task.proxies[b] for b in BASELINES)])[:, there]
    n = columns.shape[1]
    drawn = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    resampled = _leads(columns[:, drawn])[1]
    (spearman,), (lead,) = _leads(columns[:, None, :])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Standing(task.name, name, n, float(spearman), float(lead), float(low), float(high))


def _leads(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of r resamples (4, r, n) of accuracy, proxy and baselines: the proxy's Spearman and its lead, each (r,)."""
    accuracy, *others = (_standardised(rankdata(column, axis=1)) for column in columns)
    proxy, *baselines = ((accuracy * other).mean(axis=1) for other in others)
    return proxy, proxy - np.max(baselines, axis=0)


def _standardised(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scaled: np.ndarray = centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-12)
    return scaled
