"""Metrics that running a file on its device tells besides latency: memory, traffic, energy, and the roofline floor."""

from __future__ import annotations

from collections.abc import Iterable

from latency.contention import Contention
from latency.device import Device
from latency.energy import counters_of
from latency.graph import executed_kernels, totals
from latency.harness import CAREFUL_PIECES, QUICK_PIECES, measure_energies
from latency.memory import peak_bytes
from latency.peaks import peaks_of
from latency.roofline import floor_s
from latency.store import MeasurementStore
from nas.progress import Reporter

OF_GRAPH = ("memory_bytes", "traffic_bytes")  # of the graph that ONNX Runtime makes of a file
EXECUTED = (*OF_GRAPH, "energy_joules", "roofline_s")


class Executed:
    """Finds those of the metrics of `EXECUTED` that are wanted: the first two take a few tenths of a second a file.

    Energy takes seconds a file, and the roofline floor the device's peaks, which are measured once.

    Args:
        careful: measures energy as what is reported, not to rank by.

    Raises:
        ValueError: energy is wanted, and there are no counters that can be read.
    """

    def __init__(
        self, metrics: Iterable[str], device: Device, store: MeasurementStore | None = None, careful: bool = False
    ) -> None:
        self.metrics = tuple(metric for metric in EXECUTED if metric in set(metrics))
        self.contentions: list[Contention] = []  # while energy was measured
        self._device, self._store, self._pieces = device, store, CAREFUL_PIECES if careful else QUICK_PIECES
        if "energy_joules" in self.metrics:
            counters_of(device.kind)

    def prepare(self, reporter: Reporter) -> None:
        """Measures the device's peaks where they are needed and not known: a minute or two."""
        if "roofline_s" in self.metrics:
            with reporter.stage("peaks") as stage:
                peaks_of(self._device, on_round=stage.advance)

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
                found["roofline_s"] = floor_s(kernels, peaks_of(self._device))
        if "energy_joules" in self.metrics:
            (measured,) = measure_energies([model], self._device, self._pieces, self._store)
            self.contentions.append(measured.contention)
            found["energy_joules"] = measured.joules_per_call
        return {metric: found[metric] for metric in self.metrics}
