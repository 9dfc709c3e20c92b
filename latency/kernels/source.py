"""Native code as one C++ source for machines without this toolkit, with a network's files beside it.

The source is made of the files that are compiled here, so that both compute the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from latency.kernels.build import SOURCES
from latency.kernels.contract import Program
from latency.kernels.program import encoded

_MAIN, _HEADER = "engine.cpp", "hwnas.h"
_SHIPPED = Path(__file__).parent / "shipped"
_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)


def source() -> str:
    """The engine with each file that it includes put in place, as often as it is included; but the header."""
    return _INCLUDE.sub(_included, _read(_MAIN))


def files_of(program: Program, image: np.ndarray) -> dict[str, bytes]:
    """What runs a program without this toolkit, by the names of files.

    These are the source and its header, the weights, an image with the outputs that it has by the reference, an example
    that compares, and what builds it.

    Args:
        image: (1, c, h, w) float32.

    Raises:
        ValueError: native code cannot run a step, or an image of another shape or type.
    """
    expected = (1, *program.input_shape)
    if image.shape != expected or image.dtype != np.float32:
        raise ValueError(f"the sample is {image.dtype} {image.shape}, expected float32 {expected}")
    little = (array.astype("<f4").tobytes() for array in (image, program.run(image)))
    return {
        "hwnas.cpp": source().encode(),
        _HEADER: _read(_HEADER).encode(),
        "weights.bin": encoded(program),
        **dict(zip(("sample-input.bin", "sample-output.bin"), little, strict=True)),
        **{file.name: file.read_bytes() for file in sorted(_SHIPPED.iterdir()) if file.is_file()},
    }


def _included(include: re.Match[str]) -> str:
    name = include[1]
    if name == _HEADER:
        return include[0]
    return _INCLUDE.sub(_included, _read(name)).replace("#pragma once\n", "", 1)


def _read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")
