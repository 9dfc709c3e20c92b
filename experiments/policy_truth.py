"""Are the policies on a front faster than none, and as accurate as fake quantization says?

python -m experiments.policy_truth RUN [--out FILE] [--passes 2]

RUN is a finished `nas search` over precisions.  The network of each point is built again in each precision throughout,
and all files are timed interleaved, in sessions of their own: none of those by which the search chose counts.  Of
uniform policies that are at least as accurate on validation images, the fastest is what a policy must not be slower
than.  Accuracy by fake quantization is that of the torch twin of a file, which rounds where the file does; that of the
file is ONNX Runtime's.  The deviation of each file's time between passes is what the timings can resolve.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData
from rich.console import Console
from rich.table import Table

from latency.blocks import BlockTracer
from latency.device import Device, parse_device
from latency.harness import CAREFUL, measure_models
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.candidate import RANGE_IMAGES, Builder
from nas.folder import read_record, read_settings
from nas.results import read_model
from nas.weights import run_data, trained_network
from quant_search.policy import describe, joint_space, uniforms
from quant_search.ranges import activation_ranges
from quant_search.realise import nodes_in_int8
from quant_search.twin import Twin
from search_spaces.network import Block, find_blocks
from supernet.atomic import write_json
from supernet.calibrate import accuracy as torch_accuracy
from supernet.calibrate import calibration_images
from supernet.data import Dataset

NO_RANGES = TensorsData(CalibrationMethod.MinMax, {})


@dataclass(frozen=True)
class Row:
    """A point of the front: its file's name, policy and accuracies, and the files of its network."""

    file: str
    policy: str
    fake: float
    accuracies: Mapping[str, float]
    files: Mapping[str, bytes]


def rows_of(folder: Path) -> tuple[list[Row], Device]:
    """The points of a run, their twins, and the device they are for.

    Raises:
        ValueError: a run of one precision, or whose files were trained on, so that twins would have other weights.
    """
    record, settings = read_record(folder), read_settings(folder)
    if len(settings.precisions) == 1 or settings.finetune:
        why = "trained its files on" if settings.finetune else f"is in {settings.precisions[0]} alone"
        raise ValueError(f"the run in {folder} {why}, and has no policies to look at: name a search over precisions")
    dataset, device = run_data(settings, None), parse_device(settings.device)
    network, architectures = trained_network(folder, settings, dataset)
    blocks = find_blocks(network)
    space = joint_space(architectures, blocks, settings.precisions)
    builder = Builder(network, BlockTracer(network, dataset.image_shape), dataset, settings.precisions)
    share = functools.cache(lambda file: accuracy(open_session(file, device), dataset.x_val, dataset.y_val))
    found = []
    for point in record["front"]:
        arch = space.architecture({**point["arch"], **{f"{b}.precision": p for b, p in point["policy"].items()}})
        files = {"own": read_model(folder, point["file"])}
        files |= {name: builder.build(twin).model for name, twin in uniforms(arch).items()}
        shares = {name: share(file) for name, file in files.items()}  # of which some are the same
        plain = to_onnx(builder.network(arch, point["policy"]), dataset.image_shape)
        fake = _fake_accuracy(plain, blocks, point["policy"], dataset)
        found.append(Row(point["file"], describe(point["policy"]), fake, shares, files))
    return found, device


def _fake_accuracy(
    plain: onnx.ModelProto, blocks: Sequence[Block], policy: Mapping[str, str], dataset: Dataset
) -> float:
    """Validation accuracy of the torch twin of a file."""
    members = {block.name: block.members for block in blocks}
    groups = {name: nodes_of(plain, members[name]) for name in policy}
    nodes = nodes_in_int8(groups, policy)
    images = calibration_images(dataset)[:RANGE_IMAGES]
    ranges = activation_ranges(plain, images, nodes=nodes) if nodes else NO_RANGES
    with torch.no_grad():
        return torch_accuracy(Twin(plain, groups, policy, ranges), dataset.x_val, dataset.y_val)


def timed(rows: Sequence[Row], device: Device, passes: int) -> dict[bytes, np.ndarray]:
    """Seconds (passes,) of each file."""
    files = list(dict.fromkeys(file for row in rows for file in row.files.values()))
    seconds = [[m.median_s for m in measure_models(files, device, CAREFUL)] for _ in range(passes)]
    return dict(zip(files, np.array(seconds).T, strict=True))


def compared(row: Row, seconds: Mapping[bytes, np.ndarray]) -> dict[str, Any]:
    """A point beside its uniform twins, by geometric means over passes."""
    times = {name: float(np.exp(np.log(seconds[file]).mean())) for name, file in row.files.items()}
    others = {name: s for name, s in times.items() if name != "own"}
    as_accurate = [s for name, s in others.items() if row.accuracies[name] >= row.accuracies["own"]]
    return {
        "file": row.file,
        "policy": row.policy,
        "latency_s": times["own"],
        "ratios": {name: times["own"] / s for name, s in others.items()},
        "to_fastest": times["own"] / min(others.values()),
        "to_fastest_as_accurate": times["own"] / min(as_accurate) if as_accurate else None,
        "accuracies": dict(row.accuracies),
        "fake_accuracy": row.fake,
        "miss": row.accuracies["own"] - row.fake,
    }


def main() -> None:
    """Prints a table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--passes", type=int, default=2)
    arguments = parser.parse_args()
    rows, device = rows_of(arguments.run)
    seconds = timed(rows, device, arguments.passes)
    points = [compared(row, seconds) for row in rows]
    control = float(np.median([np.ptp(np.log(s)) for s in seconds.values()]))
    table = Table("policy", "us", "to fastest uniform", "to fastest as accurate", "file %", "fake %")
    for point in points:
        ratio = point["to_fastest_as_accurate"]
        table.add_row(
            point["policy"],
            f"{1e6 * point['latency_s']:.0f}",
            f"{point['to_fastest']:.3f}",
            "" if ratio is None else f"{ratio:.3f}",
            f"{100 * point['accuracies']['own']:.2f}",
            f"{100 * point['fake_accuracy']:.2f}",
        )
    Console(width=120).print(table)
    print(f"between passes a file's time differs by {100 * control:.1f} % in the middle")
    if arguments.out:
        write_json(arguments.out, {"points": points, "between_passes": control})


if __name__ == "__main__":
    main()
