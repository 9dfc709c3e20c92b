"""What does a search on `cpu:fused` bring over one on `cpu`, with the same supernet and the same budget?

python -m experiments.fused_front --supernet RUN --out DIR [--evaluations 28] [--threads 1] [--seed 0]
python -m experiments.fused_front --runs FUSED CPU --out DIR

The supernet is that of a `nas train`; both searches take its weights, and are made below DIR unless they are there.
Each front is verified on its own run-time by its search: files in int8 by fused kernels; files in fp32, int8 and both
by ONNX Runtime.  Hypervolumes are of validation accuracy against latency, with one reference point for both.  Prints a
table, and writes both fronts in one plot and all numbers as JSON: DIR/fronts.html, DIR/fronts.json.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from rich.console import Console
from rich.table import Table

import nas
from latency.catalog import DEVICES
from latency.device import entry_of, parse_device
from nas.config import Settings
from nas.folder import read_record, read_settings
from nas.format import duration, percent
from nas.pareto import relative_hypervolume, shared_box
from quant_search.policy import describe
from supernet.atomic import write_json

Front = Sequence[Mapping[str, Any]]
"""The points of a `front.json`."""

FUSED, CPU = "cpu:fused", "cpu"
# What both runs must have in common for their fronts to tell of the devices alone.
_COMMON = ("space_fingerprint", "data_fingerprint", "supernet_fingerprint", "evaluations", "objectives", "seed")


def searched(supernet: Path, out: Path, evaluations: int, threads: int, seed: int) -> list[Path]:
    """The folders of both runs, made or gone on with."""
    folders = []
    for device in (FUSED, CPU):
        folder = out / device.replace(":", "-")
        wide = f"{device}{',' if ':' in device else ':'}threads={threads}" if threads > 1 else device
        nas.search(device=wide, supernet=supernet, evaluations=evaluations, baselines=False, seed=seed, out=folder)
        folders.append(folder)
    return folders


def check_alike(fused: Settings, cpu: Settings) -> None:
    """Refuses runs that differ in more than the device and its precisions.

    Raises:
        ValueError: with the first setting that differs.
    """
    ours, theirs = (parse_device(run.device) for run in (fused, cpu))
    for run, found, device in ((fused, ours, FUSED), (cpu, theirs, CPU)):
        if entry_of(found) != DEVICES[device]:
            raise ValueError(f"expected a run on {device}, got one on {run.device}: give --runs FUSED CPU")
    for name in ("threads", "batch"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ValueError(f"the devices {ours.name} and {theirs.name} differ in {name}: search both alike")
    if fused.supernet_fingerprint is None:
        raise ValueError("the runs trained a supernet each: search with --supernet, so that both have the same weights")
    for name in _COMMON:
        if (ours := getattr(fused, name)) != (theirs := getattr(cpu, name)):
            raise ValueError(f"the runs differ in {name}, {ours!r} and {theirs!r}: search both alike")


def costs(front: Front) -> np.ndarray:
    """Errors of validation and latencies (n, 2)."""
    return np.array([(1 - p["val_accuracy"], p["latency_s"]["median"]) for p in front])


def volumes(fronts: Mapping[str, Front]) -> dict[str, float]:
    """The share of the box around both fronts that each dominates."""
    box = shared_box([costs(front) for front in fronts.values()])
    return {name: relative_hypervolume(costs(front), *box) for name, front in fronts.items()}


def gains(fused: Front, cpu: Front) -> list[float]:
    """For each file on the front of `cpu` that one of `cpu:fused` is as accurate as: how many times as fast that is."""
    found = []
    for point in cpu:
        as_good = [p for p in fused if p["val_accuracy"] >= point["val_accuracy"]]
        if as_good:
            found.append(point["latency_s"]["median"] / min(p["latency_s"]["median"] for p in as_good))
    return found


def compared(fronts: Mapping[str, Front]) -> dict[str, Any]:
    """All that is said of the two, as JSON."""
    found, faster = volumes(fronts), gains(fronts[FUSED], fronts[CPU])
    return {
        "hypervolume": found,
        "ratio": found[FUSED] / found[CPU],
        "as_accurate": {
            "files": len(faster),
            "of": len(fronts[CPU]),
            "times_as_fast": math.exp(np.log(faster).mean()) if faster else None,
        },
        "fronts": fronts,
    }


def table(fronts: Mapping[str, Front]) -> Table:
    """Both fronts, from the fastest to the slowest file."""
    shown = Table("device", "validation", "test", "latency", "same file on cpu", "precision", title_justify="left")
    for name, front in fronts.items():
        for point in front:
            beside = point.get("baseline")
            shown.add_row(
                name,
                percent(point["val_accuracy"]),
                percent(point["accuracy"]),
                duration(point["latency_s"]["median"]),
                f"{duration(beside['latency_s'])} ({beside['factor']:.2f} x)" if beside else "",
                describe(point["policy"]),
            )
    return shown


def plot(fronts: Mapping[str, Front]) -> go.Figure:
    """Validation accuracy against latency."""
    figure = go.Figure(layout={"xaxis_title": "latency, µs", "yaxis_title": "validation accuracy, %"})
    for name, front in fronts.items():
        x = [1e6 * p["latency_s"]["median"] for p in front]
        y = [100 * p["val_accuracy"] for p in front]
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line_shape="hv")
    return figure.update_xaxes(type="log")


def study(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Compares two finished runs, prints the table and writes the plot and the numbers.

    Raises:
        ValueError: a run that is not finished, or runs that cannot be compared.
    """
    check_alike(*map(read_settings, folders))
    fronts = {name: read_record(folder)["front"] for name, folder in zip((FUSED, CPU), folders, strict=True)}
    result = compared(fronts)
    out.mkdir(parents=True, exist_ok=True)
    plot(fronts).write_html(out / "fronts.html")
    write_json(out / "fronts.json", result)
    Console(width=120).print(table(fronts))
    ours, theirs = (result["hypervolume"][name] for name in (FUSED, CPU))
    print(f"hypervolume {ours:.4f} on {FUSED}, {theirs:.4f} on {CPU}: ratio {result['ratio']:.3f}")
    faster = result["as_accurate"]
    if faster["files"]:
        said = f"{faster['times_as_fast']:.2f} times as fast, in the geometric mean"
        print(f"{FUSED} has a file as accurate as {faster['files']} of {faster['of']} on {CPU}: {said}")
    print(f"{out / 'fronts.html'}, {out / 'fronts.json'}")
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--supernet", type=Path, help="the folder of a `nas train`")
    source.add_argument("--runs", type=Path, nargs=2, metavar=("FUSED", "CPU"), help="finished runs of `nas search`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluations", type=int, default=28, help="of each search")
    parser.add_argument("--threads", type=int, default=1, help="of both devices")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        folders = given.runs or searched(given.supernet, given.out, given.evaluations, given.threads, given.seed)
        study(folders, given.out)
    except ValueError as error:
        sys.exit(f"fused_front: {error}")


if __name__ == "__main__":
    main()
