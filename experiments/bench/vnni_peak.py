"""The most int8 products that a core adds up in a second by AVX-512 VNNI: a loop of nothing else is timed."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from latency.kernels import build
from latency.kernels.native import instruction_sets

SOURCE = Path(__file__).with_suffix(".c")
_MACS = 16 * 64  # of a round: 16 dot products with 64 MACs each
_ROUNDS, _RUNS = 50_000, 40


def vnni_macs_per_s() -> float | None:
    """By CPU time, of the fastest run; None where the processor has no AVX-512 VNNI.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    if "avx512" not in instruction_sets():
        return None
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        path = Path(folder) / "peak.so"
        command = [build.compiler(), "-x", "c", "-O2", "-shared", "-fPIC", "-mavx512f", "-mavx512vnni"]
        made = subprocess.run([*command, "-o", str(path), str(SOURCE)], capture_output=True, text=True, check=False)
        if made.returncode:
            reason = made.stderr.strip() or f"{command[0]} ended with {made.returncode}"
            raise RuntimeError(f"{SOURCE.name} was not compiled: {reason.splitlines()[0]}")
        dots = ctypes.CDLL(str(path)).dots
    dots.argtypes, dots.restype = [ctypes.c_int64], None
    return _MACS * _ROUNDS / min(_took_s(dots) for _ in range(_RUNS))


def _took_s(dots: Callable[[int], object]) -> float:
    start_s = time.thread_time()
    dots(_ROUNDS)
    return time.thread_time() - start_s
