"""Opening a model on a device: the device's run-time is loaded then, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latency.device import Device
from latency.runtimes.session import Session

if TYPE_CHECKING:
    from latency.parts import PartsSession


def open_session(model: bytes | Path, device: Device) -> Session:
    """Opens a model in the run-time of `device`, with its number of threads.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a model that the run-time does not open, or other inputs than one float32.
    """
    if device.runtime == "torch":
        from latency.runtimes import torch_runtime

        return torch_runtime.open_session(model, device)
    if device.runtime == "openvino":
        from latency.runtimes import openvino_runtime

        return openvino_runtime.open_session(model, device)
    if device.runtime == "fused":
        from latency.runtimes import fused

        return fused.open_session(model, device)
    from latency.runtimes import onnx_runtime

    return onnx_runtime.open_session(model, device)


def open_parts(model: bytes | Path, device: Device, prefix: Path) -> PartsSession:
    """Opens a model that is timed by its nodes, in one thread where the kernels are ours.

    Args:
        prefix: of files that the run-time may write.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`, or a device whose run-time does not tell the times of nodes.
    """
    if device.runtime == "fused":
        from latency.runtimes import fused

        return fused.open_parts(model, device)
    from latency.runtimes import onnx_parts

    return onnx_parts.open_parts(model, device, prefix)


def check_placement(model: bytes, device: Device) -> None:
    """Refuses a model of which a provider other than the device's runs a part, as ONNX Runtime allows.

    Other run-times run all of a model where they are told to, and so does ONNX Runtime's own CPU provider.

    Raises:
        ValueError: with the nodes that run elsewhere.
    """
    if device.runtime == "onnxruntime" and device.kind != "cpu":
        from latency import placement

        placement.check(model, device)


def check_covered(model: bytes, device: Device) -> None:
    """Refuses a model with nodes that the device's run-time has no kernels for; nothing is compiled or run.

    Only our own kernels can be asked so; other run-times cover what this toolkit writes.

    Raises:
        ValueError: with the nodes.
    """
    if device.runtime == "fused":
        from latency.kernels.intake import program_of

        program_of(model)


def int8_share(model: bytes | Path, device: Device) -> float:
    """The share, by number, of convolutions and matrix products that run in int8 on `device`; 0 where there are none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    if device.runtime == "torch":
        return 0.0  # it opens fp32 files only
    if device.runtime == "fused":
        return 1.0  # and files in int8 throughout only
    if device.runtime == "openvino":
        from latency.runtimes import openvino_runtime

        return openvino_runtime.int8_share(model, device)
    from latency.runtimes import onnx_runtime

    return onnx_runtime.int8_share(model, device)
