"""Times of the nodes of whole networks, each in its place: cold weights, layout changes and all.

A piece of a tenth of a millisecond finds a free moment on a shared machine far more often than a whole call does, so
that a few dozen calls tell every node's own time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latency.clock import SYSTEM_CLOCK
from latency.device import Device
from latency.pace import Pace
from latency.parts import read_profile
from latency.runtimes.onnx_runtime import open_profiled, open_session

_WARM_UP = 2  # calls of a fresh session
_PATIENCE_S = 0.02  # how long a call waits for a free moment
_LONGEST_VISIT_S, _LEAST_CALLS = 0.5, 5  # a long network needs fewer calls: its nodes are long


@dataclass(frozen=True)
class NodeTimes:
    """What was seen of one model.

    Args:
        call_s: wall seconds of whole calls without the profiler, a row for each visit.
        node_s: for each node the seconds of each call with the profiler, what it adds included.
    """

    call_s: list[list[float]]
    node_s: dict[str, list[float]]

    def joined(self, later: NodeTimes) -> NodeTimes:
        """These times and those of later visits to the same model."""
        names = dict.fromkeys((*self.node_s, *later.node_s))
        nodes = {name: self.node_s.get(name, []) + later.node_s.get(name, []) for name in names}
        return NodeTimes(self.call_s + later.call_s, nodes)


def profile_interleaved(
    models: Sequence[bytes],
    device: Device,
    *,
    visits: int,
    calls: int,
    pace: Pace,
    on_model: Callable[[], object] = lambda: None,
) -> list[NodeTimes]:
    """Visits each model in turn, `visits` times over, for as many calls without and with the profiler.

    Raises:
        ValueError: a model that cannot be opened, no visit or no call.
    """
    if visits < 1 or calls < 1:
        raise ValueError(f"visits and calls must be at least 1, got {visits} and {calls}")
    found = [NodeTimes([], {}) for _ in models]
    with pace.measuring(), tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        for visit in range(visits):
            order = range(len(models))
            for i in order if visit % 2 == 0 else reversed(order):
                _visit(models[i], device, calls, pace, Path(folder), found[i])
                on_model()
    return found


def _visit(model: bytes, device: Device, calls: int, pace: Pace, folder: Path, found: NodeTimes) -> None:
    found.call_s.append(_unprofiled(model, device, calls, pace))
    profiled = open_profiled(model, device, folder / "profile")
    image = _image(profiled.input_shape)
    _timed(lambda: profiled.run(image), calls, pace)
    for name, (_, _, durations_us) in read_profile(profiled.end_profiling()).items():
        found.node_s.setdefault(name, []).extend(1e-6 * (us + 0.5) for us in durations_us[_WARM_UP:])


def _unprofiled(model: bytes, device: Device, calls: int, pace: Pace) -> list[float]:
    """Whole calls; the session ends with them: its weights would stand in the caches beside the next one's."""
    session = open_session(model, device)
    image = _image(session.input_shape)
    return _timed(lambda: session.run(image), calls, pace)


def _image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def _timed(call: Callable[[], object], calls: int, pace: Pace) -> list[float]:
    for _ in range(_WARM_UP):
        call()
    clock, times = SYSTEM_CLOCK, list[float]()
    begun_s = clock.wall()
    while len(times) < calls and (len(times) < _LEAST_CALLS or clock.wall() - begun_s < _LONGEST_VISIT_S):
        pace.wait(_PATIENCE_S)
        start_s = clock.wall()
        call()
        times.append(clock.wall() - start_s)
    return times
