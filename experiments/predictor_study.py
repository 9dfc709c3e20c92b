"""How well each predictor orders architectures, and whether its intervals hold, against the number of evaluations.

python -m experiments.predictor_study [--data DIR] [--json FILE] [--seeds 5] [--sizes 20 50 ...] [--methods gp ...]
[--speed]

Four tables of trained networks: `nb201` (CIFAR-10 after 200 epochs), `macro`, `accel` and `ofa` (224 pixels).  A method
is fitted on some architectures drawn by the seed and judged on up to 2,000 others: Kendall's tau-b, and the share of
truths inside its 90 % interval.  Methods whose deviations are not from left-out points are calibrated first, by five
folds.  Fit time is process time of the one fit on all points; that of `auto` includes its cross-validation.  `gp-smooth`
is the process of `predictors/gp.py` on one column per option, uncalibrated, for comparison.

Defaults (kernel, priors, features, trees, networks) were chosen on seeds from 1000 and, of NAS-Bench-201, on the
12-epoch accuracies on CIFAR-100 and ImageNet-16; what is reported are seeds from 0.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from experiments import tables
from predictors.catalog import PREDICTORS
from predictors.categorical_gp import fit_categorical_gp
from predictors.choose import choose_predictor
from predictors.conformal import deviation_factor, fit_conformal
from predictors.cross_validation import left_out_predictions
from predictors.fidelity import fit_two_fidelities
from predictors.gp import fit_gaussian_process
from predictors.mlp import Statistics, fit_mlp
from predictors.option_features import option_features
from predictors.protocol import Prediction, Predictor
from search_spaces.encoding import one_hot
from search_spaces.space import SearchSpace

SIZES = (20, 50, 100, 200, 500)
_JUDGED = 2_000
_CHEAP = 300  # architectures with a 12-epoch accuracy
_FREE = 1_000  # architectures with known MACs


@dataclass(frozen=True, eq=False)
class Truth:
    """The accuracies (n,) of the architectures (n, d) of a table, and a number of each that costs nothing (n,)."""

    name: str
    space: SearchSpace
    rows: np.ndarray
    accuracy: np.ndarray
    free: np.ndarray


@dataclass(frozen=True)
class Found:
    """One fit: its rank correlation and its 90 % intervals' coverage on other architectures, and its process time."""

    table: str
    method: str
    size: int
    seed: int
    kendall: float
    coverage: float
    fit_s: float


def truths(data: Path) -> list[Truth]:
    """The four tables."""
    space, rows, table = tables.cells(data)
    cheap, full = (np.array([float(row[name]) for row in table]) for name in ("c10_val_12ep", "c10_test_200ep_mean"))
    macro = tables.macro(data)
    values = macro.values(macro.rows)
    return [
        Truth("nb201", space, rows, full / 100, cheap / 100),
        Truth("macro", macro.space, macro.rows, values[tables.ACCURACY], values[tables.COST]),
        Truth("accel", *tables.accel_measured(data)),
        Truth("ofa", *tables.ofa_measured(data)),
    ]


def fitted(truth: Truth, method: str, rows: np.ndarray, targets: np.ndarray, seed: int) -> tuple[Predictor, float]:
    """A method's predictor with intervals that are to hold, and the process time of its fit."""
    if method == "auto":
        return _timed(lambda: choose_predictor(truth.space, rows, targets, seed))
    if method == "gp-smooth":
        return _timed(lambda: fit_gaussian_process(functools.partial(one_hot, truth.space), rows, targets))
    entry = PREDICTORS[method]
    _, seconds = _timed(lambda: entry.fit(truth.space, rows, targets, seed))
    if entry.calibrated:
        return _, seconds
    return fit_conformal(lambda x, y: entry.fit(truth.space, x, y, seed), rows, targets, seed=seed), seconds


def _timed(fit: Callable[[], Predictor]) -> tuple[Predictor, float]:
    start = time.process_time()
    predictor = fit()
    return predictor, time.process_time() - start


