"""Programs run by native code."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from latency.kernels import build
from latency.kernels.contract import Program
from latency.kernels.program import encoded

_MESSAGE_BYTES = 512
_FLOATS = ctypes.POINTER(ctypes.c_float)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build.library()))
    numbers = ctypes.POINTER(ctypes.c_int64)
    run = (ctypes.c_void_p, _FLOATS, _FLOATS, ctypes.c_int64, ctypes.c_int)
    declared = {
        "hwnas_open": (ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_size_t, *(ctypes.c_char_p,) * 2, ctypes.c_size_t)),
        "hwnas_run": (ctypes.c_int, run),
        "hwnas_run_timed": (ctypes.c_int, (*run[:-1], numbers)),
        "hwnas_close": (None, (ctypes.c_void_p,)),
        "hwnas_crowd": (None, (ctypes.c_void_p,)),
        "hwnas_sizes": (None, (ctypes.c_void_p, numbers, numbers, numbers)),
        "hwnas_instruction_sets": (ctypes.c_char_p, ()),
        "hwnas_memory": (ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_size_t))),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def instruction_sets() -> tuple[str, ...]:
    """What this processor has that there are kernels for, best first; the last, "portable", runs everywhere."""
    names: bytes = _library().hwnas_instruction_sets()
    return tuple(names.decode().split())


class Native:
    """An opened program, in the file that `program.encoded` makes."""

    def __init__(self, data: bytes, instruction_set: str | None = None) -> None:
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        chosen = None if instruction_set is None else instruction_set.encode()
        self._handle = None
        self._handle = _library().hwnas_open(data, len(data), chosen, message, _MESSAGE_BYTES)
        if self._handle is None:
            raise ValueError(message.value.decode(errors="replace"))
        image, output, steps = ctypes.c_int64(), ctypes.c_int64(), ctypes.c_int64()
        _library().hwnas_sizes(self._handle, image, output, steps)
        self.image_size, self.output_size = image.value, output.value  # numbers of float32
        self.steps = steps.value

    def crowd(self) -> Native:
        """Lets more threads run it from now on than there are cores, each of which has a part: for tests of threads."""
        _library().hwnas_crowd(self._handle)
        return self

    def run(self, x: np.ndarray, threads: int = 1) -> np.ndarray:
        """float32 (b, outputs) of images float32 (b, c, h, w), in no more threads than this process has cores.

        Raises:
            ValueError: images of another size, no image, or no thread.
            RuntimeError: there is not enough memory, or threads cannot be started.
        """
        y = np.empty((len(x), self.output_size), np.float32)
        self.call(np.ascontiguousarray(x, np.float32), y, threads)()
        return y

    def call(self, x: np.ndarray, y: np.ndarray, threads: int = 1) -> Callable[[], None]:
        """A function that runs images `x` float32 (b, ...) into `y` float32 (b, outputs), arrays that lie in one piece.

        It raises what `run` does, and ValueError where the program was closed.

        Raises:
            ValueError: arrays of other sizes or types, no image, or no thread.
        """
        return self._call(_library().hwnas_run, x, y, threads, threads)

    def timed(self, x: np.ndarray, y: np.ndarray, ns: np.ndarray) -> Callable[[], None]:
        """As `call` in one thread; the nanoseconds of each step, over all images, are added to `ns` int64 (steps,).

        Raises:
            ValueError: as of `call`; or another number of steps.
        """
        if ns.dtype != np.int64 or not ns.flags.c_contiguous or ns.shape != (self.steps,):
            raise ValueError(f"times are {ns.dtype} {ns.shape}, expected int64 of {self.steps} steps in one piece")
        return self._call(_library().hwnas_run_timed, x, y, 1, ns.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)))

    def _call(self, run: Any, x: np.ndarray, y: np.ndarray, threads: int, last: Any) -> Callable[[], None]:
        for name, array, size in (("images", x, self.image_size), ("outputs", y, self.output_size)):
            if array.dtype != np.float32 or not array.flags.c_contiguous or array.size != len(x) * size:
                got = f"{array.dtype} {array.shape}"
                raise ValueError(f"{name} are {got}, expected {len(x)} times {size} float32 in one piece")
        if len(x) < 1 or threads < 1:
            raise ValueError(f"{len(x)} images in {threads} threads cannot be run; give at least one of each")
        count, arrays = len(x), (x.ctypes.data_as(_FLOATS), y.ctypes.data_as(_FLOATS))

        def call() -> None:
            if self._handle is None:
                raise ValueError("the program is closed; open it again")
            if run(self._handle, *arrays, count, last) != 0:
                raise RuntimeError(
                    f"{count} images in {threads} threads: memory or threads cannot be had; use fewer threads"
                )

        return call

    def memory(self, thread: int = 0) -> np.ndarray:
        """The memory of a thread's tensors uint8, as its last run left it; it is valid until the program closes.

        Raises:
            ValueError: that thread has not run yet.
        """
        size = ctypes.c_size_t()
        at = None if self._handle is None else _library().hwnas_memory(self._handle, thread, size)
        if at is None:
            raise ValueError(f"thread {thread} has no memory yet; run the program in more threads")
        return np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_uint8)), (size.value,))

    def close(self) -> None:
        """Gives memory and threads back; what was closed before stays closed."""
        if self._handle is not None:
            _library().hwnas_close(self._handle)
            self._handle = None

    def __enter__(self) -> Native:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def open_program(program: Program, instruction_set: str | None = None) -> Native:
    """A program for native code, by the best instruction set unless one of `instruction_sets()` is named.

    Raises:
        ValueError: native code cannot run a step, or this processor lacks the instruction set.
        RuntimeError: there is no compiler, or it fails.
    """
    return Native(encoded(program), instruction_set)
