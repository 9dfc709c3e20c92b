"""Is a run that is carried to another device as good as a new search there?

python -m experiments.retarget --out DIR --device cpu:torch [--part source|retarget|search] [--epochs 4]
    [--evaluations 16] [--timings 50]

A small search on `cpu`; its run retargeted to the device; and beside it a whole new search on that device with the
same weights (the checkpoint is copied, so that only the search differs).  Both fronts are verified on the device, then
timed once more, all files interleaved, and their hypervolumes taken in one box.  Every part goes on where it was;
without `--part`, all three are done.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from latency.device import Device, entry_of, parse_device
from latency.harness import CAREFUL, measure_models
from nas.config import Settings
from nas.folder import RECORD, open_folder, read_record, read_settings
from nas.inherit import FILE as INHERITED
from nas.pareto import relative_hypervolume, shared_box
from nas.pipeline import run
from nas.progress import LiveReporter, Reporter
from nas.retarget import retarget
from nas.training import PACE_FILE
from supernet.checkpoint import FILE_NAME
from supernet.data import load_data

PARTS = ("source", "retarget", "search")


def search(folder: Path, settings: Settings, reporter: Reporter, source: Path | None = None) -> None:
    """A search in `folder`, with the weights of the run in `source` if given."""
    dataset = load_data(settings.data)
    if source is not None:
        settings = settings.model_copy(update={"space_fingerprint": read_settings(source).space_fingerprint})
    if source is not None and not open_folder(folder, settings):
        for name in (FILE_NAME, PACE_FILE, INHERITED):  # the last as a cache: accuracies of the same weights
            shutil.copy(source / name, folder / name)
    settings = settings.model_copy(update={"data_fingerprint": dataset.fingerprint})
    run(settings, settings.space, dataset, folder, reporter)


def costs(folders: dict[str, Path], device: Device) -> dict[str, np.ndarray]:
    """(1 - validation accuracy, latency in seconds) of each front (n, 2), all files timed interleaved."""
    points = [(name, folder, p) for name, folder in folders.items() for p in read_record(folder)["front"]]
    models = [(folder / p["file"]).read_bytes() for _, folder, p in points]
    timed = [m.median_s for m in measure_models(models, device, CAREFUL)]
    return {
        name: np.array([(1 - p["val_accuracy"], t) for (of, _, p), t in zip(points, timed, strict=True) if of == name])
        for name in folders
    }


def compared(folders: dict[str, Path], device: Device) -> dict[str, Any]:
    """Both fronts in one box."""
    carried, searched = (read_record(folders[name]) for name in ("retarget", "search"))
    fronts = costs({"retargeted": folders["retarget"], "searched": folders["search"]}, device)
    ideal, reference = shared_box(list(fronts.values()))
    volumes = {name: relative_hypervolume(front, ideal, reference) for name, front in fronts.items()}
    return {
        "device": searched["device"]["name"],
        "hypervolume": volumes,
        "ratio": volumes["retargeted"] / volumes["searched"],
        "points": {name: len(front) for name, front in fronts.items()},
        "timings": carried["retarget"]["timings"],
        "verified_files": {"retargeted": carried["verify"]["candidates"], "searched": searched["verify"]["candidates"]},
        "held_out": {
            "retargeted": carried["profile"]["held_out"],
            "source": carried["profile"]["source"],
            "searched": searched["profile"]["held_out"],
        },
        "seconds": {"retargeted": carried["seconds"], "searched": searched["seconds"]},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu:torch")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--timings", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = parse_device(arguments.device)
    fingerprint = load_data("digits").fingerprint
    settings = Settings(
        preset="tiny",
        data_fingerprint=fingerprint,
        seed=arguments.seed,
        epochs=arguments.epochs,
        evaluations=arguments.evaluations,
        baselines=False,
    )
    there = settings.model_copy(update={"device": device.name, "precisions": entry_of(device).precisions})
    name = device.name.replace(":", "-")
    folders = {
        "source": arguments.out / "source",
        "retarget": arguments.out / f"{name}-retargeted",
        "search": arguments.out / f"{name}-searched",
    }
    with LiveReporter(Console(stderr=True)) as reporter:
        for part in PARTS if arguments.part is None else (arguments.part,):
            if part == "source":
                search(folders["source"], settings, reporter)
            elif part == "retarget":
                retarget(folders["source"], device.name, folders["retarget"], reporter, timings=arguments.timings)
            else:
                search(folders["search"], there, reporter, folders["source"])
    if all((folder / RECORD).exists() for folder in folders.values()):
        print(json.dumps(compared(folders, device), indent=1))


if __name__ == "__main__":
    main()
