"""The latency of a model by its parts: each node timed inside the whole model, by ONNX Runtime's own profiler.

On a shared machine the moments in which a core is left alone last a millisecond, so no call of ten is ever
undisturbed.  Its nodes are: of each, the fastest of many calls count, and their sum is what the model takes when it is
left alone.  The profiler costs some microseconds a node, which short models tell that are timed both ways.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.device import Device
from latency.pace import Pace
from latency.runtimes.onnx_runtime import open_profiled
from latency.whole import call_of

_NODE = re.compile(rb'"dur" :(\d+),"ts" :\d+,"ph" : "X","name" :"(.*)_kernel_time","args" : ')
_SHARE, _LEAST = 0.05, 3  # of the calls, the fastest that count of each node; and so many at least
_MICRO = 1e-6
_HALF_TICK_S = 0.5e-6  # the profiler cuts times to whole microseconds
_WARM_UP = 3  # calls
_PATIENCE_S = 0.002  # for which each call waits for a free core: its nodes get as many chances as there are calls


@dataclass(frozen=True)
class Node:
    """One node of the optimised graph, as it was run.

    Args:
        kind: its operator.
        inputs: how many it has, weights included.
        fastest_s: its fastest times of many calls, ascending.
    """

    name: str
    kind: str
    inputs: int
    fastest_s: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """What it takes undisturbed, with what the profiler adds."""
        return sum(self.fastest_s) / len(self.fastest_s)


@dataclass(frozen=True)
class ProfilerCost:
    """What the profiler adds, in seconds for each node and for each input of a node; and what a call costs besides."""

    node_s: float
    input_s: float
    call_s: float


@dataclass(frozen=True)
class Parts:
    """A model timed by its nodes, in the order in which they ran, over a number of calls at batch 1."""

    nodes: tuple[Node, ...]
    calls: int

    def seconds(self, cost: ProfilerCost) -> float:
        """The latency of one undisturbed call."""
        return max(sum(node.seconds for node in self.nodes) - self.counted(cost), _HALF_TICK_S)

    def counted(self, cost: ProfilerCost) -> float:
        """What the profiler added, less what a call costs besides its nodes."""
        return cost.node_s * len(self.nodes) + cost.input_s * sum(n.inputs for n in self.nodes) - cost.call_s

    def plain(self) -> dict[str, Any]:
        """As JSON; times in whole microseconds, as the profiler has them."""
        rows = [[n.name, n.kind, n.inputs, [round(1e6 * (t - _HALF_TICK_S)) for t in n.fastest_s]] for n in self.nodes]
        return {"calls": self.calls, "nodes": rows}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Parts:
        """The parts that `plain` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        return Parts(
            tuple(
                Node(str(name), str(kind), int(inputs), tuple(1e-6 * int(t) + _HALF_TICK_S for t in fastest_us))
                for name, kind, inputs, fastest_us in plain["nodes"]
            ),
            int(plain["calls"]),
        )


def profiler_cost(parts: Sequence[Parts], wall_s: Sequence[float], call_s: float) -> ProfilerCost:
    """What the profiler adds, from short models timed by parts and whole: least squares of the relative error.

    Args:
        wall_s: of one undisturbed call of each model.
        call_s: what a call takes that computes nothing.

    Raises:
        ValueError: fewer than two models, or not as many times.
    """
    if len(parts) < 2 or len(parts) != len(wall_s):
        raise ValueError(f"the profiler's cost needs two models timed both ways, got {len(parts)} and {len(wall_s)}")
    from scipy.optimize import nnls  # here, since timing needs no SciPy, and is done where there is none

    sums = np.array([sum(node.seconds for node in p.nodes) for p in parts])
    terms = np.array([(len(p.nodes), sum(n.inputs for n in p.nodes)) for p in parts], dtype=float)
    wall = np.asarray(wall_s, dtype=float)
    (node, entry), _ = nnls(terms / wall[:, None] * _MICRO, (sums - wall + call_s) / wall)
    return ProfilerCost(node * _MICRO, entry * _MICRO, call_s)


def time_parts(
    models: Sequence[bytes | Path], device: Device, sessions: int, calls: int, pace: Pace | None = None
) -> list[Parts]:
    """Times the nodes of each model, in `sessions` fresh sessions of `calls` calls each, all models in turn.

    Raises:
        ValueError: a model that cannot be loaded, or a device that does not run it in ONNX Runtime.
    """
    pace = pace or Pace()
    found: list[list[_Nodes]] = [[] for _ in models]
    with pace.measuring():
        for i in range(sessions):
            for j in range(len(models)) if i % 2 == 0 else reversed(range(len(models))):
                found[j].append(_run(models[j], device, calls, pace))
    return [_joined(nodes, sessions * calls) for nodes in found]


_Nodes = dict[str, tuple[str, int, list[int]]]  # name: kind, inputs, microseconds of each call


def _run(model: bytes | Path, device: Device, calls: int, pace: Pace) -> _Nodes:
    """The times of the nodes in one session; those of the first calls are left out."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        session = open_profiled(model, device, Path(folder) / "profile")
        call = call_of(session, 1)
        for _ in range(_WARM_UP):
            call()
        for _ in range(calls):
            pace.wait(_PATIENCE_S)
            call()
        return _read(session.end_profiling().read_bytes())


def _read(profile: bytes) -> _Nodes:
    """The nodes of a profile in the order in which they ran.

    Its events are a line each; all but the first one of a node are read by the two fields that are needed, since
    there are tens of thousands.
    """
    nodes: dict[bytes, tuple[str, int, list[int]]] = {}
    for line in profile.splitlines():
        match = _NODE.search(line)
        if match is None:
            continue
        if match[2] not in nodes:
            event = json.loads(line.rstrip(b","))
            shapes = event["args"].get("input_type_shape", ())
            nodes[match[2]] = (event["args"]["op_name"], len(shapes), [])
        nodes[match[2]][2].append(int(match[1]))
    return {name.decode(errors="replace"): (kind, n, us[_WARM_UP:]) for name, (kind, n, us) in nodes.items()}


def _joined(sessions: Sequence[_Nodes], calls: int) -> Parts:
    """Of each node the fastest times of all sessions."""
    keep = max(_LEAST, round(_SHARE * calls))
    nodes = []
    for name, (kind, inputs, _) in sessions[0].items():
        us = sorted(t for session in sessions if name in session for t in session[name][2])[:keep]
        nodes.append(Node(name, kind, inputs, tuple(t * _MICRO + _HALF_TICK_S for t in us)))
    return Parts(tuple(nodes), calls)
