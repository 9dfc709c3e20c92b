"""Latency on a device left out, from the other devices and 10, 20 or 50 measurements on it.

python -m experiments.transfer --data DIR [--json] [--tables fbnet nb201] [--devices NAME ...] [--seeds 3]

Tables: FBNet (HELP, arXiv:2106.08630) and NAS-Bench-201 (also OneProxy, arXiv:2111.01203). Every column is left out in
turn: alone, when another batch of the same card may stay, and with all columns of its chip, as a new device is.
Spearman is over all architectures that were not sampled. The ceiling is a ridge regression on sources and one-hot
encoding fitted on half of the table and compared on the other half: the columns' noise bounds every predictor.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge, RidgeCV

from predictors.transfer import choose_samples, fit_transfer
from predictors.transfer_prior import learn_from_sources

DATA = Path("../shared/data")
TABLES = {"fbnet": "fbnet_latency.csv.gz", "nb201": "nb201.csv.gz"}
VARIANTS = ("column", "chip")
COUNTS = (10, 20, 50)
# Columns that are the same chip under another name.
CHIPS = {
    "eagle_gtx": "1080ti",
    "essential_ph": "snapdragon_835",
    "pixel2": "snapdragon_835",
    "pixel3": "snapdragon_845",
    "true_630": "snapdragon_845",
    "eagle_cpu_855": "snapdragon_855",
    "eagle_dsp_855": "snapdragon_855",
    "eagle_gpu_855": "snapdragon_855",
    "true_640": "snapdragon_855",
    "true_a76": "snapdragon_855",
}
# The method was chosen with these chips left out; on all others it was run once it stood.
CHOSEN_ON = {"1080ti", "snapdragon_835", "snapdragon_845", "silver_4114"}


@dataclass(frozen=True, eq=False)
class Table:
    """One-hot encoded architectures (n, p), and their seconds (n, s), NaN where not measured, on named devices (s)."""

    features: np.ndarray
    seconds: np.ndarray
    devices: tuple[str, ...]

    def sources(self, device: int, variant: str, rows: np.ndarray) -> list[int]:
        """The other devices (of other chips), without those that were not measured on all of `rows`."""
        own = chip(self.devices[device])
        others = [j for j in range(len(self.devices)) if j != device]
        if variant == "chip":
            others = [j for j in others if chip(self.devices[j]) != own]
        return [j for j in others if not np.isnan(self.seconds[rows, j]).any()]


@dataclass(frozen=True)
class Row:
    """Means over seeds of one device left out: Spearman of each predictor, and how often the 95 % interval covers.

    Args:
        ridge_random: ridge regression on the one-hot encoding of as many random architectures.
    """

    table: str
    variant: str
    device: str
    samples: int
    transfer: float
    ridge: float
    ridge_random: float
    ceiling: float
    covered: float

    @property
    def seen(self) -> bool:
        """Whether the method was chosen on this chip, among others."""
        return chip(self.device) in CHOSEN_ON


def chip(device: str) -> str:
    """What a device is, without batch size."""
    base = device if device in CHIPS else re.sub(r"_(1|16|32|64|256)$", "", device)
    return CHIPS.get(base, base)


def load(path: Path) -> Table:
    """Reads a table of columns `lat_*` in milliseconds; architectures are in columns `op*` or a cell string."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    latencies = [name for name in rows[0] if name.startswith("lat_")]
    operations = [name for name in rows[0] if re.fullmatch(r"op\d+", name)]
    chosen = np.array(
        [[row[name] for name in operations] or re.findall(r"(\w+)~", row["arch_str"]) for row in rows], dtype=str
    )
    features = np.concatenate([column[:, None] == np.unique(column) for column in chosen.T], axis=1).astype(float)
    seconds = np.array([[float(row[name] or "nan") / 1e3 for name in latencies] for row in rows])
    return Table(features, seconds, tuple(re.sub("^lat_(help_|sub_)?", "", name) for name in latencies))


