"""Latency and energy of ONNX files, whoever made them: `nas.measure`, `nas.compare` and the command `nas measure`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data

from latency.compare import Comparison
from latency.contention import Contention
from latency.device import Device, at_batch, parse_device
from latency.energy import EnergyMeasurement, counters_of
from latency.harness import (
    CAREFUL,
    CAREFUL_PIECES,
    COMPARING,
    QUICK,
    compare_models,
    measure_energies,
    measure_models,
)
from latency.measurement import Measurement
from latency.store import MeasurementStore
from latency.worker import Effort
from nas.errors import CannotBeDone
from nas.progress import Reporter, SilentReporter, Stage

T = TypeVar("T")
_GLANCE = Effort(rounds=1, most_rounds=1, samples=1)


def measure(
    path: Path | str, device: str = "cpu", *, batch: int | None = None, quick: bool = False, remeasure: bool = False
) -> Measurement:
    """The latency of an ONNX file with one float32 input of fixed sizes besides the batch, measured carefully.

    What was measured before, in the same way on the same machine, comes from the user's store.

    Args:
        batch: images in one call; by default what the device says (`cpu:batch=8`), else one.
        quick: a tenth of the effort, to rank by.
        remeasure: measures what the store has anew.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown device, or a file that cannot be loaded or fed.
        CannotBeDone: the run-time fails on the file.
    """
    with MeasurementStore(remeasure=remeasure) as store:
        effort = QUICK if quick else CAREFUL
        return measure_files([Path(path)], placed(device, batch), store, SilentReporter(), effort)[0]


def measure_energy(
    path: Path | str, device: str = "cpu", *, batch: int | None = None, remeasure: bool = False
) -> EnergyMeasurement:
    """The energy of calls of an ONNX file, of CPU packages or GPU board; what was measured before comes from the store.

    Args:
        batch, remeasure: as of `measure`.

    Raises:
        ValueError: energy cannot be measured on the device, or as of `measure`.
        FileNotFoundError, CannotBeDone: as of `measure`.
    """
    with MeasurementStore(remeasure=remeasure) as store:
        return measure_energy_files([Path(path)], placed(device, batch), store, SilentReporter())[0]


def compare(path_a: Path | str, path_b: Path | str, device: str = "cpu", *, batch: int | None = None) -> Comparison:
    """Whether the second ONNX file is faster or slower than the first, or whether there is no difference to be seen.

    Both are timed interleaved, the first one twice as a control, and always anew.

    Raises:
        FileNotFoundError, ValueError, CannotBeDone: as of `measure`.
    """
    return compare_files(Path(path_a), Path(path_b), placed(device, batch), SilentReporter())


def placed(device: str, batch: int | None = None) -> Device:
    """The device of this name, with so many images in one call where that is given.

    Raises:
        ValueError: an unknown device, no images, or another number than the device's own.
    """
    found = parse_device(device)
    if batch is not None and found.batch not in (1, batch):
        raise ValueError(
            f"device {device!r} has {found.batch} images in a call, got a batch of {batch}: give one of them"
        )
    return found if batch is None else at_batch(found, batch)


def measure_files(
    paths: Sequence[Path],
    device: Device,
    store: MeasurementStore,
    reporter: Reporter,
    effort: Effort = CAREFUL,
) -> list[Measurement]:
    """The latency of each file, all timed interleaved; see `measure`."""
    models = [read_model(path) for path in paths]
    with reporter.stage("measure") as stage:
        rounds = count_rounds(stage, 0, effort)
        work = lambda: measure_models(models, device, effort, store, rounds)  # noqa: E731
        return _naming(paths, models, device, work)


def measure_energy_files(
    paths: Sequence[Path], device: Device, store: MeasurementStore, reporter: Reporter
) -> list[EnergyMeasurement]:
    """The energy of each file, one after the other; see `measure_energy`."""
    counters_of(device.kind)
    models = [read_model(path) for path in paths]
    with reporter.stage("energy", len(models)) as stage:
        work = lambda: measure_energies(models, device, CAREFUL_PIECES, store, stage.advance)  # noqa: E731
        return _naming(paths, models, device, work)


def compare_files(a: Path, b: Path, device: Device, reporter: Reporter, seed: int = 0) -> Comparison:
    """How `b` compares with `a`; see `compare`."""
    models = [read_model(a), read_model(b)]
    with reporter.stage("compare") as stage:
        rounds = count_rounds(stage, 0, COMPARING)
        work = lambda: compare_models(models[0], models[1], device, COMPARING, rounds, seed)  # noqa: E731
        return _naming([a, b], models, device, work)


def count_rounds(stage: Stage, others: int, effort: Effort = CAREFUL) -> Callable[[], None]:
    """What a timing is to call after each round, in a stage of `others` steps besides its rounds."""
    stage.expect(others + effort.rounds)
    done = itertools.count(1)

    def count() -> None:
        if (rounds := next(done)) > effort.rounds:  # the core was disturbed
            stage.expect(others + rounds)
        stage.advance()

    return count


def say_busy(reporter: Reporter, what: str, contentions: Sequence[Contention | None]) -> None:
    """Warns, where the machine was busy while `what` was measured."""
    contention = Contention.together(c for c in contentions if c is not None)
    if contention is not None and contention.warning:
        reporter.message(f"{what}: {contention.warning}")


def read_model(path: Path) -> bytes:
    """The bytes of an ONNX file, with the weights that it keeps in files beside it.

    Raises:
        FileNotFoundError: no such file, or none of its weights.
        ValueError: the weights do not fit into one file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no model file {path}")
    content = path.read_bytes()
    try:
        graph = onnx.load_model_from_string(content).graph
    except DecodeError:
        return content  # the run-time says what is wrong with it
    if not any(map(uses_external_data, graph.initializer)):
        return content
    try:
        whole: bytes = onnx.load_model(path).SerializeToString()
    except onnx.checker.ValidationError as error:
        raise FileNotFoundError(f"{path} lacks the file of its weights: {error}") from error
    return whole


def _naming(paths: Sequence[Path], models: Sequence[bytes], device: Device, work: Callable[[], T]) -> T:
    """What `work` returns; its errors name the file that they are about."""
    try:
        return work()
    except (ValueError, RuntimeError) as error:
        for path, model in zip(paths, models, strict=True):
            try:
                measure_models([model], device, _GLANCE)
            except ValueError as found:
                raise ValueError(f"{path}: {found}") from error
            except RuntimeError as found:
                raise CannotBeDone(f"{path}: {found}") from error
        raise
