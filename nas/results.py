"""What can be done with a finished run: verify it again, export a point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from latency.blocks import BlockTracer
from latency.compare import judge
from latency.device import Device, environment, fingerprint, parse_device
from latency.harness import CAREFUL
from latency.lowering import INPUT, OUTPUT
from latency.runtimes.onnx_to_torch import to_torch
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.baseline import Baseline, measure_both
from nas.candidate import Builder
from nas.config import Settings
from nas.errors import CannotBeDone
from nas.finetune import unrounded_file
from nas.folder import read_record, read_settings
from nas.measuring import count_rounds, say_busy
from nas.progress import Reporter
from nas.spec import SpaceLike
from nas.weights import run_data, trained_network
from quant_search.policy import joint_space
from search_spaces.network import find_blocks
from search_spaces.space import Architecture
from supernet.atomic import write_bytes, write_json
from supernet.data import Dataset

_TOLERANCE = 1e-3  # between torch's and ONNX Runtime's logits, relative to the largest


def verify_again(folder: Path, reporter: Reporter, seed: int, dataset: Dataset | None = None) -> list[dict[str, Any]]:
    """Measures every file of the front again, on the device and data of the run, and says what moved.

    A latency has moved if the new median lies further from the old one than 3 %, and their intervals are apart.

    Args:
        dataset: of the run, where its settings alone do not lead to it.

    Raises:
        ValueError: no finished run, a file that is missing, data that are not those of the run, or predictions for
            another machine.
    """
    record = read_record(folder)
    settings = read_settings(folder)
    device = parse_device(settings.device)
    _check_place(folder, record, settings, device)
    dataset = run_data(settings, dataset)
    models = [read_model(folder, point["file"]) for point in record["front"]]
    rows = []
    with reporter.stage("verify") as stage:
        rounds = count_rounds(stage, len(models))
        measured, baselines = measure_both(models, device, CAREFUL, None, rounds)
        for i, (point, model, measurement) in enumerate(zip(record["front"], models, measured, strict=True)):
            baseline = baselines[i]
            session = open_session(model, device)
            found = accuracy(session, dataset.x_test, dataset.y_test)
            low, high = measurement.timing.ci95_s(seed, undisturbed=True)
            was = point["latency_s"]
            rows.append(
                {
                    "point": i,
                    "file": point["file"],
                    "accuracy": found,
                    "latency_s": {
                        "median": measurement.median_s,
                        "ci95": [low, high],
                        "contention": measurement.contention and measurement.contention.plain(),
                    },
                    **({"baseline": baseline.plain(measurement.median_s)} if baseline else {}),
                    "was": {"accuracy": point["accuracy"], "latency_s": was},
                    "moved": measurement.median_s / was["median"] - 1,
                    "verdict": _verdict(point, found, measurement.median_s, (low, high), baseline),
                }
            )
            stage.advance()
    say_busy(reporter, "verify", [measurement.contention for measurement in measured])
    return rows


def _check_place(folder: Path, record: Mapping[str, Any], settings: Settings, device: Device) -> None:
    """Refuses to measure what was predicted for another machine.

    Raises:
        ValueError: this is another one.
    """
    if settings.profile is not None and fingerprint(device) != record["device"]["fingerprint"]:
        raise ValueError(
            f"the latencies of {folder} are predictions for {device.name} on another machine "
            f"({record['device']['fingerprint']}, this is {fingerprint(device)}): verify the run there, "
            f"or pack it with `nas verify {folder} --bundle DIR`"
        )


def _verdict(
    point: Mapping[str, Any],
    found: float,
    median_s: float,
    ci95_s: tuple[float, float],
    baseline: Baseline | None = None,
) -> str:
    if found != point["accuracy"]:
        return "accuracy differs"
    if baseline is not None and not baseline.beaten_by(median_s):
        return f"not faster than on {baseline.device} now"
    was = point["latency_s"]
    ratios = (ci95_s[0] / was["ci95"][1], ci95_s[1] / was["ci95"][0])  # without 1 where the intervals are apart
    verdict = judge(median_s / was["median"], ratios)
    return "holds" if verdict == "no difference" else f"{verdict} now"


def read_model(folder: Path, file: str) -> bytes:
    """The bytes of a file of a run's front.

    Raises:
        ValueError: it is missing.
    """
    path = folder / file
    if not path.exists():
        raise ValueError(f"{path} is missing: the run's front was moved or deleted")
    return path.read_bytes()


def point_of(record: Mapping[str, Any], point: int) -> dict[str, Any]:
    """A point of a run's front, by its number.

    Raises:
        ValueError: there is no such point.
    """
    front: list[dict[str, Any]] = record["front"]
    if not 0 <= point < len(front):
        raise ValueError(f"the run has points 0 to {len(front) - 1}, got {point}")
    return front[point]


def check_new(to: Path) -> None:
    """Refuses a folder that holds something.

    Raises:
        ValueError: it does, or it is a file.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"{to} is not an empty folder: name another one with --to")


