"""What can be measured on here: each device with what was found for it, or what is missing.  Loads no run-time."""

from __future__ import annotations

from typing import Any

from latency.catalog import DEVICES
from latency.device import environment
from latency.energy import counters_of
from latency.installed import gpu, lacking, onnxruntime_version, versions
from nas.config import Settings

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def describe_devices() -> dict[str, Any]:
    """The machine (CPU, instruction sets, cores, GPU) and its devices.

    A device has `available`, `missing` (what, and how to get it; None where nothing is) and `versions` of what is
    installed for it.  `no_energy` says by kind of device why energy cannot be measured; None where it can.
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
    devices = [_device(name) for name in DEVICES]
    kinds = dict.fromkeys(device["name"].partition(":")[0] for device in devices if device["available"])
    return {"machine": machine, "devices": devices, "no_energy": {kind: _no_energy(kind) for kind in kinds}}


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


def _no_energy(kind: str) -> str | None:
    try:
        counters_of(kind)
    except ValueError as error:
        return str(error)
    return None
