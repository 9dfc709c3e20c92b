"""Metrics of the graph that the run-time makes of a file: memory and traffic of activations."""

from __future__ import annotations

from latency.device import Device
from latency.graph import executed_kernels, totals
from latency.memory import peak_bytes

EXECUTED = ("memory_bytes", "traffic_bytes")


def executed_metrics(model: bytes, device: Device) -> dict[str, float]:
    """The metrics of `EXECUTED` at batch 1: the most that activations take at once, and all that is read and written.

    Takes a few tenths of a second, so that a search finds them only where a bound asks for them.

    Raises:
        ValueError: as for `executed_kernels`.
    """
    kernels = executed_kernels(model, device)
    found = (float(peak_bytes(kernels)), float(totals(kernels).traffic_bytes))
    return dict(zip(EXECUTED, found, strict=True))
