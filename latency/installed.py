"""What devices need and whether it is there: found in metadata and files, so that nothing heavy is loaded."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from latency.kernels import toolchain

UNKNOWN = "unknown"
_SMI_S = 20.0  # a driver that wakes its GPUs takes seconds


@dataclass(frozen=True)
class Gpu:
    """The GPU that CUDA calls number 0 here."""

    name: str
    driver: str


def version(*distributions: str) -> str:
    """The version of the first of `distributions` that is installed, or `unknown`."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return UNKNOWN


def onnxruntime_version() -> str:
    """Of ONNX Runtime, whichever of its packages brought it."""
    return version("onnxruntime", "onnxruntime-gpu")


@functools.cache
def gpu() -> Gpu | None:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves, as `nvidia-smi` names it; None where there is none."""
    smi, visible = shutil.which("nvidia-smi"), os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if smi is None or visible in ("", "-1"):
        return None
    which = [] if visible.startswith("MIG") else ["-i", visible]  # the parts of a GPU are not queried so
    command = [smi, *which, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, _, driver = (done.stdout.splitlines() or [""])[0].partition(",")
    return Gpu(name.strip(), driver.strip()) if driver else None


def torch_cuda() -> str | None:
    """The version of CUDA that torch is built for; None where it is built for CPUs, or not installed."""
    return _written(_folder("torch") / "version.py", "cuda")


def onnxruntime_cuda() -> str | None:
    """The version of CUDA that ONNX Runtime is built for; None where it has no CUDA provider."""
    folder = _folder("onnxruntime") / "capi"
    if not any(folder.glob("*onnxruntime_providers_cuda*")):
        return None
    return _written(folder / "build_and_package_info.py", "cuda_version") or UNKNOWN


def _folder(package: str) -> Path:
    """Where a package is, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path(os.devnull)


def _written(file: Path, name: str) -> str | None:
    """The text that a line `name = 'text'` of a Python file assigns."""
    try:
        content = file.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", content, re.MULTILINE)
    return found[1] if found else None


def lacking(kind: str, runtime: str) -> str | None:
    """What is missing for a device of this kind and run-time, and how to get it; None where all is there."""
    if kind == "gpu" and gpu() is None:
        return (
            "no NVIDIA GPU was found (asked nvidia-smi, with CUDA_VISIBLE_DEVICES respected): "
            "install NVIDIA's driver, or measure on cpu"
        )
    if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        return "the package openvino is not installed: pip install 'hwnas[openvino]'"
    if runtime == "torch" and importlib.util.find_spec("torch") is None:
        return "the package torch is not installed: pip install torch"
    if runtime == "fused":
        return _no_compiler()
    if kind == "gpu" and runtime == "torch" and torch_cuda() is None:
        return f"torch {version('torch')} is built for CPUs: install a build for CUDA (https://pytorch.org)"
    if kind == "gpu" and runtime == "onnxruntime" and onnxruntime_cuda() is None:
        return (
            f"ONNX Runtime {onnxruntime_version()} has no CUDA provider: "
            "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    return None


def versions(kind: str, runtime: str) -> tuple[tuple[str, str], ...]:
    """Name and version of all that a latency depends on here besides ONNX Runtime itself; none for it on a CPU."""
    if runtime == "fused":
        return _of_kernels()
    found: list[tuple[str, str]] = []
    if runtime != "onnxruntime":
        found.append((runtime, version(runtime)))
    if kind == "gpu":
        here = gpu()
        cuda = torch_cuda() if runtime == "torch" else onnxruntime_cuda()
        found.append(("cuda", cuda or UNKNOWN))
        found += [("gpu", here.name), ("driver", here.driver)] if here else []
    return tuple(found)


def _no_compiler() -> str | None:
    """Why native kernels cannot be compiled; None where they can."""
    try:
        toolchain.compiler()
    except RuntimeError as error:
        return str(error)
    return None


def _of_kernels() -> tuple[tuple[str, str], ...]:
    """The compiler of native kernels, and their digest."""
    try:
        name = toolchain.version(toolchain.compiler())
    except RuntimeError:
        name = None
    return (("compiler", name or UNKNOWN), ("kernels", toolchain.kernels_digest()))