def export_point(
    folder: Path, point: int, to: Path, seed: int, space: SpaceLike | None = None, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Writes one point of a run for deployment: `model.onnx`, `model.pt2` and `card.json`; returns the card.

    `model.onnx` is the file that was verified; `model.pt2` is the same network in fp32 as a `torch.export`
    program.  Both load without this toolkit.  Their logits are compared on random images.

    Args:
        space, dataset: the class and the data, for a run that was started from Python with them.

    Raises:
        ValueError: no finished run, no such point, or a folder that holds something already.
        CannotBeDone: the two files disagree.
    """
    record, settings = read_record(folder), read_settings(folder)
    entry = point_of(record, point)
    check_new(to)
    model = read_model(folder, entry["file"])
    dataset = run_data(settings, dataset)
    trained_on = unrounded_file(folder, entry)
    if trained_on is not None:
        network: torch.nn.Module = to_torch(onnx.load(trained_on)).eval()
    else:
        network = _torch_network(folder, settings, dataset, entry, space)
    shape = dataset.image_shape
    images = torch.from_numpy(np.random.default_rng(seed).standard_normal((4, *shape)).astype(np.float32))
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(network, (images,), dynamic_shapes=(batch,))
    with torch.no_grad():
        expected = network(images).numpy()
    got = open_session(model, parse_device("cpu")).run(images.numpy())
    difference = float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-9))
    if set(entry["policy"].values()) <= {"fp32"} and difference > _TOLERANCE:
        raise CannotBeDone(f"{entry['file']} and the torch network differ by {difference:.2g} of the largest logit")
    card = {**card_of(record, settings, dataset, entry), "difference_to_torch_fp32": difference}
    to.mkdir(parents=True, exist_ok=True)
    write_bytes(to / "model.onnx", model)
    torch.export.save(program, to / "model.pt2")
    write_json(to / "card.json", card)
    return card


def _torch_network(
    folder: Path, settings: Settings, dataset: Dataset, entry: Mapping[str, Any], space: SpaceLike | None
) -> torch.nn.Module:
    """The plain calibrated network of a point, from the run's checkpoint."""
    network, architectures = trained_network(folder, settings, dataset, space)
    joint = joint_space(architectures, find_blocks(network), settings.precisions)
    policy = {f"{block}.precision": p for block, p in entry["policy"].items()} if joint is not architectures else {}
    arch: Architecture = joint.architecture({**entry["arch"], **policy})
    return Builder(network, BlockTracer(network, dataset.image_shape), dataset, settings.precisions).network(
        arch, entry["policy"]
    )


def card_of(
    record: Mapping[str, Any], settings: Settings, dataset: Dataset, entry: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a point of a run, with its inputs and outputs, as JSON."""
    here = parse_device("cpu")  # the run's device need not be here
    return {
        **{key: entry[key] for key in entry if key != "file"},
        "input": {"name": INPUT, "shape": ["batch", *dataset.image_shape], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": ["batch", dataset.num_classes]},
        "preprocessing": {"mean": list(dataset.mean), "std": list(dataset.std), "formula": "(x - mean) / std"},
        "data": record["data"],
        "settings": settings.model_dump(),
        "device": record["device"],
        "exported_on": {"fingerprint": fingerprint(here), "onnxruntime": environment().onnxruntime},
    }
