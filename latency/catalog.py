"""The devices that can be measured, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceEntry:
    """A kind of device and what runs models on it.

    Args:
        runtime: the module in `latency/runtimes/` that opens models.
        precisions: those that it turns into time.
        only: why some are not among them.
        networks_only: whether it takes whole networks alone, from images to logits, and tells what their steps take.
        baseline: the device that it is held against: a file that is not faster here is for that one.
    """

    summary: str
    kind: str
    runtime: str
    precisions: tuple[str, ...] = ("fp32", "int8")
    only: str = ""
    networks_only: bool = False
    baseline: str | None = None


DEVICES = {
    "cpu": DeviceEntry(
        summary="this machine's CPU through ONNX Runtime, one thread unless said otherwise (cpu:threads=2)",
        kind="cpu",
        runtime="onnxruntime",
    ),
    "cpu:torch": DeviceEntry(
        summary="this machine's CPU through torch, traced and frozen (cpu:torch,threads=2)",
        kind="cpu",
        runtime="torch",
        precisions=("fp32",),
        only="torch has no int8 form of an ONNX file",
    ),
    "cpu:openvino": DeviceEntry(
        summary="this machine's CPU through OpenVINO (cpu:openvino,threads=2)",
        kind="cpu",
        runtime="openvino",
    ),
    "cpu:fused": DeviceEntry(
        summary="this machine's CPU through our own fused kernels, for files in int8 throughout (cpu:fused,threads=2)",
        kind="cpu",
        runtime="fused",
        precisions=("int8",),
        only="our fused kernels are for int8 throughout",
        networks_only=True,
        baseline="cpu",
    ),
    "gpu": DeviceEntry(
        summary="an NVIDIA GPU through ONNX Runtime's CUDA provider, or through torch where that is not installed",
        kind="gpu",
        runtime="onnxruntime",
        precisions=("fp32",),
        only="ONNX Runtime's CUDA provider has no int8 convolutions",
    ),
    "gpu:torch": DeviceEntry(
        summary="an NVIDIA GPU through torch, as a CUDA graph",
        kind="gpu",
        runtime="torch",
        precisions=("fp32",),
        only="torch has no int8 form of an ONNX file",
    ),
}
