"""A network in int8 as a folder that needs a C++ compiler and nothing else: `nas export --format native`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latency.kernels.intake import program_of
from latency.kernels.source import files_of
from nas.folder import read_record, read_settings
from nas.format import duration, percent
from nas.results import card_of, check_new, point_of, read_model
from nas.weights import run_data
from supernet.atomic import write_folder
from supernet.data import Dataset

README, CARD = "README.md", "card.json"
_SHOWN = 3
_README = """\
# {title}

A network in int8, as C++ source and weights. A C++17 compiler (GCC or Clang) builds it, and nothing else is needed:

    c++ -O3 -march=native hwnas.cpp example.cpp -o example && ./example

or `cmake -B build && cmake --build build && ./build/example`. Compilers before GCC 11 and Clang 16 also need
`-std=c++17`, and glibc before 2.34 `-pthread`. Building takes about half a minute. The example runs `sample-input.bin`
and says whether the outputs are those of `sample-output.bin`, bit for bit, as they are on every machine: run it first.

* `hwnas.h` has three functions: `hwnas_open`, `hwnas_run` for any number of images in any number of threads (on Linux
  no more than cores; one that finds itself on the core of another leaves it), and `hwnas_close`. `hwnas.cpp` runs any
  such network: link it once, and open as many `weights.bin` as you like.
* Input: {input} float32 numbers an image, in the order (channel, row, column) of sizes ({channels}, {height}, {width});
  images of a batch one after the other.
* Output: {outputs} float32 numbers an image, one for each class; the largest is the predicted class.
{said}
On x86-64 the best of AVX-512 VNNI, AVX-VNNI and AVX2 is chosen as the program runs, so the binary also runs on older
processors if it is built without `-march=native`; elsewhere, on Arm too, portable code is. Little-endian machines only.
Leave `-ffast-math` out: it would change outputs.

The source is part of hwnas (Apache-2.0).
"""


def export_file(file: Path | str, to: Path | str, *, image: np.ndarray | None = None, seed: int = 0) -> dict[str, Any]:
    """Writes an ONNX file in int8 (QDQ form) as a folder that runs without this toolkit; what was written, as JSON.

    Args:
        to: the folder to make.
        image: float32 (1, c, h, w), the sample that is written with its outputs; random numbers by default.
        seed: of these.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no ONNX model, or nodes that there are no kernels for, by name; a folder that holds something.
        OSError: the folder cannot be written.
    """
    file, to = Path(file), Path(to)
    check_new(to)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}: give FILE.onnx or a run folder")
    return write_native(file.read_bytes(), to, str(file), image=image, seed=seed)


def export_point(folder: Path, point: int, to: Path, seed: int = 0, dataset: Dataset | None = None) -> dict[str, Any]:
    """Writes one point of a run as a folder that runs without this toolkit; what was written, as JSON.

    Args:
        dataset: the data, for a run that was started from Python with them.

    Raises:
        ValueError: no finished run, no such point, one with blocks in fp32, or a folder that holds something already.
        OSError: the folder cannot be written.
    """
    record, settings = read_record(folder), read_settings(folder)
    entry = point_of(record, point)
    check_new(to)
    whole = [i for i, other in enumerate(record["front"]) if not _in_floats(other["policy"])]
    points = f"export point {' or '.join(map(str, whole))}" if whole else "search with --precision int8"
    check_int8(entry["policy"], f"point {point}", points)
    dataset = run_data(settings, dataset)
    card = card_of(record, settings, dataset, entry)
    said = _said(entry, record, dataset)
    image = np.ascontiguousarray(dataset.x_test[:1])
    model = read_model(folder, entry["file"])
    return write_native(model, to, f"Point {point} of {folder}", said, card, image, seed)


def write_native(
    model: bytes,
    to: Path,
    title: str,
    said: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    image: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes the folder `to`, whole or not at all; what was written, as JSON.

    Args:
        title: of its README.
        said: what the README says besides.
        card: written as `card.json`.
        image: the sample, as of `export_file`.

    Raises:
        ValueError: no ONNX model, nodes that there are no kernels for, by name, an image of another shape, or the
            current folder.
        OSError: the folder cannot be written.
    """
    if to.resolve() == Path.cwd():  # it would be replaced under whoever stands in it
        raise ValueError(f"{to} is the current folder: name another one with --to")
    try:
        program = program_of(model)
    except ValueError as error:
        raise ValueError(f"{title} cannot be native: {error}") from error
    if image is None:
        image = np.random.default_rng(seed).standard_normal((1, *program.input_shape)).astype(np.float32)
    contents = files_of(program, image)
    channels, height, width = program.input_shape
    outputs = len(contents["sample-output.bin"]) // 4
    readme = _README.format(
        title=title,
        input=image.size,
        channels=channels,
        height=height,
        width=width,
        outputs=outputs,
        said="".join(f"* {line}\n" for line in said),
    )
    contents[README] = readme.encode()
    if card is not None:
        contents[CARD] = (json.dumps(card, indent=1, allow_nan=False) + "\n").encode()
    write_folder(to, contents)
    return {
        "to": str(to),
        "files": sorted(contents),
        "input_shape": list(program.input_shape),
        "outputs": outputs,
        "weights_bytes": len(contents["weights.bin"]),
        **({} if card is None else {"card": dict(card)}),
    }


def check_int8(policy: Mapping[str, str], what: str, instead: str) -> None:
    """Refuses what computes in fp32 somewhere.

    Args:
        policy: block name to precision.
        instead: what to do.

    Raises:
        ValueError: with the first few blocks in fp32.
    """
    if floats := _in_floats(policy):
        more = f" and {len(floats) - _SHOWN} more" if len(floats) > _SHOWN else ""
        raise ValueError(
            f"{what} has {len(floats)} of {len(policy)} blocks in fp32 ({', '.join(floats[:_SHOWN])}{more}), "
            f"and native kernels compute in int8 throughout: {instead}"
        )


def _in_floats(policy: Mapping[str, str]) -> list[str]:
    return [block for block, precision in policy.items() if precision == "fp32"]


def _said(entry: Mapping[str, Any], record: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """What is known of a point: its pixels, and what was measured."""
    device, latency = record["device"], entry["latency_s"]
    mean, std = ([f"{value:.6g}" for value in values] for values in (dataset.mean, dataset.std))
    how = "predicted, not measured," if record.get("predicted") else "measured"
    images = f"{len(dataset.x_test)} test images of {dataset.name}"
    return [
        f"Pixels: (value - mean) / std in each channel, with mean {', '.join(mean)} and std {', '.join(std)}; "
        "values of 8 bits are divided by 255 before.",
        f"Accuracy: {percent(entry['accuracy'])} on {images}, of the ONNX file that these weights are from.",
        f"Latency: {duration(latency['median'])} a call, {how} on the run's device, {device['name']} "
        f"({device['environment']['cpu']}).",
    ]
