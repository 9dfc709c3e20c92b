"""What the kernels' benchmark times of a network, and whether it is right before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from experiments.bench.interleaved import Call, medians_s, until_threads_sleep
from experiments.bench.kernel_graphs import Timed
from latency.device import parse_device
from latency.installed import lacking
from latency.kernels.contract import Dequantize
from latency.kernels.native import open_program
from latency.runtimes.fused import FusedSession
from latency.runtimes.opening import open_session

FUSED, CONTROL, DENSE, INT8, FP32, OPENVINO = "fused", "control", "dense", "ort int8", "ort fp32", "openvino int8"
FUSED_ONE, INT8_ONE = "fused, one thread", "ort int8, one thread"
AGREEING = 0.999  # the share of outputs that must be within one code of ONNX Runtime's

Arm = Callable[[Timed], Call]


@dataclass(frozen=True, eq=False)
class Subject:
    """What a line of the table is about.

    Args:
        long: the same `copies` times, so that what both have in common can be taken off.
        files: whether the files of `long` are longer too, and not its program alone.
        dense: the same layer without zeros.
    """

    name: str
    short: Timed
    long: Timed | None = None
    copies: int = 1
    files: bool = True
    dense: Subject | None = None

    @property
    def parts(self) -> tuple[Timed, ...]:
        """All that is timed in an arm."""
        return (self.short,) if self.long is None else (self.short, self.long)

    def once(self, short_s: float, *long_s: float) -> float:
        """The time of one, from those of `parts`."""
        return (long_s[0] - short_s) / (self.copies - 1) if long_s else short_s


def is_exact(subject: Subject, threads: int) -> bool:
    """Whether native code makes what the NumPy reference makes."""
    return all(_is_exact(made, threads) for made in subject.parts)


def _is_exact(made: Timed, threads: int) -> bool:
    with open_program(made.program) as native:
        return np.array_equal(native.run(made.images, threads), made.program.run(made.images))


def check_agreement(subject: Subject) -> None:
    """Looks at the outputs of ONNX Runtime's int8.

    Raises:
        AssertionError: too few of them are within one code of ours.
    """
    for made in subject.parts if subject.files else subject.parts[:1]:
        share = _agreeing(made)
        assert share >= AGREEING, f"{subject.name}: {share:.2%} of outputs are within one code of ONNX Runtime's"


def _agreeing(made: Timed) -> float:
    last = made.program.steps[-1].operation
    assert isinstance(last, Dequantize)
    with open_program(made.program) as native:
        found = native.run(made.images)
    theirs = open_session(made.int8, parse_device("cpu")).run(made.images)
    expected = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs  # ours have channels last
    return float(np.mean(np.abs(found - expected.reshape(found.shape)) < 1.5 * last.scale))


def times_s(subject: Subject, threads: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of one by arm, and seconds of a whole call of `subject.short`."""
    openers = {
        (name, i): _opener(arm, made)
        for name, arm in _arms(threads, subject.files).items()
        for i, made in enumerate(subject.parts)
    }
    if subject.dense is not None:
        openers |= {(DENSE, i): _opener(_fused(threads), made) for i, made in enumerate(subject.dense.parts)}
    found = medians_s(openers, *((time.process_time,) if threads == 1 else (time.perf_counter, until_threads_sleep)))
    names = dict.fromkeys(name for name, _ in openers)
    once = {name: subject.once(*(found[name, i] for i in range(len(subject.parts)))) for name in names}
    return once, {name: found[name, 0] for name in names}


def _arms(threads: int, files: bool) -> Mapping[str, Arm]:
    found = {FUSED: _fused(threads), CONTROL: _fused(threads)}
    if threads > 1:
        found[FUSED_ONE] = _fused(1)
    if files:
        found |= {INT8: _runtime("cpu", threads), FP32: _runtime("cpu", threads, int8=False)}
    if files and threads > 1:
        found[INT8_ONE] = _runtime("cpu", 1)
    if files and lacking("cpu", "openvino") is None:
        found[OPENVINO] = _runtime("cpu:openvino", threads)
    return found


def _opener(arm: Arm, made: Timed) -> Callable[[], Call]:
    return lambda: arm(made)


def _fused(threads: int) -> Arm:
    return lambda made: FusedSession(made.program, open_program(made.program), threads).call(made.images)


def _runtime(name: str, threads: int, *, int8: bool = True) -> Arm:
    device = parse_device(f"{name}{',' if ':' in name else ':'}threads={threads}")
    return lambda made: open_session(made.int8 if int8 else made.fp32, device).call(made.images)
