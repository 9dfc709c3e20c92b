"""A device held against its baseline: the same files in the run-time that everybody has, on the same machine.

Our own kernels are worth their while only where they are faster than ONNX Runtime.  Whether they are is measured of
each file of the front, both interleaved in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from latency.compare import LEAST_CLAIM, is_faster
from latency.device import Device, baseline_of
from latency.harness import measure_beside, measure_models
from latency.measurement import Measurement
from latency.store import MeasurementStore
from latency.worker import Effort


@dataclass(frozen=True)
class Baseline:
    """The latency of a file on the baseline of its device, whose name this is."""

    device: str
    latency_s: float

    def factor(self, seconds: float) -> float:
        """How many times as fast a call of `seconds` is."""
        return self.latency_s / seconds

    def beaten_by(self, seconds: float) -> bool:
        """Whether a call of `seconds` is faster, by more than 3 %."""
        return is_faster(seconds, self.latency_s)

    def plain(self, seconds: float) -> dict[str, Any]:
        """As JSON, beside a call of `seconds`."""
        return {"device": self.device, "latency_s": self.latency_s, "factor": self.factor(seconds)}


def measure_both(
    models: Sequence[bytes],
    device: Device,
    effort: Effort,
    store: MeasurementStore | None,
    on_round: Callable[[], object] = lambda: None,
) -> tuple[list[Measurement], list[Baseline | None]]:
    """The latency of each model on a device, and on its baseline where there is one.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `measure_models`.
    """
    other = baseline_of(device)
    if other is None:
        return measure_models(models, device, effort, store, on_round), [None] * len(models)
    pairs = measure_beside(models, device, other, effort, store, on_round)
    return [here for here, _ in pairs], [Baseline(other.name, there.median_s) for _, there in pairs]


def no_file_pays(factors: Sequence[float], device: Device) -> str:
    """Why there is no front: on how many files the device is not faster than its baseline, and what to do."""
    other = baseline_of(device)
    name, said = other.name if other else "", f"{min(factors):.2f} to {max(factors):.2f} times as fast"
    return (
        f"none of {len(factors)} files is {100 * LEAST_CLAIM:.0f} % faster on {device.name} than on {name} ({said}): "
        f"give --device {name}"
    )
