"""Native code, compiled on first use by the machine's C++ compiler and kept in the cache folder."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from latency.kernels.toolchain import compiler
from latency.store import CACHE_VARIABLE, default_path

SOURCES = Path(__file__).parent / "native"
_MAIN = "inspect.cpp"
# No contraction: a product and a sum are rounded once only where the source says so.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-pthread")
_LONGEST_S = 600


@functools.cache
def library() -> Path:
    """The shared library, compiled unless the cache has it for these sources, flags and compiler.

    Processes that start at once may each compile; what the last of them moves into place is the same.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    chosen = compiler()
    folder = default_path().parent / "kernels"
    path = folder / f"{_key(chosen)}.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            unfinished = Path(made) / path.name
            _run([chosen, *FLAGS, "-o", str(unfinished), str(SOURCES / _MAIN)])
            unfinished.replace(path)
    except OSError as error:
        raise RuntimeError(
            f"native kernels have no place: {error}; point {CACHE_VARIABLE} to a folder of yours"
        ) from None
    return path


def _key(chosen: str) -> str:
    digest = hashlib.sha256(_run([chosen, "--version"]).encode())
    for part in (chosen, *FLAGS, os.uname().machine):
        digest.update(part.encode() + b"\0")
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"native kernels were not compiled: {error}") from None
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no word"]
        )
        raise RuntimeError(f"native kernels were not compiled: {command[0]} ended with {done.returncode}: {lines[0]}")
    return done.stdout
