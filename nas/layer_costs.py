"""What each layer of a given network takes in each precision, and what a change of precision costs, measured in place.

Isolated layers tell little: conversions between fp32 and int8 belong to no layer, and memory orders differ.  So whole
files are timed by their nodes: all in fp32, all in int8, and two in which neighbours differ throughout.  What a layer
takes more there than among its like is what a change behind it costs.  What the profiler adds to each node is found
from the same files timed whole; where these are so long that a busy machine never leaves them alone, it hardly counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from latency.device import Device
from latency.harness import PARTS, QUICK, measure_models, measure_parts
from latency.parts import Parts, ProfilerCost, profiler_cost
from latency.store import MeasurementStore

Groups = Mapping[str, Sequence[str]]
Build = Callable[[Mapping[str, str]], onnx.ModelProto]
"""From group to fp32 or int8, to the file."""

_CALL_S = 5e-6  # of a call of any network, beside its nodes
_LONG_S = 5e-4
_NOTHING = ProfilerCost(0.0, 0.0, 0.0)
KINDS = ("fp32", "int8")
_ADDED = re.compile(r"(_token_\d+|_nchwc|/duplicated|_QuantizeLinear|_DequantizeLinear|_Input|_Output|_quant)+$")


@dataclass(frozen=True)
class LayerCosts:
    """Seconds of groups of nodes.

    Args:
        seconds: group to precision to what it takes among others of its precision.
        change: group to precision to what is added where the next group has the other one.
        profiler: what was taken off nodes.
        checked: predicted and measured seconds of files that nothing was taken from.
    """

    seconds: Mapping[str, Mapping[str, float]]
    change: Mapping[str, Mapping[str, float]]
    profiler: ProfilerCost = _NOTHING
    checked: tuple[tuple[float, float], ...] = ()

    def predict(self, chosen: Mapping[str, str]) -> float:
        """Seconds of a file whose groups have these precisions."""
        kinds = [chosen[group] for group in self.seconds]
        total = sum(self.seconds[group][kind] for group, kind in zip(self.seconds, kinds, strict=True))
        changes = zip(self.seconds, kinds, kinds[1:], strict=False)
        return total + sum(self.change[group][kind] for group, kind, behind in changes if kind != behind)

    @property
    def error(self) -> float:
        """Mean relative error of the predictions that were checked; 0 without any."""
        return sum(abs(p / m - 1) for p, m in self.checked) / max(1, len(self.checked))


def measure_layers(
    model: onnx.ModelProto, groups: Groups, build: Build, device: Device, store: MeasurementStore | None = None
) -> LayerCosts:
    """Times the groups of `model` in ONNX Runtime on `device`; a quarter of a minute or less.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `measure_parts`.
    """
    names = list(groups)
    plans = [dict.fromkeys(names, kind) for kind in KINDS]
    plans += [{name: KINDS[(i + first) % 2] for i, name in enumerate(names)} for first in (0, 1)]
    # Every third layer, and two thirds of them: between uniform and alternating.
    checks = [{name: KINDS[(i % 3 == 0) == first] for i, name in enumerate(names)} for first in (True, False)]
    files = [build(plan).SerializeToString() for plan in (*plans, *checks)]
    timed = measure_parts(files, device, PARTS, store)
    whole = measure_models(files[: len(plans)], device, QUICK, store)
    cost = profiler_cost(timed[: len(plans)], [measured.median_s for measured in whole], _CALL_S)
    places = _places(model, groups)
    found = [_seconds(parts, places, names, cost) for parts in timed]
    costs = LayerCosts(*_costs(names, plans, found), cost)
    measured = [sum(seconds.values()) for seconds in found[len(plans) :]]
    checked = tuple((costs.predict(plan), s) for plan, s in zip(checks, measured, strict=True))
    return replace(costs, checked=checked)


def latencies(
    files: Sequence[bytes], device: Device, costs: LayerCosts, store: MeasurementStore | None = None
) -> list[float]:
    """Seconds of files to choose by: of long ones the sum of their nodes, which a busy machine leaves alone at times.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `measure_parts`.
    """
    if sum(seconds["fp32"] for seconds in costs.seconds.values()) < _LONG_S:
        return [measured.median_s for measured in measure_models(files, device, QUICK, store)]
    return [parts.seconds(costs.profiler) for parts in measure_parts(files, device, PARTS, store)]


def _costs(
    names: Sequence[str], plans: Sequence[Mapping[str, str]], found: Sequence[Mapping[str, float]]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Of each group and precision: seconds among its like, and what is added where neighbours differ."""
    taken = list(zip(plans, found, strict=False))
    alike, mixed = taken[:2], taken[2:]
    seconds = {name: {plan[name]: s[name] for plan, s in alike} for name in names}
    change = {name: {plan[name]: max(0.0, s[name] - seconds[name][plan[name]]) for plan, s in mixed} for name in names}
    return seconds, change


def _places(model: onnx.ModelProto, groups: Groups) -> dict[str, str]:
    """Names of nodes and of the tensors they make, to the group they belong to."""
    group_of = {node: group for group, nodes in groups.items() for node in nodes}
    places: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in group_of:
            places |= dict.fromkeys((node.name, *node.output), group_of[node.name])
    return places


def _seconds(parts: Parts, places: Mapping[str, str], names: Sequence[str], cost: ProfilerCost) -> dict[str, float]:
    """Group to the seconds of its nodes; one that names none (a reordering) goes with the node before it."""
    total = dict.fromkeys(names, 0.0)
    here = names[0]
    for node in parts.nodes:
        here = places.get(_ADDED.sub("", node.name.partition(" #")[0]), here)
        total[here] += cost.without(node)
    return {name: max(0.0, float(seconds)) for name, seconds in total.items()}
