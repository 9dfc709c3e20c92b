"""What can be measured on here: each device with what was found for it, or what is missing.  Loads no run-time."""

from __future__ import annotations

from typing import Any

from latency.catalog import DEVICES
from latency.device import environment
from latency.installed import gpu, lacking, onnxruntime_version, versions
from nas.config import Settings

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def describe_devices() -> dict[str, Any]:
    """The machine (CPU, instruction sets, cores, GPU) and its devices.

    A device has `available`, `missing` (what, and how to get it; None where nothing is) and `versions` of what is
    installed for it.
    """
    here, found = environment(), gpu()
    machine = {
        "cpu": here.cpu,
        "isa": list(here.isa),
        "cores": here.cores,
        "system": here.system,
        "machine": here.machine,
        "gpu": {"name": found.name, "driver": found.driver} if found else None,
    }
    return {"machine": machine, "devices": [_device(name) for name in DEVICES]}


def _device(name: str) -> dict[str, Any]:
    entry = DEVICES[name]
    missing = lacking(entry.kind, entry.runtime)
    installed = dict(versions(entry.kind, entry.runtime))
    if entry.runtime == "onnxruntime":
        installed = {"onnxruntime": onnxruntime_version()} | installed
    return {
        "name": name,
        "summary": entry.summary,
        "default": name == Settings().device,
        "available": missing is None or (name == "gpu" and lacking("gpu", "torch") is None),
        "missing": missing,
        "runtime": entry.runtime,
        "provider": _PROVIDERS[entry.kind] if entry.runtime == "onnxruntime" else None,
        "precisions": list(entry.precisions),
        "versions": installed,
    }