def split(truth: Truth, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the architectures to fit on (size,) and to judge by (≤ 2000,)."""
    order = np.random.default_rng(seed).permutation(len(truth.rows))
    return order[:size], order[size : size + _JUDGED]


def judged(truth: Truth, method: str, size: int, seed: int, predict: Callable[[], tuple[Prediction, float]]) -> Found:
    """How well a method did: `predict` gives the predictions of the judged architectures and the time of the fit."""
    actual = truth.accuracy[split(truth, size, seed)[1]]
    found, seconds = predict()
    inside = np.abs(actual - found.mean) <= found.half_width(0.9)
    tau = float(np.nan_to_num(kendalltau(found.mean, actual).statistic))
    return Found(truth.name, method, size, seed, tau, float(inside.mean()), seconds)


def compared(truth: Truth, methods: Sequence[str], sizes: Sequence[int], seeds: int) -> Iterator[Found]:
    """Every method on every size and seed."""
    for seed in range(seeds):
        for size in sizes:
            train, test = split(truth, size, seed)
            for method in methods:

                def predict(method: str = method, train: np.ndarray = train, test: np.ndarray = test, seed: int = seed):
                    model, seconds = fitted(truth, method, truth.rows[train], truth.accuracy[train], seed)
                    return model.predict(truth.rows[test]), seconds

                yield judged(truth, method, size, seed, predict)


def with_epochs(truth: Truth, sizes: Sequence[int], seeds: int) -> Iterator[Found]:
    """NAS-Bench-201 with the 12-epoch accuracy of 300 architectures, those with a 200-epoch one among them."""
    for seed in range(seeds):
        for size in [size for size in sizes if size <= _CHEAP]:
            train, test = split(truth, size, seed)
            known = np.random.default_rng(seed).permutation(len(truth.rows))[:_CHEAP]
            # Judged are architectures outside of both.
            test = np.setdiff1d(test, known)
            cheap = truth.rows[known], truth.free[known]

            def both(x: np.ndarray, y: np.ndarray, cheap: tuple[np.ndarray, np.ndarray] = cheap) -> Predictor:
                return fit_two_fidelities(truth.space, *cheap, x, y)

            fits: Mapping[str, Callable[[np.ndarray, np.ndarray], Predictor]] = {
                "gp, 200 epochs only": lambda x, y: fit_categorical_gp(truth.space, x, y),
                f"gp, and 12 epochs of {_CHEAP}": both,
            }
            x, y, actual = truth.rows[train], truth.accuracy[train], truth.accuracy[test]
            for name, fit in fits.items():
                model, seconds = _timed(functools.partial(fit, x, y))
                factor = deviation_factor(left_out_predictions(fit, x, y, seed=seed), y)
                found = model.predict(truth.rows[test])
                inside = np.abs(actual - found.mean) <= factor * found.half_width(0.9)
                tau = float(kendalltau(found.mean, actual).statistic)
                yield Found(truth.name, name, size, seed, tau, float(inside.mean()), seconds)


def with_statistics(truth: Truth, sizes: Sequence[int], seeds: int) -> Iterator[Found]:
    """The MLP with and without having learnt the MACs of 1,000 architectures first."""
    features = option_features(truth.space)
    for seed in range(seeds):
        some = np.random.default_rng(seed + 500).permutation(len(truth.rows))[:_FREE]
        statistics = Statistics(truth.rows[some], truth.free[some, None])
        for size in [size for size in sizes if size <= 100]:
            train, test = split(truth, size, seed)
            for name, given in (("mlp", None), ("mlp after MACs", statistics)):

                def predict(given: Statistics | None = given, train=train, test=test, seed: int = seed):
                    x, y = truth.rows[train], truth.accuracy[train]
                    model, seconds = _timed(lambda: fit_mlp(features, x, y, seed, statistics=given))
                    return model.predict(truth.rows[test]), seconds

                yield judged(truth, name, size, seed, predict)


def speed(truth: Truth, methods: Sequence[str]) -> list[dict[str, float | str | bool]]:
    """Seconds for two objectives of 10⁵ and of 1,000 architectures (the least of five), after 200 training points."""
    train, _ = split(truth, 200, 0)
    many = truth.space.sample(100_000, np.random.default_rng(0))
    found: list[dict[str, float | str | bool]] = []
    for method in methods:
        accuracy = PREDICTORS[method].fit(truth.space, truth.rows[train], truth.accuracy[train], 0)
        free = PREDICTORS[method].fit(truth.space, truth.rows[train], truth.free[train], 0)
        times = {}
        for n in (100_000, 1_000):
            seconds = []
            for _ in range(5 if n == 1_000 else 2):
                start = time.process_time()
                accuracy.predict(many[:n]), free.predict(many[:n])
                seconds.append(time.process_time() - start)
            times[f"{n}_s"] = min(seconds)
        found.append({"table": truth.name, "method": method, "torch": "torch" in sys.modules, **times})
    return found


def shown(found: Sequence[Found], title: str) -> Table:
    """Means over the seeds: one row per table and method, tau and coverage per size, and the longest fit."""
    sizes = sorted({f.size for f in found})
    table = Table(title=title)
    for name in ("table", "method", *map(str, sizes), "fit, s"):
        table.add_column(name, justify="left" if name in ("table", "method") else "right")
    for key in dict.fromkeys((f.table, f.method) for f in found):
        cells = []
        for size in sizes:
            here = [f for f in found if (f.table, f.method, f.size) == (*key, size)]
            tau, coverage = (np.mean([getattr(f, name) for f in here]) for name in ("kendall", "coverage"))
            cells.append(f"{tau:.3f} ({coverage:.0%})" if here else "")
        slowest = max(sizes, key=lambda size: any((f.table, f.method, f.size) == (*key, size) for f in found) * size)
        fit_s = np.mean([f.fit_s for f in found if (f.table, f.method, f.size) == (*key, slowest)])
        table.add_row(*key, *cells, f"{fit_s:.2f}")
    return table


def main() -> None:
    """Runs the study and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = (*PREDICTORS, "auto", "gp-smooth")
    parser.add_argument("--data", type=Path, default=tables.DATA)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--speed", action="store_true", help="time predictions instead")
    given = parser.parse_args()
    console, known = Console(width=140), truths(given.data)
    if given.speed:
        timed = [row for truth in known for row in speed(truth, [m for m in given.methods if m in PREDICTORS])]
        console.print_json(json.dumps(timed))
        return
    main_table, others = [], []
    for truth in known:
        main_table += compared(truth, given.methods, given.sizes, given.seeds)
        console.print(shown([f for f in main_table if f.table == truth.name], f"{truth.name}: tau (coverage)"))
    others += with_epochs(known[0], given.sizes, given.seeds)
    for truth in known[1:]:
        others += with_statistics(truth, given.sizes, given.seeds)
    if others:
        console.print(shown(others, "with cheaper values: tau (coverage)"))
    if given.json:
        given.json.write_text(json.dumps([asdict(f) for f in (*main_table, *others)], indent=1))


if __name__ == "__main__":
    main()
