"""Weights that do not matter, kept once for many models: ONNX external data that point into one file of random numbers.

What a model takes does not depend on the values of its weights, as long as they are ordinary numbers.  Within a model
every weight has a place of its own in the file: weights that lay in the same place would share the caches, too.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import set_external_data

from supernet.atomic import write_atomic

_LEAST_BYTES = 256  # smaller tensors stay in the model
_ALIGNED = 64  # bytes: a line of the cache, as run-times align their own copies
_STD = 0.05  # of the numbers: far from what overflows, or vanishes, over many layers
_KINDS = {  # element types that any bytes of the file are valid values of, and their sizes
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
}
_CHUNK = 2**20  # numbers drawn at a time


def share_weights_(model: onnx.ModelProto, file_name: str) -> int:
    """Lets the weights of `model` point into a file of this name beside it, in place; the bytes it must have.

    Weights are initializers with two axes or more.  Scales, zero points, biases and whatever is small stay as they
    are: they decide which kernels are chosen, and whether values stay ordinary.
    """
    end = 0
    for tensor in model.graph.initializer:
        size = _KINDS.get(tensor.data_type, 0) * math.prod(tensor.dims)
        if len(tensor.dims) < 2 or size < _LEAST_BYTES:
            continue
        kind, dims, name = tensor.data_type, tuple(tensor.dims), tensor.name
        tensor.Clear()
        tensor.data_type, tensor.name = kind, name
        tensor.dims.extend(dims)
        tensor.raw_data = b""  # the helper refuses tensors without it
        set_external_data(tensor, file_name, offset=end, length=size)
        tensor.ClearField("raw_data")
        end += math.ceil(size / _ALIGNED) * _ALIGNED
    return end


def write_weights(file: Path, size_bytes: int, seed: int = 0) -> None:
    """Writes random numbers that `share_weights_` may point to, `size_bytes` of them at least, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """

    def fill(part: Path) -> None:
        rng, left = np.random.default_rng(seed), math.ceil(size_bytes / 4)
        with part.open("wb") as stream:
            while left > 0:
                numbers = rng.standard_normal(min(left, _CHUNK), dtype=np.float32) * np.float32(_STD)
                stream.write(numbers.astype("<f4").tobytes())
                left -= len(numbers)

    write_atomic(file, fill)
