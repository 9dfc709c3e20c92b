"""The costs that a search can make small and keep within bounds, by the names that users give them: loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nas.format import amount, percent, small


@dataclass(frozen=True)
class Cost:
    """What a network costs, lower is better.

    Args:
        metric: its name in evaluations and files, with its unit.
        words: its name in reports.
        unit: s, B, J, % of a share, or nothing, for counts.
        of: what decides it: the file alone, the graph that a run-time makes of it for a batch, or the whole device.
    """

    metric: str
    words: str
    unit: str
    of: Literal["file", "graph", "device"] = "file"

    def show(self, value: float) -> str:
        """A value as people read it, such as `1.2 ms`."""
        if self.unit == "%":
            return percent(value)
        return small(value, self.unit) if self.unit in ("s", "J") else amount(value, self.unit)

    def of_point(self, point: Mapping[str, Any]) -> float | None:
        """Its value at a point of `front.json`; None where it is not known there."""
        found = point.get(self.metric)
        found = found.get("median") if isinstance(found, Mapping) else found
        return float(found) if isinstance(found, int | float) else None


COSTS = {
    "latency": Cost("latency_s", "latency", "s", "device"),
    "energy": Cost("energy_joules", "energy of a call", "J", "device"),
    "size": Cost("size_bytes", "size of the file", "B"),
    "macs": Cost("macs", "MACs", ""),
    "parameters": Cost("parameters", "parameters", ""),
    "memory": Cost("memory_bytes", "peak memory of activations", "B", "graph"),
    "traffic": Cost("traffic_bytes", "traffic of activations", "B", "graph"),
    "roofline": Cost("roofline_s", "roofline floor", "s", "device"),
}


MOST_OBJECTIVES = 4
_INHERITED = Cost("inherited_val_accuracy", "validation, inherited", "%")
_FINETUNED = Cost("finetuned_val_accuracy", "fine-tuned", "%")
_THROUGHPUT = Cost("images_per_s", "images/s", "")


def untold(metrics: Iterable[str], *, graph: bool) -> list[str]:
    """The names of those costs that are not known of a device on which nothing but latency is measured.

    Args:
        graph: whether the graph is known: the same run-time at the same batch.
    """
    unknown = ("device",) if graph else ("device", "graph")
    return [n for n, c in COSTS.items() if c.of in unknown and c.metric != "latency_s" and c.metric in set(metrics)]


def costs_of(record: Mapping[str, Any]) -> dict[str, Cost]:
    """The costs that a run made small, by name, from its record."""
    names = (record.get("settings") or {}).get("objectives") or ["latency"]
    return {name: COSTS[name] for name in names}


def columns_of(record: Mapping[str, Any]) -> list[Cost]:
    """What the table of a run's front shows besides latency, size and MACs, which it shows in any case.

    Accuracies before and after fine-tuning; costs that were made small or bounded; and throughput, where a call has
    several images.
    """
    settings, batch = record.get("settings") or {}, (record.get("device") or {}).get("batch") or 1
    asked = {n: c for n, c in COSTS.items() if n in costs_of(record) or settings.get(f"max_{c.metric}")}
    tuned = (_INHERITED, _FINETUNED) if settings.get("finetune") else ()
    more = [cost for cost in asked.values() if cost.metric not in ("latency_s", "size_bytes", "macs")]
    return [*tuned, *more, *((_THROUGHPUT,) if batch > 1 else ())]
