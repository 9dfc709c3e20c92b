"""Measuring model files on a device, through the store: what was measured once is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from latency.compare import Comparison, compare
from latency.contention import Contention
from latency.device import Device, fingerprint
from latency.energy import EnergyMeasurement
from latency.measurement import Measurement, settings_of, subject_of
from latency.parts import Parts, PartsEffort
from latency.store import MeasurementStore
from latency.worker import Effort, Worker

T = TypeVar("T")
# To be raised when the way of measuring changes: what was measured otherwise is not to be reused.
_METHOD, _PARTS_METHOD, _ENERGY_METHOD = 4, 3, 1
_WORKERS: dict[tuple[str, ...], Worker] = {}  # one for each kind of device and run-time, and for two side by side

QUICK = Effort(rounds=2, most_rounds=6, samples=12)  # to rank by, and to fit models on
CAREFUL = Effort(rounds=20, most_rounds=60, samples=25)  # for the numbers that are reported
COMPARING = Effort(rounds=20, most_rounds=20, samples=6)  # many sessions: their luck is what differs most
QUICK_PIECES, CAREFUL_PIECES = 3, 12  # of the energy of a model: to fit on and to rank by, and to be reported
PARTS = PartsEffort(free=2.5, calls=6, seconds=3.0)
AT_ONCE = 16  # models that are timed by parts in turn, and are in memory meanwhile
_AT_ONCE_BYTES = 2**28


def measure_models(
    models: Sequence[bytes],
    device: Device,
    effort: Effort,
    store: MeasurementStore | None = None,
    on_round: Callable[[], object] = lambda: None,
) -> list[Measurement]:
    """The latency of each model; those that the store does not have are timed interleaved, and stored.

    What the store has and is doubtful is timed again, and the better of both kept.

    Args:
        on_round: as of `Worker.measure`; not for what the store has.

    Raises:
        ValueError: a model that cannot be loaded, or not be fed with the device's batch.
        RuntimeError: a model that cannot be run.
        ChildProcessError: the process that measures died.
    """
    settings = settings_of({"batch": device.batch, "method": _METHOD, **asdict(effort)})
    place = fingerprint(device)
    subjects = [subject_of(model) for model in models]
    known = {s: found for s in subjects if store and (found := store.get(s, place, settings))}
    missing = {
        s: model for s, model in zip(subjects, models, strict=True) if s not in known or known[s].timing.doubtful
    }
    if missing:
        timed = worker(device).measure(list(missing.values()), device, effort, on_round)
        for subject, timing in zip(missing, timed.timings, strict=True):
            measured = Measurement(subject, device.name, place, timing, settings, timed.contention)
            before = known.get(subject, measured)
            known[subject] = measured if timing.is_better_than(before.timing) else before
            if store:
                store.put(known[subject])
    return [known[s] for s in subjects]


def measure_beside(
    models: Sequence[bytes],
    device: Device,
    other: Device,
    effort: Effort,
    store: MeasurementStore | None = None,
    on_round: Callable[[], object] = lambda: None,
) -> list[tuple[Measurement, Measurement]]:
    """The latency of each model on two devices of this machine, all timed interleaved in one process.

    Of more than one thread each device has a process of its own: those of a run-time keep cores busy after a call.

    Args:
        on_round: as of `Worker.measure`, of the first device; not for what the store has.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `measure_models`, of either device.
    """
    if device.threads > 1:
        first = measure_models(models, device, effort, store, on_round)
        return list(zip(first, measure_models(models, other, effort, store), strict=True))
    same = {"batch": device.batch, "method": _METHOD, **asdict(effort)}
    keys = [
        (here, fingerprint(here), settings_of({**same, "beside": there.name}))
        for here, there in ((device, other), (other, device))
    ]
    subjects = [subject_of(model) for model in models]
    known: dict[str, tuple[Measurement, Measurement]] = {}
    if store:
        for subject in subjects:
            found = [store.get(subject, mark, settings) for _, mark, settings in keys]
            if found[0] and found[1]:
                known[subject] = found[0], found[1]
    missing = {
        s: model
        for s, model in zip(subjects, models, strict=True)
        if s not in known or any(m.timing.doubtful for m in known[s])
    }
    if missing:
        timed = worker(device, other).measure(list(missing.values()), device, effort, on_round, other)
        for i, subject in enumerate(missing):
            here, there = (
                Measurement(subject, place.name, mark, timing, settings, timed.contention)
                for (place, mark, settings), timing in zip(keys, timed.timings[i :: len(missing)], strict=True)
            )
            before = known.get(subject, (here, there))
            known[subject] = min((here, there), before, key=lambda pair: sum(m.median_s for m in pair))
            if store:
                for measurement in known[subject]:
                    store.put(measurement)
    return [known[s] for s in subjects]


def measure_parts(
    models: Sequence[bytes],
    device: Device,
    effort: PartsEffort,
    store: MeasurementStore | None = None,
    on_contention: Callable[[Contention], object] = lambda _: None,
    references: Sequence[bytes] = (),
) -> list[Parts]:
    """Each model timed by its nodes; those that the store does not have in turn with one another.

    What was hardly left alone is timed again, and the better of both is kept.

    Args:
        on_contention: told who else used the machine meanwhile; not for what the store has.
        references: models that tell how fast the machine is in the minute of the measurement.

    Raises:
        ValueError: a model that cannot be loaded, or a device whose run-time does not tell the times of nodes.
        RuntimeError, ChildProcessError: as of `measure_models`.
    """
    against = " ".join(map(subject_of, references))
    settings = settings_of(
        {"parts": True, "method": _PARTS_METHOD, "free": effort.free, "calls": effort.calls, "references": against}
    )
    place = fingerprint(device)
    subjects = [subject_of(model) for model in models]
    records = {s: store.get_record(s, place, settings) for s in subjects} if store else {}
    known = {s: found for s, record in records.items() if (found := _read(record, Parts.of))}
    poor = {s for s, found in known.items() if found.hardly_known and found.free < effort.free}
    missing = {s: m for s, m in zip(subjects, models, strict=True) if s not in known or s in poor}
    if missing:
        timed, contention = worker(device).parts(list(missing.values()), device, effort, references)
        on_contention(contention)
        for subject, parts in zip(missing, timed, strict=True):
            if subject in known and known[subject].free >= parts.free:
                continue
            known[subject] = parts
            if store:
                store.put_record(subject, place, settings, json.dumps(parts.plain(), separators=(",", ":")))
    return [known[s] for s in subjects]


def measure_energies(
    models: Sequence[bytes],
    device: Device,
    pieces: int,
    store: MeasurementStore | None = None,
    on_model: Callable[[], object] = lambda: None,
) -> list[EnergyMeasurement]:
    """The energy of calls of each model, as `energy_of` has it; those that the store does not have one by one.

    Args:
        on_model: called as each model is done; not for what the store has.

    Raises:
        ValueError: a model that cannot be loaded, or there are no counters that can be read.
        RuntimeError, ChildProcessError: as of `measure_models`.
    """
    settings, place = settings_of({"energy_pieces": pieces, "method": _ENERGY_METHOD}), fingerprint(device)
    subjects = [subject_of(model) for model in models]
    records = {s: store.get_record(s, place, settings) for s in subjects} if store else {}
    known = {s: found for s, record in records.items() if (found := _read(record, EnergyMeasurement.of))}
    missing = {s: model for s, model in zip(subjects, models, strict=True) if s not in known}
    if missing:
        taken = worker(device).energy(list(missing.values()), device, pieces, on_model)
        for subject, energy in zip(missing, taken, strict=True):
            known[subject] = energy
            if store:
                store.put_record(subject, place, settings, json.dumps(energy.plain()))
    return [known[s] for s in subjects]


def grouped(models: Iterable[tuple[T, bytes]]) -> Iterator[list[tuple[T, bytes]]]:
    """What is timed by parts in turn: some models, each with whatever belongs to it, and few where they are large."""
    group: list[tuple[T, bytes]] = []
    for item in models:
        if group and (len(group) == AT_ONCE or sum(len(model) for _, model in (*group, item)) > _AT_ONCE_BYTES):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _read(record: str | None, of: Callable[[Mapping[str, Any]], T]) -> T | None:
    """What a record holds; one that this version cannot read counts as absent."""
    try:
        return of(json.loads(record)) if record else None
    except (KeyError, TypeError, ValueError):
        return None


def compare_models(
    a: bytes,
    b: bytes,
    device: Device,
    effort: Effort,
    on_round: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Comparison:
    """How the latency of `b` compares with that of `a`: `a`, `a` again and `b` timed interleaved, always anew.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `measure_models`.
    """
    timed = worker(device).measure([a, a, b], device, effort, on_round)
    timed_a, control, timed_b = timed.timings
    return compare(timed_a, control, timed_b, timed.contention, seed=seed)


def worker(device: Device, beside: Device | None = None) -> Worker:
    """The process that measures on this kind of device, in its run-time, and in that of another device besides."""
    others = (beside.runtime,) if beside else ()
    return _WORKERS.setdefault((device.kind, device.runtime, *others), Worker())
