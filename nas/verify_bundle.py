"""Verifying a run's front on a device that cannot run this toolkit: `nas verify --bundle` and `nas verify --import`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from latency.contention import Contention
from latency.harness import CAREFUL
from latency.timing import Timing
from nas.bundle import BundleWriter, Result, read_result
from nas.folder import read_record, read_settings
from nas.measuring import say_busy
from nas.metrics import COSTS, untold
from nas.objectives import Problem
from nas.pareto import non_dominated
from nas.progress import Reporter, SilentReporter
from nas.results import read_model
from nas.weights import run_data
from supernet.data import Dataset, Split, write_arrays

_SPLITS: tuple[Split, ...] = ("val", "test")  # the one decides what stays on the front, the other is reported


def write_verify_bundle(run: Path, folder: Path, dataset: Dataset | None = None) -> dict[str, Any]:
    """Writes the files of a run's front with the images to verify them on another device; what was written, as JSON.

    Args:
        folder: new or empty.
        dataset: of the run, where its settings alone do not lead to it.

    Raises:
        ValueError: no finished run, a file that is missing, data that are not those of the run, a folder that holds
            something, or an objective or bound that the script does not measure.
    """
    record, settings = read_record(run), read_settings(run)
    if unknown := untold(settings.problem.metrics, graph=True):
        raise ValueError(
            f"the script of a bundle measures accuracy and latency, and {' and '.join(unknown)} decides in {run}: "
            "verify it with `nas verify` on a device that runs this toolkit"
        )
    writer, data = BundleWriter(folder), run_data(settings, dataset)
    models = {point["file"]: read_model(run, point["file"]) for point in record["front"]}
    for name, model in models.items():
        writer.add(name, model)
    images: dict[str, str] = {split: f"{split}.npz" for split in _SPLITS}
    for split in _SPLITS:
        write_arrays(data, split, folder / images[split])
        writer.note(images[split])
    writer.finish(
        kind="verify",
        what=f"The {len(models)} networks on the front of a search, to verify on this device.",
        plans={"wall": [{"key": name, "file": name, "ways": ["wall"]} for name in models]},
        efforts={"wall": asdict(CAREFUL)},
        at_once=len(models),  # all interleaved, since they are compared with one another
        about={"front": _digests(models)},
        shared=list(images.values()),
        images=images,
        run=str(run),
        batch=record["device"].get("batch", 1),
    )
    return {"bundle": str(folder), "models": len(models)}


def import_verification(
    run: Path, file: Path, reporter: Reporter | None = None, seed: int = 0
) -> tuple[str, dict[str, Any]]:
    """What the front of a run is on the device on which `measure.py` wrote `file`, after the name of a file for it.

    Raises:
        ValueError: no finished run, or no result of a bundle of its front, or one that is damaged or not complete.
    """
    record, settings = read_record(run), read_settings(run)
    result = read_result(file, "verify")
    models = {point["file"]: read_model(run, point["file"]) for point in record["front"]}
    if result.manifest["about"]["front"] != _digests(models):
        raise ValueError(f"{file} was measured on the front of another run than {run}, or it has changed since")
    batch = record["device"].get("batch", 1)
    if result.device.batch != batch:
        raise ValueError(
            f"{file} has calls of {result.device.batch} images, and {run} of {batch}: measure it again there"
        )
    pairs = zip(record["front"], result.records, strict=True)
    rows = [_row(i, point, found, seed) for i, (point, found) in enumerate(pairs)]
    for row, verdict in zip(rows, _verdicts(rows, settings.problem), strict=True):
        row["verdict"] = verdict
    contentions = [Contention.of(found["contention"]) for found in result.records]
    say_busy(reporter or SilentReporter(), "verify", contentions)
    content = {
        "device": result.device.name,
        "fingerprint": result.fingerprint,
        "environment": dict(result.environment),
        "was": record["device"],
        "points": rows,
        "front": [row["point"] for row in rows if row["verdict"] == "on the front"],
    }
    return _file_name(result), content


def _file_name(result: Result) -> str:
    device = re.sub(r"[^A-Za-z0-9_.]+", "_", result.device.name)
    return f"verify-{device}-{result.fingerprint}.json"


def _row(i: int, point: Mapping[str, Any], found: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One point there, beside what the run had."""
    timing = Timing.of(found["results"]["wall"])
    median_s = timing.undisturbed().median_s
    return {
        "point": i,
        "file": point["file"],
        "accuracy": float(found["accuracy"]["test"]),
        "val_accuracy": float(found["accuracy"]["val"]),
        "latency_s": {
            "median": median_s,
            "ci95": list(timing.ci95_s(seed, undisturbed=True)),
            "quiet_rounds": timing.quiet_rounds,
            "contention": found["contention"],
        },
        **{cost.metric: point[cost.metric] for cost in COSTS.values() if cost.of != "device" and cost.metric in point},
        "was": {"accuracy": point["accuracy"], "latency_s": point["latency_s"]},
        "moved": median_s / point["latency_s"]["median"] - 1,
    }


def _verdicts(rows: Sequence[Mapping[str, Any]], problem: Problem) -> list[str]:
    """Whether each point keeps to the run's bounds there, and is not dominated by another that does."""
    metrics = {name: np.array([row[name] for row in rows]) for name in problem.metrics - {"latency_s"}}
    metrics["latency_s"] = np.array([row["latency_s"]["median"] for row in rows])
    costs, violation = problem.costs(metrics)
    allowed = np.flatnonzero(violation == 0)
    best = set(allowed[non_dominated(costs[allowed])].tolist())
    verdicts = ("over a bound", "dominated", "on the front")
    return [verdicts[int(violation[i] == 0) + int(i in best)] for i in range(len(rows))]


def _digests(models: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(model).hexdigest() for name, model in models.items()}
