"""Measuring model files on a device, through the store: what was measured once is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from latency.device import Device, fingerprint
from latency.measurement import Measurement, settings_of, subject_of
from latency.store import MeasurementStore
from latency.worker import Effort, Worker

_METHOD = 3  # to be raised when the way of timing changes: times taken otherwise are not to be reused
WORKER = Worker()

QUICK = Effort(rounds=2, most_rounds=6, samples=12)  # to rank by, and to fit models on
CAREFUL = Effort(rounds=20, most_rounds=60, samples=25)  # for the numbers that are reported


def measure_models(
    models: Sequence[bytes],
    device: Device,
    effort: Effort,
    store: MeasurementStore | None = None,
    on_round: Callable[[], object] = lambda: None,
) -> list[Measurement]:
    """The latency of each model at batch 1; those that the store does not have are timed interleaved, and stored.

    Args:
        on_round: as of `Worker.measure`; not for what the store has.

    Raises:
        ValueError: a model that cannot be loaded.
        RuntimeError: a model that cannot be run.
        ChildProcessError: the process that measures died.
    """
    settings = settings_of({"batch": 1, "method": _METHOD, **asdict(effort)})
    place = fingerprint(device)
    subjects = [subject_of(model) for model in models]
    known = {s: found for s in subjects if store and (found := store.get(s, place, settings))}
    missing = {s: model for s, model in zip(subjects, models, strict=True) if s not in known}
    timings = WORKER.measure(list(missing.values()), device, effort, on_round) if missing else []
    for subject, timing in zip(missing, timings, strict=True):
        known[subject] = Measurement(subject, device.name, place, timing, settings)
        if store:
            store.put(known[subject])
    return [known[s] for s in subjects]
