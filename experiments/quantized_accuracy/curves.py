"""How well each method predicts the accuracy of quantized files, against how many of them it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, t

from experiments.quantized_accuracy.collect import Points
from nas.predict import accuracies_of, fit_accuracy, logits_of
from predictors.catalog import QUANTIZED
from predictors.categorical_gp import fit_categorical_gp
from predictors.drop import Policies, fit_drop, no_drop

SIZES = (0, 10, 20, 40, 80)
_FLOOR = 0.002

Method = Callable[[Points, np.ndarray, np.ndarray], np.ndarray]
"""From what was collected, and which files are known and which are asked (indices), to accuracies of the latter."""


@dataclass(frozen=True)
class Found:
    """One method after some files, on the others of a split."""

    method: str
    size: int
    split: int
    kendall: float
    error: float


def together(points: Points, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows (n, d) and accuracies (n,) of the inherited and of the known files."""
    rows = np.concatenate([points.inherited[0], points.files[0][known]])
    return rows, np.concatenate([points.inherited[1], points.files[1][known]])


def on_log_error(points: Points, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """One process on the logarithm of the error rate."""
    anatomy, (rows, accuracy), new = points.anatomy, together(points, known), points.files[0][asked]
    costs = anatomy.cost_logs(rows)
    fitted = fit_categorical_gp(anatomy.space, rows, np.log(1 + _FLOOR - accuracy), costs)
    found: np.ndarray = 1 + _FLOOR - np.exp(fitted.predict_mean(new, anatomy.cost_logs(new)))
    return found


def by_search(points: Points, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """What `nas search` predicts: `drop-gp` with MACs and parameters."""
    return fit_accuracy(points.anatomy, *together(points, known)).predict(points.files[0][asked])


def of_catalog(name: str) -> Method:
    """A method of the catalog on logits of the error rate."""

    def method(points: Points, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
        rows, accuracy = together(points, known)
        anatomy = points.anatomy
        fitted = QUANTIZED[name].fit(anatomy.space, anatomy.policy_columns, rows, logits_of(accuracy), 0)
        return accuracies_of(fitted.predict(points.files[0][asked]).mean)

    return method


def drop_alone(points: Points, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A process of full precision, and the drop, but nothing that learns what both leave over."""
    anatomy, new = points.anatomy, points.files[0][asked]
    policies = Policies(anatomy.space, anatomy.policy_columns)
    whole = fit_accuracy(anatomy, *points.inherited).process
    rows = points.files[0][known]

    def kept(population: np.ndarray) -> np.ndarray:
        return whole.predict_off(policies.plain(population), 0.0, anatomy.cost_logs(population))

    lost = fit_drop(policies, rows, logits_of(points.files[1][known]) - kept(rows)) if len(rows) else no_drop(policies)
    return accuracies_of(kept(new) + lost(new))


METHODS: dict[str, Method] = {
    "drop-gp, MACs, parameters (nas search)": by_search,
    "drop alone": drop_alone,
    **{name: of_catalog(name) for name in QUANTIZED},
    "joint-gp on log error, MACs, parameters": on_log_error,
}


def compared(points: Points, sizes: Sequence[int], splits: int) -> Iterator[Found]:
    """Every method on every size and split; all sizes of a split are judged by the same files."""
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(points.files[1]))
        asked = order[max(sizes) :]
        truth = points.files[1][asked]
        for size in sizes:
            for name, method in METHODS.items():
                found = method(points, order[:size], asked)
                tau = float(np.nan_to_num(kendalltau(found, truth).statistic))
                yield Found(name, size, split, tau, float(np.abs(found - truth).mean()))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of some values and half of its 95 % interval (Student's t)."""
    n = len(values)
    half = t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    return float(np.mean(values)), float(half)
