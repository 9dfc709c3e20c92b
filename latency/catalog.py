"""The devices that can be measured, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceEntry:
    """A kind of device and what runs models on it."""

    summary: str
    kind: str
    runtime: str


DEVICES = {
    "cpu": DeviceEntry(
        summary="this machine's CPU through ONNX Runtime, one thread unless said otherwise (cpu:threads=2)",
        kind="cpu",
        runtime="onnxruntime",
    ),
}
