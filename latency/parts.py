"""The latency of a model by its parts: each node timed inside the whole model, by ONNX Runtime's own profiler.

On a shared machine the moments in which a core is left alone last a millisecond, so no call of ten is ever
undisturbed.  Its nodes are: of each, the fastest of many calls counts, and their sum is what the model takes when it is
left alone.  The profiler costs some microseconds a node, which short models tell that are timed both ways.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.device import Device
from latency.pace import Pace
from latency.runtimes.onnx_runtime import open_profiled

_NODE = re.compile(rb'"dur" :(\d+),"ts" :\d+,"ph" : "X","name" :"(.*)_kernel_time","args" : ')
_SHARE, _LEAST = 0.05, 3  # of the calls, the fastest that count of each node; and so many at least
_MICRO = 1e-6
_HALF_TICK_S = 0.5e-6  # the profiler cuts times to whole microseconds
_WARM_UP = 3  # calls
_AGREEMENT = 0.06  # by which sessions may differ: nodes of few microseconds are known to one
_PATIENCE_S = 0.002  # for which each call waits for a free core: its nodes get as many chances as there are calls


@dataclass(frozen=True)
class PartsEffort:
    """How much is spent on one model.

    Args:
        sessions: fresh ones at least, and `most_sessions` at most, until two agree.
        visits: to each model in a session, in turn with the others.
        calls: at each visit.
    """

    sessions: int
    most_sessions: int
    visits: int
    calls: int


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
        """What it takes undisturbed, with what the profiler adds: on a busy machine, a call in a hundred tells it."""
        return self.fastest_s[0]


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
    models: Sequence[bytes | Path], device: Device, effort: PartsEffort, pace: Pace | None = None
) -> list[Parts]:
    """Times the nodes of each model, all models in turn, in fresh sessions until two of these agree.

    Raises:
        ValueError: a model that cannot be loaded, or a device that does not run it in ONNX Runtime.
    """
    pace = pace or Pace()
    found: list[list[_Nodes]] = [[] for _ in models]
    with pace.measuring():
        for i in range(effort.most_sessions):
            left = [j for j, sessions in enumerate(found) if i < effort.sessions or not _agree(sessions)]
            if not left:
                break
            runs = _run([models[j] for j in left], device, effort, pace)
            for j, nodes in zip(left, runs, strict=True):
                found[j].append(nodes)
    return [_joined(sessions, effort) for sessions in found]


_Nodes = dict[str, tuple[str, int, list[int]]]  # name: kind, inputs, microseconds of each call


def _run(models: Sequence[bytes | Path], device: Device, effort: PartsEffort, pace: Pace) -> list[_Nodes]:
    """The times of the nodes of each model in a session each; those of the first calls are left out."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        sessions = [open_profiled(m, device, Path(folder) / f"profile-{i}") for i, m in enumerate(models)]
        rng = np.random.default_rng(0)
        calls = [s.call(rng.standard_normal(s.batch_shape(1)).astype(np.float32)) for s in sessions]
        for call in calls:
            for _ in range(_WARM_UP):
                call()
        for visit in range(effort.visits):
            for call in calls if visit % 2 == 0 else reversed(calls):
                for _ in range(effort.calls):
                    pace.wait(_PATIENCE_S)
                    call()
        return [_after_warm_up(read_profile(session.end_profiling())) for session in sessions]


def _after_warm_up(nodes: _Nodes) -> _Nodes:
    return {name: (kind, inputs, us[_WARM_UP:]) for name, (kind, inputs, us) in nodes.items()}


def _agree(sessions: Sequence[_Nodes]) -> bool:
    """Whether the two fastest sessions of each node, all nodes together, differ by less than 6 %.

    A session in which a node was never left alone is slower than others, and differs.
    """
    names = sessions[0].keys()
    fastest = np.sort([[min(s[name][2]) if name in s else np.inf for name in names] for s in sessions], axis=0)
    return len(sessions) > 1 and bool(fastest[1].sum() <= (1 + _AGREEMENT) * fastest[0].sum())


def read_profile(file: Path) -> _Nodes:
    """The nodes of a profile that ONNX Runtime wrote, in the order in which they ran; the file is deleted.

    Its events are a line each; all but the first one of a node are read by the two fields that are needed, since
    there are tens of thousands.  Nodes of one name are told apart by their order in a call.
    """
    nodes: dict[bytes, tuple[str, int, list[int]]] = {}
    seen: Counter[bytes] = Counter()  # in this call
    for line in file.read_bytes().splitlines():
        match = _NODE.search(line)
        if match is None:
            if b'"model_run"' in line:
                seen.clear()
            continue
        name = match[2] if not seen[match[2]] else b"%s #%d" % (match[2], seen[match[2]] + 1)
        seen[match[2]] += 1
        if name not in nodes:
            event = json.loads(line.rstrip(b","))
            shapes = event["args"].get("input_type_shape", ())
            nodes[name] = (event["args"]["op_name"], len(shapes), [])
        nodes[name][2].append(int(match[1]))
    file.unlink()
    return {name.decode(errors="replace"): found for name, found in nodes.items()}


def _joined(sessions: Sequence[_Nodes], effort: PartsEffort) -> Parts:
    """Of each node the fastest times of all sessions, as many as if there had been no more than needed."""
    keep = max(_LEAST, round(_SHARE * effort.sessions * effort.visits * effort.calls))
    nodes = []
    for name, (kind, inputs, _) in sessions[0].items():
        us = sorted(t for session in sessions if name in session for t in session[name][2])[:keep]
        nodes.append(Node(name, kind, inputs, tuple(t * _MICRO + _HALF_TICK_S for t in us)))
    return Parts(tuple(nodes), len(sessions) * effort.visits * effort.calls)
