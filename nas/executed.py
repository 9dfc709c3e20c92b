"""Metrics that running a file on its device tells besides latency: memory, traffic, energy, and the roofline floor."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from latency import fused_roofline
from latency.contention import Contention
from latency.device import Device
from latency.energy import counters_of
from latency.fused_prices import prices_of
from latency.fused_roofline import FusedPrices
from latency.graph import executed_kernels, totals
from latency.harness import CAREFUL_PIECES, QUICK_PIECES, measure_energies
from latency.kernels.intake import program_of
from latency.memory import peak_bytes
from latency.peaks import peaks_of
from latency.roofline import floor_s
from latency.store import MeasurementStore
from nas.progress import Reporter

OF_GRAPH = ("memory_bytes", "traffic_bytes")  # of the graph that ONNX Runtime makes of a file
EXECUTED = (*OF_GRAPH, "energy_joules", "roofline_s")


class Executed:
    """Finds those of the metrics of `EXECUTED` that are wanted: the first two take a few tenths of a second a file.

    Energy takes seconds a file, and the roofline floor the device's peaks, which are measured once.  The floor of fused
    kernels is that of their own dot products.

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
                if self._fused:
                    prices_of(on_round=stage.advance)
                else:
                    peaks_of(self._device, on_round=stage.advance)

    def of(self, model: bytes) -> dict[str, float]:
        """The metrics of one file, at the device's batch.

        Raises:
            ValueError: as for `executed_kernels`, `program_of` and `measure_energies`.
        """
        found: dict[str, float] = {}
        if "roofline_s" in self.metrics and self._fused:
            found["roofline_s"] = self._fused_floor_s(model)
        if set(self.metrics) - {"energy_joules", *found}:
            kernels = executed_kernels(model, self._device)
            found |= {"memory_bytes": float(peak_bytes(kernels)), "traffic_bytes": float(totals(kernels).traffic_bytes)}
            if "roofline_s" in self.metrics and not self._fused:
                found["roofline_s"] = floor_s(kernels, peaks_of(self._device))
        if "energy_joules" in self.metrics:
            (measured,) = measure_energies([model], self._device, self._pieces, self._store)
            self.contentions.append(measured.contention)
            found["energy_joules"] = measured.joules_per_call
        return {metric: found[metric] for metric in self.metrics}

    @property
    def _fused(self) -> bool:
        return self._device.runtime == "fused"

    @functools.cached_property
    def _prices(self) -> FusedPrices:
        return prices_of()

    def _fused_floor_s(self, model: bytes) -> float:
        """Threads share a call's images and rows, and are at best so many times as fast as one."""
        of_image = fused_roofline.floor_s(program_of(model), self._prices)
        return of_image * self._device.batch / self._device.threads
