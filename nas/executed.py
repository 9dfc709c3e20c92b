"""Metrics that running a file on its device tells besides latency: memory, traffic, energy, and the roofline floor."""

from __future__ import annotations

from collections.abc import Iterable

from latency.device import Device
from latency.energy import counters_of
from latency.graph import executed_kernels, totals
from latency.harness import measure_energies
from latency.memory import peak_bytes
from latency.peaks import peaks_of
from latency.roofline import Peaks, floor_s
from latency.store import MeasurementStore
from nas.progress import Reporter

OF_GRAPH = ("memory_bytes", "traffic_bytes")  # of the graph that the run-time makes of a file
EXECUTED = (*OF_GRAPH, "energy_joules", "roofline_s")


class Executed:
    """Finds those of the metrics of `EXECUTED` that are wanted: the first two take a few tenths of a second a file.

    Energy takes seconds a file, and the roofline floor the device's peaks, which are measured once.

    Raises:
        ValueError: energy is wanted, and there are no counters that can be read.
    """

    def __init__(self, metrics: Iterable[str], device: Device, store: MeasurementStore | None = None) -> None:
        self.metrics = tuple(metric for metric in EXECUTED if metric in set(metrics))
        self._device, self._store = device, store
        self._peaks: Peaks | None = None
        if "energy_joules" in self.metrics:
            counters_of(device.kind)

    def prepare(self, reporter: Reporter) -> None:
        """Measures the device's peaks where they are needed and not known: a minute or two."""
        if "roofline_s" in self.metrics:
            with reporter.stage("peaks") as stage:
                self._peaks = peaks_of(self._device, on_round=stage.advance)

    def of(self, model: bytes) -> dict[str, float]:
        """The metrics of one file, at the device's batch.

        Raises:
            ValueError: as for `executed_kernels` and `measure_energies`.
        """
        found: dict[str, float] = {}
        if set(self.metrics) - {"energy_joules"}:
            kernels = executed_kernels(model, self._device)
            found |= {"memory_bytes": float(peak_bytes(kernels)), "traffic_bytes": float(totals(kernels).traffic_bytes)}
            if "roofline_s" in self.metrics:
                self._peaks = self._peaks or peaks_of(self._device)
                found["roofline_s"] = floor_s(kernels, self._peaks)
        if "energy_joules" in self.metrics:
            found["energy_joules"] = measure_energies([model], self._device, self._store)[0].joules_per_call
        return {metric: found[metric] for metric in self.metrics}
