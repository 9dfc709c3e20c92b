"""What native kernels are made of and by: their sources, and the machine's C++ compiler.

Asked wherever devices are listed, so it loads the standard library alone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

_COMPILERS = ("g++", "c++", "clang++")
_VERSION_S = 20.0
_DIGITS = 12


def compiler() -> str:
    """The C++ compiler: what CXX names, else the first of g++, c++ and clang++.

    Raises:
        RuntimeError: there is none.
    """
    chosen = os.environ.get("CXX")
    for name in (chosen,) if chosen else _COMPILERS:
        if (path := shutil.which(name)) is not None:
            return path
    fault = f"CXX names {chosen!r}, which is not there" if chosen else f"there is none of {', '.join(_COMPILERS)}"
    raise RuntimeError(f"native kernels need a C++ compiler, but {fault}; install g++ or set CXX")


@functools.cache
def version(path: str) -> str | None:
    """What a compiler calls itself, the first line of it; None where it does not say."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


@functools.cache
def kernels_digest() -> str:
    """A digest of all that decides how fast kernels are: native sources, and what makes programs for them."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".hpp", ".cpp", ".h")):
        digest.update(source.relative_to(folder).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:_DIGITS]
