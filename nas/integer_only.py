"""Files for hardware without floats: int8 throughout, with dyadic scales (HAWQ-V3, `quant_search.dyadic`).

Beside ONNX Runtime, which computes with the same scales as floats, the integer reference runs on some images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from latency.device import Device
from latency.runtimes.opening import open_session
from quant_search.dyadic import run_integers, with_dyadic_scales
from quant_search.realise import in_int8

_IMAGES = 64  # the reference takes seconds for each of a large network
_BATCH = 8


@dataclass(frozen=True)
class InIntegers:
    """What the integer reference said of a file.

    Args:
        same_class: the share of the images that fall into the same class as in ONNX Runtime.
    """

    images: int
    same_class: float


def check_integers(model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], image: np.ndarray) -> None:
    """Refuses a network that integers cannot run, before any work is done for it.

    Args:
        groups: of all its layers.
        image: (1, c, h, w) float32.

    Raises:
        ValueError: with the node, and what to do.
    """
    try:
        run_integers(with_dyadic_scales(in_int8(model, groups, image)), image)
    except ValueError as error:
        why = str(error).removesuffix(": quantize it")
        raise ValueError(f"there is no integer-only file of this network, {why}: leave integer-only out") from error


def in_integers(model: onnx.ModelProto, file: bytes, device: Device, images: np.ndarray) -> InIntegers:
    """Runs a file in integers alone on the first of some images (n, c, h, w), and in ONNX Runtime.

    Args:
        model: of which `file` holds the bytes; or the same with its zeros stored.
    """
    session, same = open_session(file, device), []
    for start in range(0, min(_IMAGES, len(images)), _BATCH):
        part = images[start : min(start + _BATCH, _IMAGES)]
        same.extend(run_integers(model, part).argmax(axis=1) == session.run(part).argmax(axis=1))
    return InIntegers(len(same), float(np.mean(same)))
