"""Our own fused int8 kernels on a CPU: a QDQ file as one program of native code (`latency.kernels`).

All of a file runs in int8, or it is refused with what cannot: fp32 islands have no kernels here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from latency.device import Device
from latency.kernels.contract import Program
from latency.kernels.intake import program_of
from latency.kernels.lowered import lowered
from latency.kernels.native import Native, open_program
from latency.kernels.program import encoded
from latency.runtimes.session import Session, read

_FRESH = 16  # calls of one opened program that is timed by its steps


class FusedSession(Session):
    """A program, opened by the best instruction set that the processor has."""

    def __init__(self, program: Program, native: Native, threads: int) -> None:
        self._program, self._native, self._threads = program, native, threads

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32."""
        return self._native.run(x, self._threads)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (c, h, w) of one image."""
        return self._program.input_shape

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One run into an array that is there already."""
        images = np.ascontiguousarray(x, np.float32)
        outputs = np.empty((len(x), self._native.output_size), np.float32)
        return self._native.call(images, outputs, self._threads)


class FusedParts:
    """A program whose steps are timed as they run; the clock is read once a step, which takes some 25 ns.

    Where memory happens to lie makes some sessions slower throughout: so it is opened anew every few calls.
    """

    def __init__(self, program: Program) -> None:
        self._input_shape, self._file = program.input_shape, encoded(program)
        self._steps = [(record.name, record.kind.name.lower()) for record in lowered(program)[0]]
        self._ns: list[np.ndarray] = []
        self._opened: Generator[Callable[[], None], None, None] | None = None

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an input of so many images."""
        return (batch, *self._input_shape)

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One run into an array that is there already; what each step takes is kept."""
        images, ns = np.ascontiguousarray(x, np.float32), np.zeros(len(self._steps), np.int64)
        self._opened = runs = self._runs(images, ns)

        def call() -> None:
            run = next(runs)
            ns[:] = 0
            run()
            self._ns.append(ns.copy())

        return call

    def _runs(self, images: np.ndarray, ns: np.ndarray) -> Generator[Callable[[], None], None, None]:
        while True:
            with Native(self._file) as native:
                outputs = np.empty((len(images), native.output_size), np.float32)
                yield from itertools.repeat(native.timed(images, outputs, ns), _FRESH)

    def end(self) -> list[tuple[str, str, int, list[float]]]:
        """The steps in their order: name, kind, inputs (of which the clock knows nothing), seconds of each call."""
        if self._opened is not None:
            self._opened.close()
        seconds = 1e-9 * np.array(self._ns).T
        return [(name, kind, 0, times) for (name, kind), times in zip(self._steps, seconds.tolist(), strict=True)]


def open_parts(model: bytes | Path, device: Device) -> FusedParts:
    """Opens a QDQ file as `open_session` does, to be timed by its steps.

    Raises:
        FileNotFoundError, RuntimeError: as of `open_session`.
        ValueError: so, too; or several threads, of which each takes part of a step.
    """
    if device.threads > 1:
        raise ValueError(f"steps are timed in one thread, and {device.name!r} has {device.threads}")
    return FusedParts(program_of(read(model)))


def open_session(model: bytes | Path, device: Device) -> FusedSession:
    """Opens a QDQ file for `device.threads` threads of the CPU.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nodes that there are no kernels for, by name.
        RuntimeError: there is no C++ compiler, or it fails.
    """
    program = program_of(read(model))
    return FusedSession(program, open_program(program), device.threads)
