"""The latency of a model by its parts: each node timed inside the whole model, by the run-time itself.

On a shared machine the moments in which a core is left alone last a millisecond, so no call of ten is ever
undisturbed.  Its nodes are: of each, the fastest of many calls counts, and their sum is what the model takes when it is
left alone.  For seconds on end there may be no such moment at all, so that models are visited in turn, and each until
it was left alone often enough.  ONNX Runtime's profiler costs some microseconds a node, which short models tell that
are timed both ways; the clock of our own kernels costs next to nothing.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from latency.clock import SYSTEM_CLOCK, Clock
from latency.pace import Pace
from latency.timing import Call

_KEPT = 3  # of the times of each node, the fastest: the first counts, the others tell how sure it is
_MICRO = 1e-6
_LEAST_S = 0.5e-6  # of a call
_WARM_UP = 3  # calls
_PATIENCE_S = 0.005  # for which a turn waits for a free core: longer only where there is none at all
_TURN_S, _MOST_CALLS = 0.03, 60  # of a short model: its nodes are near the clock's step
_MOST_TURNS = 25  # ONNX Runtime's profiler keeps two kilobytes of each node of each call until it ends
_HARDLY = 1.0  # turn


class PartsSession(Protocol):
    """An opened model whose run-time times its nodes."""

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an input of so many images."""

    def call(self, x: np.ndarray) -> Call:
        """One call for the images `x` (b, *input_shape) float32."""

    def end(self) -> Sequence[tuple[str, str, int, Sequence[float]]]:
        """The nodes in the order in which they ran: name, kind, inputs, and the seconds of each call; it closes."""


PartsOpener = Callable[[Path], PartsSession]
"""Opens a model, which may write files whose names begin with this path."""


@dataclass(frozen=True)
class PartsEffort:
    """How much is spent on models that are timed in turn.

    Args:
        free: turns after which a model is known, each counted by the share of looks that found the core free.
        calls: of a turn at least; short models have as many as fill its time.
        seconds: for each model on average, opening and references included, after which no other turn is taken.
    """

    free: float
    calls: int
    seconds: float


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

    def without(self, node: Node) -> float:
        """The seconds of a node but for what the profiler adds, which may be all of them."""
        return node.seconds - self.node_s - self.input_s * node.inputs


