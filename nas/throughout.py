"""Devices that run files in int8 throughout: what `nas quantize` does there, and where files in fp32 run meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from latency.device import Device, baseline_of, entry_of
from latency.runtimes.opening import check_covered
from quant_search.realise import in_int8

USUAL_SENSITIVITY = "kl"
_INT8 = ("int8",)


def only_int8(device: Device) -> bool:
    """Whether all of a file has to be in int8."""
    return entry_of(device).precisions == _INT8


def check_asked(precisions: Sequence[str], objective: str, sensitivity: str, device: Device) -> None:
    """Refuses what a device cannot choose among that runs int8 alone.

    Raises:
        ValueError: other precisions than int8; size as the objective, since zeros that are not stored have no kernels;
            or a measure of what single layers lose, of which none may stay in fp32.
    """
    if not only_int8(device):
        return
    if tuple(precisions) != _INT8:
        only, got = entry_of(device).only, ",".join(precisions)
        raise ValueError(f"device {device.name!r} runs int8 only ({only}), got {got!r}: give --precision int8")
    if objective != "latency":
        raise ValueError(
            f"files on {device.name!r} are chosen by latency, got objective {objective!r}: give --device cpu"
        )
    if sensitivity != USUAL_SENSITIVITY:
        why = f"no layer may stay in fp32 on {device.name!r}, so that their damages decide nothing"
        raise ValueError(f"{why}: leave sensitivity {sensitivity!r} out, or give --device cpu")


def check_int8(model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], image: np.ndarray, device: Device) -> None:
    """Refuses a network that a device without fp32 does not run in int8 throughout, before any work is done for it.

    Args:
        groups: of all its layers.
        image: (1, c, h, w) float32.

    Raises:
        ValueError: with the nodes.
    """
    if not only_int8(device):
        return
    try:
        check_covered(in_int8(model, groups, image).SerializeToString(), device)
    except ValueError as error:
        raise ValueError(f"the network does not run on {device.name} ({error}): give --device cpu") from error


def place_of(chosen: Mapping[str, str], device: Device) -> Device:
    """Where a file whose layers have these precisions is run: here, or in fp32 on the baseline of a device without."""
    fp32 = set(chosen.values()) == {"fp32"}
    return (baseline_of(device) or device) if fp32 and only_int8(device) else device
