"""Measuring model files on a device, through the store: what was measured once is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from latency.device import Device, fingerprint
from latency.measurement import Measurement, settings_of, subject_of
from latency.pace import Pace
from latency.runtimes.onnx_runtime import open_session
from latency.store import MeasurementStore
from latency.timing import Call, measure_interleaved


@dataclass(frozen=True)
class Effort:
    """How much is spent on one timing.

    Args:
        rounds: fresh sessions of the model that must be undisturbed, of `most_rounds` at most.
        samples: per round, each lasting at least `sample_s`.
    """

    rounds: int
    most_rounds: int
    samples: int
    sample_s: float = 1e-4


_METHOD = 2  # to be raised when the way of timing changes: times taken otherwise are not to be reused
_PACE = Pace()  # of this process: it knows the better how fast the machine can be the longer it is used

QUICK = Effort(rounds=2, most_rounds=6, samples=20)  # to rank by, and to fit models on
CAREFUL = Effort(rounds=20, most_rounds=60, samples=25)  # for the numbers that are reported


def measure_models(
    models: Sequence[bytes], device: Device, effort: Effort, store: MeasurementStore | None = None
) -> list[Measurement]:
    """The latency of each model at batch 1; those that the store does not have are timed interleaved, and stored.

    Raises:
        ValueError: a model that cannot be loaded.
    """
    settings = settings_of({"batch": 1, "method": _METHOD, **asdict(effort)})
    place = fingerprint(device)
    subjects = [subject_of(model) for model in models]
    known = {s: found for s in subjects if store and (found := store.get(s, place, settings))}
    missing = {s: model for s, model in zip(subjects, models, strict=True) if s not in known}
    timings = measure_interleaved(
        [_opener(model, device) for model in missing.values()],
        rounds=effort.rounds,
        most_rounds=effort.most_rounds,
        samples_per_round=effort.samples,
        shortest_sample_s=effort.sample_s,
        pace=_PACE,
    )
    for subject, timing in zip(missing, timings, strict=True):
        known[subject] = Measurement(subject, device.name, place, timing, settings)
        if store:
            store.put(known[subject])
    return [known[s] for s in subjects]


def _opener(model: bytes, device: Device) -> Callable[[], Call]:
    def open_model() -> Call:
        session = open_session(model, device)
        image = np.random.default_rng(0).standard_normal((1, *session.input_shape)).astype(np.float32)
        return lambda: session.run(image)

    return open_model
