"""The exported source, compiled as its README says and kept for the next test run; its three functions."""

import ctypes
import functools
import hashlib
import subprocess

import numpy as np

from latency.kernels.source import source
from latency.kernels.toolchain import compiler
from latency.store import default_path

FLAGS = ("-O3", "-march=native")  # no word of contraction: the source itself has to hold them back
_FLOATS = ctypes.POINTER(ctypes.c_float)


@functools.cache
def compiled(header):
    """The library of the source, for which `header` is all that stands beside it."""
    digest = hashlib.sha256("\0".join((source(), header, compiler(), *FLAGS)).encode()).hexdigest()
    folder = default_path().parent / "kernels" / f"shipped-{digest[:24]}"
    library = folder / "libhwnas.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hwnas.cpp").write_text(source())
        (folder / "hwnas.h").write_text(header)
        options = [*FLAGS, "-fPIC", "-shared", "-o", "unfinished.so", "hwnas.cpp"]
        subprocess.run([compiler(), *options], cwd=folder, check=True)
        (folder / "unfinished.so").replace(library)
    return library


def run(library, program, x, threads=1, instruction_set=None):
    """What the three functions make of images."""
    native = ctypes.CDLL(str(library))
    native.hwnas_open.restype = ctypes.c_void_p
    native.hwnas_open.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    native.hwnas_run.argtypes = [ctypes.c_void_p, _FLOATS, _FLOATS, ctypes.c_int64, ctypes.c_int]
    native.hwnas_close.argtypes = [ctypes.c_void_p]
    message = ctypes.create_string_buffer(256)
    handle = native.hwnas_open(program, len(program), instruction_set, message, 256)
    assert handle, message.value
    outputs = np.frombuffer(program, "<i4", 1, 28)[0]
    y = np.empty((len(x), outputs), np.float32)
    assert native.hwnas_run(handle, x.ctypes.data_as(_FLOATS), y.ctypes.data_as(_FLOATS), len(x), threads) == 0
    native.hwnas_close(handle)
    return y
