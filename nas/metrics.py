"""The costs that a search can make small and keep within bounds, by the names that users give them: loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nas.format import amount, small


@dataclass(frozen=True)
class Cost:
    """What a network costs, lower is better.

    Args:
        metric: its name in evaluations and files, with its unit.
        words: its name in reports.
        unit: s, B, J or nothing, for counts.
        of_device: of the device as much as of the file.
    """

    metric: str
    words: str
    unit: str
    of_device: bool = False

    def show(self, value: float) -> str:
        """A value as people read it, such as `1.2 ms`."""
        return small(value, self.unit) if self.unit in ("s", "J") else amount(value, self.unit)

    def of_point(self, point: Mapping[str, Any]) -> float | None:
        """Its value at a point of `front.json`; None where it is not known there."""
        found = point.get(self.metric)
        found = found.get("median") if isinstance(found, Mapping) else found
        return float(found) if isinstance(found, int | float) else None


COSTS = {
    "latency": Cost("latency_s", "latency", "s", of_device=True),
    "energy": Cost("energy_joules", "energy of a call", "J", of_device=True),
    "size": Cost("size_bytes", "size of the file", "B"),
    "macs": Cost("macs", "MACs", ""),
    "parameters": Cost("parameters", "parameters", ""),
    "memory": Cost("memory_bytes", "peak memory of activations", "B"),
    "traffic": Cost("traffic_bytes", "traffic of activations", "B"),
    "roofline": Cost("roofline_s", "roofline floor", "s", of_device=True),
}


_THROUGHPUT = Cost("throughput", "images/s", "")


def untold(metrics: Iterable[str]) -> list[str]:
    """Those metrics that only running on the device tells, and that are not latency, which everything tells."""
    return sorted({c.metric for c in COSTS.values() if c.of_device and c.metric != "latency_s"} & set(metrics))


def costs_of(record: Mapping[str, Any]) -> dict[str, Cost]:
    """The costs that a run made small, by name, from its record."""
    names = (record.get("settings") or {}).get("objectives") or ["latency"]
    return {name: COSTS[name] for name in names}


def columns_of(record: Mapping[str, Any]) -> list[Cost]:
    """What the table of a run's front shows besides latency, size and MACs, which it shows in any case."""
    batch = (record.get("device") or {}).get("batch") or 1
    more = [cost for cost in costs_of(record).values() if cost.metric not in ("latency_s", "size_bytes", "macs")]
    return [*more, _THROUGHPUT] if batch > 1 else more