@dataclass(frozen=True)
class Parts:
    """A model timed by its nodes, in the order in which they ran.

    Args:
        calls: that were timed.
        free: the turns they were timed in, each counted by the share of looks that found the core free.
        reference_s: what the nodes of the reference models took in the same minute, all together; None without any.
    """

    nodes: tuple[Node, ...]
    calls: int
    free: float
    reference_s: float | None = None

    @property
    def profiled_s(self) -> float:
        """The sum of the nodes' times, with what the profiler adds."""
        return sum(node.seconds for node in self.nodes)

    @property
    def hardly_known(self) -> bool:
        """Whether it was left alone for less than a turn: then it is timed again when it is asked for."""
        return self.free < _HARDLY

    def slower(self, usual_s: float | None) -> float:
        """By what factor the machine was slower than where the references take `usual_s`."""
        return self.reference_s / usual_s if self.reference_s and usual_s else 1.0

    def seconds(self, cost: ProfilerCost) -> float:
        """The latency of one undisturbed call."""
        return max(self.profiled_s - self.counted(cost), _LEAST_S)

    def counted(self, cost: ProfilerCost) -> float:
        """What the profiler added, less what a call costs besides its nodes."""
        return cost.node_s * len(self.nodes) + cost.input_s * sum(n.inputs for n in self.nodes) - cost.call_s

    def plain(self) -> dict[str, Any]:
        """As JSON; times in microseconds, to nanoseconds."""
        rows = [[n.name, n.kind, n.inputs, [round(1e6 * t, 3) for t in n.fastest_s]] for n in self.nodes]
        return {"calls": self.calls, "free": self.free, "reference_s": self.reference_s, "nodes": rows}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Parts:
        """The parts that `plain` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        return Parts(
            tuple(
                Node(str(name), str(kind), int(inputs), tuple(1e-6 * float(t) for t in fastest_us))
                for name, kind, inputs, fastest_us in plain["nodes"]
            ),
            int(plain["calls"]),
            float(plain["free"]),
            None if plain["reference_s"] is None else float(plain["reference_s"]),
        )


def usual_reference_s(parts: Iterable[Parts]) -> float | None:
    """What references take in most minutes; None where none was timed."""
    found = [p.reference_s for p in parts if p.reference_s]
    return statistics.median(found) if found else None


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

    sums = np.array([p.profiled_s for p in parts])
    terms = np.array([(len(p.nodes), sum(n.inputs for n in p.nodes)) for p in parts], dtype=float)
    wall = np.asarray(wall_s, dtype=float)
    (node, entry), _ = nnls(terms / wall[:, None] * _MICRO, (sums - wall + call_s) / wall)
    return ProfilerCost(node * _MICRO, entry * _MICRO, call_s)


def time_parts(
    openers: Sequence[PartsOpener],
    batch: int,
    effort: PartsEffort,
    references: Sequence[PartsOpener] = (),
    pace: Pace | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Parts]:
    """Times the nodes of each model in a session of its own, all of them open at once.

    The next turn is always that of the model that was left alone least: when time is short, all are known equally well,
    and a minimum of as many times is as far above the truth for each.  One turn is taken by each in any case.

    Args:
        openers: of each model.
        batch: images in a call.
        references: openers of models that are timed in turn with the others.  What else runs on the machine takes
            caches and memory bandwidth even where the core is free, some minutes more than others: what the same
            references take tells the minutes apart.

    Raises:
        ValueError: a model that cannot be loaded.
    """
    pace, begun_s = pace or Pace(clock), clock.wall()
    with pace.measuring(), tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        sessions = [open_(Path(folder) / f"profile-{i}") for i, open_ in enumerate([*openers, *references])]
        opened = [_Profiled(session, batch) for session in sessions]
        in_time = True
        while left := [m for m in opened if not m.turns or (in_time and not m.is_known(effort))]:
            pace.wait(_PATIENCE_S)
            min(left, key=lambda m: (m.free, m.turns)).take_turn(effort.calls, pace, clock)
            in_time = clock.wall() - begun_s < effort.seconds * len(openers)
        found = [m.parts() for m in opened]
    reference_s = sum(parts.profiled_s for parts in found[len(openers) :]) if references else None
    return [replace(parts, reference_s=reference_s) for parts in found[: len(openers)]]


class _Profiled:
    """An open session that takes turns with others."""

    def __init__(self, session: PartsSession, batch: int) -> None:
        self.turns, self._calls, self.free = 0, 0, 0.0
        self._session = session
        image = np.random.default_rng(0).standard_normal(session.batch_shape(batch)).astype(np.float32)
        self._call = session.call(image)
        for _ in range(_WARM_UP):
            self._call()

    def take_turn(self, calls: int, pace: Pace, clock: Clock) -> None:
        """Runs it some times, and looks after each whether the core is free: before, one has waited for it to be."""
        taken, free, begun_s = 0, 0, clock.wall()
        while taken < calls or (taken < _MOST_CALLS and clock.wall() - begun_s < _TURN_S):
            self._call()
            free += not pace.look()
            taken += 1
        self.turns, self._calls = self.turns + 1, self._calls + taken
        self.free += free / taken

    def is_known(self, effort: PartsEffort) -> bool:
        """Whether it was left alone for long enough, or had as many turns as there may be."""
        return self.free >= effort.free or self.turns >= _MOST_TURNS

    def parts(self) -> Parts:
        """What was timed; the session has ended.

        Raises:
            ValueError: a profile in which no nodes are found.
        """
        nodes = tuple(
            Node(name, kind, inputs, tuple(sorted(seconds[_WARM_UP:])[:_KEPT]))
            for name, kind, inputs, seconds in self._session.end()
        )
        if not nodes or not all(node.fastest_s for node in nodes):
            raise ValueError("what the run-time's profiler wrote is not understood: another version of it may help")
        return Parts(nodes, self._calls, self.free)
