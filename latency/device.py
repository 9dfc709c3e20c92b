"""Devices to measure on, and the environment whose fingerprint says which measurements are comparable."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.catalog import DEVICES, DeviceEntry
from latency.installed import UNKNOWN, lacking, onnxruntime_version, version, versions

# The instruction sets that decide which kernels a runtime picks, as Linux spells them.
# fmt: off
ISA_FLAGS = frozenset((
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512dq",
    "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "svei8mm",
    "sme", "sme2",
))
# fmt: on

MOST_IMAGES = 2**16  # in one call
_ALSO_CALLED = {"cuda": "gpu", "nvidia": "gpu"}


@dataclass(frozen=True)
class Device:
    """What is measured on; `name` is its canonical text, so that `parse_device(device.name) == device`.

    Args:
        batch: images in one call.
    """

    name: str
    kind: str
    threads: int
    runtime: str
    batch: int = 1


@dataclass(frozen=True)
class Environment:
    """Everything that a latency depends on besides the model and the device's settings.

    Args:
        isa: the machine's flags among `ISA_FLAGS`, sorted.
        cores: logical ones of the machine, whether this process may use them or not.
        system: the operating system, such as Linux.
        machine: the architecture, such as x86_64.
        versions: name and version of what the device's run-time adds: torch, openvino, cuda, gpu, driver.
    """

    cpu: str
    isa: tuple[str, ...]
    cores: int
    system: str
    machine: str
    onnxruntime: str
    numpy: str
    python: str
    versions: tuple[tuple[str, str], ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON: every field and every version by its name."""
        fields = dataclasses.asdict(self)
        del fields["versions"]
        return fields | dict(self.versions)


def parse_device(text: str) -> Device:
    """The device that `text` names: an entry of the catalog, with `batch=N` and on CPUs `threads=N` after it.

    `cpu`, `cpu:threads=2`, `cpu:torch`, `cpu:torch,threads=2`, `gpu:batch=32`.  A `gpu` for which ONNX Runtime has no
    CUDA provider is `gpu:torch`; nothing else is put in the place of what was asked for.

    Raises:
        ValueError: an unknown device or option, more threads than cores that this process may use, or a GPU or
            run-time that is not there.
    """
    kind, _, rest = text.partition(":")
    if kind not in DEVICES:
        raise ValueError(f"unknown device {kind!r}{_nearest(kind, DEVICES)}: there are {', '.join(DEVICES)}")
    if ":" in rest:
        raise ValueError(f"device {text!r}: options are separated by commas: give {kind}:{rest.replace(':', ',')}")
    name, numbers = kind, dict[str, int]()
    for option in rest.split(",") if ":" in text else ():
        key, _, value = option.partition("=")
        if f"{kind}:{option}" in DEVICES and name == kind:
            name = f"{kind}:{option}"
        elif key in numbers or f"{kind}:{option}" in DEVICES:
            once = ", ".join(f"{known}=N" for known in _numbers(kind))
            raise ValueError(f"device {text!r}: {option!r} is one option too many: give one run-time, and {once} once")
        else:
            numbers[key] = _number(text, kind, key, value)
    return _device(_present(name), numbers.get("threads", 1), numbers.get("batch", 1))


def at_batch(device: Device, batch: int) -> Device:
    """The device with so many images in one call.

    Raises:
        ValueError: none, or too many.
    """
    if not 1 <= batch <= MOST_IMAGES:
        raise ValueError(f"batch must be a whole number from 1 to {MOST_IMAGES} (images), got {batch}")
    return _device(next(n for n, e in DEVICES.items() if e is entry_of(device)), device.threads, batch)


def baseline_of(device: Device) -> Device | None:
    """The device that files must be faster than on here, with as many threads and images; None where there is none."""
    name = entry_of(device).baseline
    return None if name is None else _device(name, device.threads, device.batch)


def _device(name: str, threads: int, batch: int) -> Device:
    entry = DEVICES[name]
    numbers = [f"{key}={number}" for key, number in (("threads", threads), ("batch", batch)) if number > 1]
    options = ",".join([*name.split(":")[1:], *numbers])
    return Device(f"{entry.kind}:{options}" if options else entry.kind, entry.kind, threads, entry.runtime, batch)


def _present(name: str) -> str:
    """The name of the device, or of what stands for it.

    Raises:
        ValueError: it is not there.
    """
    reason = lacking(DEVICES[name].kind, DEVICES[name].runtime)
    if reason is None:
        return name
    if name == "gpu" and lacking("gpu", "torch") is None:
        return "gpu:torch"
    raise ValueError(f"device {name!r}: {reason}")


def entry_of(device: Device) -> DeviceEntry:
    """What the catalog says of a device."""
    return next(e for e in DEVICES.values() if (e.kind, e.runtime) == (device.kind, device.runtime))


def _numbers(kind: str) -> tuple[str, ...]:
    """The options of a kind of device that are numbers."""
    return ("threads", "batch") if kind == "cpu" else ("batch",)


def _number(text: str, kind: str, key: str, value: str) -> int:
    runtimes = [name.partition(":")[2] for name in DEVICES if name.startswith(f"{kind}:")]
    if key not in _numbers(kind):
        known = [*runtimes, *_numbers(kind)]
        there = ", ".join([*runtimes, *(f"{number}=N" for number in _numbers(kind))])
        raise ValueError(f"device {text!r}: unknown option {key!r}{_nearest(key, known)}: there is {there}")
    most, what = (usable_cores(), "cores that this process is allowed") if key == "threads" else (MOST_IMAGES, "images")
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= most):
        raise ValueError(f"device {text!r}: {key} must be a whole number from 1 to {most} ({what}), got {value!r}")
    return int(value)


def usable_cores() -> int:
    """How many cores this process may use: those that it is pinned to, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nearest(name: str, known: Iterable[str]) -> str:
    close = [_ALSO_CALLED[name]] if name in _ALSO_CALLED else difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@functools.cache
def environment(device: Device | None = None) -> Environment:
    """The environment of this process, with the versions that matter to `device`; what is not known is `unknown`."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        text = ""
    cpu, isa = parse_cpuinfo(text)
    return Environment(
        cpu=cpu if cpu != UNKNOWN else platform.processor() or UNKNOWN,
        isa=isa,
        cores=os.cpu_count() or 1,
        system=platform.system() or UNKNOWN,
        machine=platform.machine() or UNKNOWN,
        onnxruntime=onnxruntime_version(),
        numpy=version("numpy"),
        python=platform.python_version(),
        versions=versions(device.kind, device.runtime) if device else (),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """The model of the CPU and its flags among `ISA_FLAGS`, sorted, from the contents of `/proc/cpuinfo`.

    Arm kernels give no model name there; the implementer and part numbers stand in for it.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    isa = ISA_FLAGS.intersection(fields.get("flags", fields.get("Features", "")).split())
    arm = f"Arm implementer {fields.get('CPU implementer')} part {fields.get('CPU part')}"
    model = fields.get("model name") or (arm if "CPU part" in fields else UNKNOWN)
    return model, tuple(sorted(isa))


def fingerprint(device: Device, env: Environment | None = None) -> str:
    """Digest of the environment (by default this one) and the device's settings, 16 hexadecimal digits.

    Measurements with equal fingerprints may be compared and reused.  The version of a run-time counts on the devices
    that use it.
    """
    plain = (env or environment(device)).plain()
    if device.runtime != "onnxruntime":
        del plain["onnxruntime"]
    parts = [plain, device.kind, device.threads, device.runtime, *([device.batch] if device.batch > 1 else [])]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()
