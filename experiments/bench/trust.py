"""Can a latency be trusted?  A file against itself, a slow-down of 5 %, and a busy loop on another core.

The variable TRUST_PART names one part (same, slower, busy), TRUST_TRIALS how often it is tried; without them all parts
run in full, which takes some ten minutes where the machine is shared.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.harness import COMPARING, compare_models, measure_models
from latency.measurement import Measurement
from latency.worker import Effort
from nas.profiling import neutral_model
from nas.spec import build_network

TRIALS, BUSY_TRIALS = 100, 20
SLOWER, WITHIN = 0.05, 0.005
_SHAPE = (3, 32, 32)
_CPU = parse_device("cpu")
_CALIBRATION = Effort(rounds=60, most_rounds=60, samples=8)
_WATCHED = Effort(rounds=8, most_rounds=8, samples=20)
_MOST_CORRECTIONS = 6
_WIDTHS = (64, 1024)  # of the extra nodes, tried first


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        share: of the trials that ended as they should.
        note: what else was seen.
    """

    name: str
    share: float
    trials: int
    note: str

    def __str__(self) -> str:
        return f"{self.name:<44} {self.share:5.0%} of {self.trials:3d}   {self.note}"


def bench() -> tuple[Row, ...]:
    """The parts that TRUST_PART names."""
    parts = {"same": same, "slower": slower, "busy": busy}
    chosen = os.environ.get("TRUST_PART")
    model = network()
    return tuple(row for name, part in parts.items() if chosen in (None, name) for row in part(model))


def network() -> bytes:
    """The middle network of the preset `tiny`, for images of 32 pixels."""
    module, space = build_network("mbconv", _SHAPE, 10, "tiny")
    tracer = BlockTracer(module, _SHAPE)
    return neutral_model(module, tracer, space.scaled(0.5), ("fp32",), _SHAPE).SerializeToString()


def same(model: bytes) -> tuple[Row, ...]:
    """The comparison of a file with itself."""
    return (_compared("a file with itself: no difference", model, model, "no difference", ""),)


def slower(model: bytes) -> tuple[Row, ...]:
    """The comparison with the same network and a few nodes more, which take 5 % of its time."""
    slowed, ratio = _slowed(model)
    note = f"injected {ratio - 1:.1%} (measured beforehand); "
    return (_compared("slowed by 5 %: slower", model, slowed, "slower", note),)


def _compared(name: str, a: bytes, b: bytes, expected: str, note: str) -> Row:
    begun_s, trials = time.perf_counter(), _trials(TRIALS)
    found = [compare_models(a, b, _CPU, COMPARING) for _ in range(trials)]
    seconds = (time.perf_counter() - begun_s) / trials
    right = sum(c.verdict == expected for c in found) / trials
    ratios = np.array([c.ratio for c in found])
    controls = np.abs(np.log([c.control_ratio for c in found]))
    low, high = np.quantile(ratios, (0.05, 0.95))
    note += f"ratio {np.median(ratios):.3f} (90 % within {low:.3f}-{high:.3f}), "
    note += f"A/A off by {np.quantile(controls, 0.95):.1%} at p95, {seconds:.1f} s a trial"
    return Row(name, right, trials, note)


def _slowed(model: bytes) -> tuple[bytes, float]:
    """The model with nodes that add 5 % ± 0.5 to its latency, and the ratio that was measured.

    The cost grows with the width of the nodes; two widths give a line, and what is off by more is corrected.
    """
    tried = {width: compare_models(model, _widened(model, width), _CPU, _CALIBRATION).ratio for width in _WIDTHS}
    for _ in range(_MOST_CORRECTIONS):
        slope, start = np.polyfit(list(tried), list(tried.values()), 1)
        width = max(1, round((1 + SLOWER - start) / slope))
        slowed = _widened(model, width)
        ratio = compare_models(model, slowed, _CPU, _CALIBRATION).ratio
        if abs(ratio - 1 - SLOWER) <= WITHIN:
            return slowed, ratio
        tried[width] = ratio
    raise RuntimeError(f"no width of the extra nodes adds 5 %: {tried}")


def _widened(model: bytes, width: int) -> bytes:
    """The model with a product, a cosine of so many numbers, and a product behind its logits."""
    proto = onnx.load_model_from_string(model)
    graph, rng = proto.graph, np.random.default_rng(0)
    (output,) = graph.output
    classes = output.type.tensor_type.shape.dim[-1].dim_value
    for node in graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    up = rng.standard_normal((classes, width)).astype(np.float32)
    down = rng.standard_normal((width, classes)).astype(np.float32) * 1e-6
    graph.initializer.extend([numpy_helper.from_array(up, "up"), numpy_helper.from_array(down, "down")])
    graph.node.extend(
        [
            helper.make_node("MatMul", ["before", "up"], ["wide"]),
            helper.make_node("Cos", ["wide"], ["cosine"]),
            helper.make_node("MatMul", ["cosine", "down"], ["extra"]),
            helper.make_node("Add", ["before", "extra"], [output.name]),
        ]
    )
    return proto.SerializeToString()


def busy(model: bytes) -> tuple[Row, ...]:
    """Measurements with and without a busy loop on another core, in turns."""
    with_loop, without = list[Measurement](), list[Measurement]()
    trials = _trials(BUSY_TRIALS)
    for _ in range(trials):
        without.append(_measured(model))
        with _busy_loop():
            with_loop.append(_measured(model))
    flagged, clean = (sum(_busy(m) == on for m in found) for found, on in ((with_loop, True), (without, False)))
    moved = [a.cpu_median_s / b.cpu_median_s - 1 for a, b in zip(with_loop, without, strict=True)]
    within = sum(abs(m) < 0.06 for m in moved) / trials
    note = f"median {statistics.median(moved):+.1%}, largest {max(moved, key=abs):+.1%}"
    return (
        Row("a busy loop on another core: flagged", flagged / trials, trials, _cores(with_loop)),
        Row("no such loop: not flagged", clean / trials, trials, _cores(without)),
        Row("CPU time moves by less than 6 %", within, trials, note),
    )


def _measured(model: bytes) -> Measurement:
    return measure_models([model], _CPU, _WATCHED)[0]


def _busy(measurement: Measurement) -> bool:
    return measurement.contention is not None and measurement.contention.others_busy


def _cores(measurements: list[Measurement]) -> str:
    found = [m.contention.other_cores or 0.0 for m in measurements if m.contention]
    return f"other cores in use: {min(found):.2f} to {max(found):.2f}, median {statistics.median(found):.2f}"


@contextlib.contextmanager
def _busy_loop() -> Iterator[None]:
    """A process that counts, on the last core that this one does not run on, where the system can say so."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if hasattr(os, "sched_setaffinity"):
            others = set(range(os.cpu_count() or 1)) - (
                os.sched_getaffinity(0) if len(os.sched_getaffinity(0)) == 1 else set()
            )
            os.sched_setaffinity(process.pid, {max(others or {0})})
        time.sleep(0.2)  # it has begun to count
        yield
    finally:
        process.kill()
        process.wait()


def _trials(most: int) -> int:
    return int(os.environ.get("TRUST_TRIALS", most))