def leave_out(name: str, table: Table, device: int, variant: str, seeds: int) -> Iterator[Row]:
    """One row per number of samples."""
    rows = np.flatnonzero(~np.isnan(table.seconds[:, device]))
    features, truth = table.features[rows], table.seconds[rows, device]
    sources = table.seconds[np.ix_(rows, table.sources(device, variant, rows))]
    population = np.arange(len(rows))[:, None]
    prior = learn_from_sources(lambda p: features[p[:, 0]], lambda p: sources[p[:, 0]], population)
    ceiling = _ceiling(np.column_stack([prior.terms(population), features]), truth)
    found: dict[int, list[tuple[float, ...]]] = {count: [] for count in COUNTS}
    for seed in range(seeds):
        picked = choose_samples(prior, population, max(COUNTS), seed)
        random = np.random.default_rng(seed).permutation(len(rows))
        for count in COUNTS:
            sampled, other = picked[:count], np.setdiff1d(np.arange(len(rows)), picked[:count])
            predicted = fit_transfer(prior, population[sampled], truth[sampled]).predict(population[other])
            inside = np.abs(truth[other] - predicted.mean) < 1.96 * predicted.std
            ranks = [
                spearmanr(predicted.mean, truth[other]).statistic,
                _ridge_rank(features, truth, sampled),
                _ridge_rank(features, truth, random[:count]),
            ]
            found[count].append((*ranks, ceiling, float(inside.mean())))
    for count, values in found.items():
        yield Row(name, variant, table.devices[device], count, *(float(v) for v in np.mean(values, axis=0)))


def _ridge_rank(features: np.ndarray, truth: np.ndarray, sampled: np.ndarray) -> float:
    other = np.setdiff1d(np.arange(len(truth)), sampled)
    fit = RidgeCV(np.logspace(-3, 3, 13)).fit(features[sampled], np.log(truth[sampled]))
    return float(spearmanr(fit.predict(features[other]), truth[other]).statistic)


def _ceiling(columns: np.ndarray, truth: np.ndarray) -> float:
    order = np.random.default_rng(0).permutation(len(truth))
    train, test = np.array_split(order, 2)
    logs = np.log(np.maximum(truth, np.median(truth) / 10))  # near-zero outliers
    fit = Ridge(1.0).fit(columns[train], logs[train])
    return float(spearmanr(fit.predict(columns[test]), truth[test]).statistic)


def summary(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Mean and worst per table, variant and number of samples; and the mean over chips the method was not chosen on."""
    lines: list[dict[str, object]] = []
    for key in dict.fromkeys((row.table, row.variant, row.samples) for row in rows):
        group = [row for row in rows if (row.table, row.variant, row.samples) == key]
        unseen = [row.transfer for row in group if not row.seen]
        worst = min(group, key=lambda row: row.transfer)
        line: dict[str, object] = dict(zip(("table", "variant", "samples"), key, strict=True))
        names = ("transfer", "ridge", "ridge_random", "ceiling", "covered")
        line |= {name: float(np.mean([getattr(row, name) for row in group])) for name in names}
        line |= {"unseen": float(np.mean(unseen)) if unseen else None}
        lines.append(line | {"worst": worst.transfer, "worst_device": worst.device, "devices": len(group)})
    return lines


def _print(rows: Sequence[Row], lines: Sequence[dict[str, object]]) -> None:
    for name, variant in dict.fromkeys((row.table, row.variant) for row in rows):
        print(f"\n{name}, left out: {variant}; Spearman with {COUNTS} samples; * the method was chosen on this chip")
        print(f"{'device':<18}{'transfer':^21}{'ridge':^21}{'ridge, random':^21}{'ceiling':>9}{'covered':^21}")
        group = [row for row in rows if (row.table, row.variant) == (name, variant)]
        for device in dict.fromkeys(row.device for row in group):
            found = [row for row in group if row.device == device]
            columns = [
                "".join(f"{getattr(row, column):7.3f}" for row in found)
                for column in ("transfer", "ridge", "ridge_random", "covered")
            ]
            label = device + " *" * found[0].seen
            print(f"{label:<18}" + "".join(columns[:3]) + f"{found[0].ceiling:9.3f}" + columns[3])
    print("\nmeans (unseen: over chips the method was not chosen on)")
    for line in lines:
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true", help="print rows and means as JSON")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--devices", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="of the choice of samples")
    arguments = parser.parse_args()
    start = time.perf_counter()
    tables = {name: load(arguments.data / TABLES[name]) for name in arguments.tables}
    known = {device for table in tables.values() for device in table.devices}
    if unknown := set(arguments.devices or ()) - known:
        parser.error(f"no device {sorted(unknown)}, expected some of {sorted(known)}")
    rows = []
    for name, variant in itertools.product(tables, VARIANTS):
        for device, label in enumerate(tables[name].devices):
            if not arguments.devices or label in arguments.devices:
                rows += leave_out(name, tables[name], device, variant, arguments.seeds)
                print(rows[-1], file=sys.stderr)  # progress
    lines = summary(rows)
    if arguments.json:
        seconds = time.perf_counter() - start
        print(json.dumps({"rows": [asdict(row) for row in rows], "means": lines, "seconds": seconds}, indent=1))
    else:
        _print(rows, lines)


if __name__ == "__main__":
    main()
