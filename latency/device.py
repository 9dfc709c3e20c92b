"""Devices to measure on, and the environment whose fingerprint says which measurements are comparable."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from latency.catalog import DEVICES

# The instruction sets that decide which kernels a runtime picks, as Linux spells them.
# fmt: off
ISA_FLAGS = frozenset((
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512dq",
    "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "svei8mm",
    "sme", "sme2",
))
# fmt: on
UNKNOWN = "unknown"

_LATER = ("gpu", "cuda")


@dataclass(frozen=True)
class Device:
    """What is measured on; `name` is its canonical text, so that `parse_device(device.name) == device`."""

    name: str
    kind: str
    threads: int
    runtime: str


@dataclass(frozen=True)
class Environment:
    """Everything that a latency depends on besides the model and the device's settings.

    Args:
        isa: the machine's flags among `ISA_FLAGS`, sorted.
        cores: logical ones.
        system: the operating system, such as Linux.
        machine: the architecture, such as x86_64.
    """

    cpu: str
    isa: tuple[str, ...]
    cores: int
    system: str
    machine: str
    onnxruntime: str
    numpy: str
    python: str


def parse_device(text: str) -> Device:
    """The device that `text` names: `cpu`, or `cpu:threads=2`.

    Raises:
        ValueError: an unknown device or option, or a number of threads that this machine does not have.
    """
    name, _, options = text.partition(":")
    if name in _LATER:
        raise ValueError(f"device {name!r} is not supported: this version measures on cpu only")
    if name not in DEVICES:
        raise ValueError(f"unknown device {name!r}{_nearest(name, DEVICES)}: there are {', '.join(DEVICES)}")
    threads = _threads(text, options) if ":" in text else 1
    entry = DEVICES[name]
    canonical = name if threads == 1 else f"{name}:threads={threads}"
    return Device(canonical, entry.kind, threads, entry.runtime)


def _threads(text: str, options: str) -> int:
    key, _, value = options.partition("=")
    if key != "threads":
        raise ValueError(f"device {text!r}: unknown option {key!r}{_nearest(key, ['threads'])}: there is threads=N")
    cores = os.cpu_count() or 1
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= cores):
        raise ValueError(f"device {text!r}: threads must be a whole number from 1 to {cores} (cores), got {value!r}")
    return int(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@functools.cache
def environment() -> Environment:
    """The environment of this process; what cannot be found out is `unknown`."""
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
        onnxruntime=_version("onnxruntime", "onnxruntime-gpu"),
        numpy=_version("numpy"),
        python=platform.python_version(),
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


def _version(*distributions: str) -> str:
    """The version of the first of `distributions` that is installed."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return UNKNOWN


def fingerprint(device: Device, env: Environment | None = None) -> str:
    """Digest of the environment (by default this one) and the device's settings, 16 hexadecimal digits.

    Measurements with equal fingerprints may be compared and reused.
    """
    parts = [dataclasses.asdict(env or environment()), device.kind, device.threads, device.runtime]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()
