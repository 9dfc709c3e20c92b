"""A latency model of a device for any network, checked on the user's own files: `nas profile --onnx`."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.device import Device
from latency.graph import executed_kernels, totals
from latency.harness import QUICK, measure_models
from latency.kernel_profile import KernelProfile
from latency.runtimes.opening import open_session
from latency.store import MeasurementStore
from nas.errors import CannotBeDone
from nas.measuring import read_model, say_busy
from nas.progress import Reporter
from predictors.kernel_level import KernelModel, floats
from predictors.kernel_profiling import KernelProfiler, Network
from predictors.protocol import Prediction
from predictors.ranking import Agreement, agreement

_STEPS = 100  # of the bar


@dataclass(frozen=True, eq=False)
class FilesProfile:
    """A model fitted on random networks, and what it says of files (n) that it has not seen.

    Args:
        measured_s: of a call, by its parts, as the random networks were measured.
        whole_s: of a call timed whole, which says whether the parts are right; a long one is seldom left alone.
    """

    model: KernelModel
    device: Device
    files: tuple[Path, ...]
    predicted: Prediction
    measured_s: np.ndarray
    whole_s: np.ndarray
    macs: np.ndarray
    wall_s: float

    @property
    def agreement(self) -> Agreement:
        """Of predictions and measurements."""
        return agreement(self.predicted.mean, self.measured_s)

    def summary(self) -> dict[str, Any]:
        """What `nas profile --onnx --json` prints."""
        half = self.predicted.half_width(0.9)
        inside = np.abs(self.predicted.mean - self.measured_s) <= half
        found = self.agreement.plain()
        rows = zip(self.files, self.predicted.mean, half, self.measured_s, self.whole_s, self.macs, strict=True)
        return {
            "device": self.device.name,
            "fingerprint": self.model.fingerprint,
            "heldout": {
                "n": len(self.files),
                "mape": found["mape"],
                "within_5pct": found["within_5"],
                "within_10pct": found["within_10"],
                "spearman": found["spearman"],
                "coverage_90": float(inside.mean()),
            },
            "wall_s": self.wall_s,
            "files": [
                {
                    "file": str(f),
                    "predicted_s": float(p),
                    "half_width_s": float(h),
                    "measured_s": float(m),
                    "whole_s": float(w),
                    "macs": int(n),
                }
                for f, p, h, m, w, n in rows
            ],
        }


def default_file(device: Device) -> Path:
    """`profiles/kernels-DEVICE.json`."""
    return Path("profiles") / f"kernels-{re.sub(r'[^A-Za-z0-9_.]+', '_', device.name)}.json"


def profile_files(
    files: Sequence[Path], device: Device, store: MeasurementStore, reporter: Reporter, seed: int = 0
) -> FilesProfile:
    """Fits a latency model of any network on random ones, and measures the files beside what it predicts of them.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: a device that is no CPU under ONNX Runtime, or a file that it cannot open or count.
        CannotBeDone: the run-time fails on a file.
        ChildProcessError: the process that measures died.
    """
    if device.runtime != "onnxruntime" or device.kind != "cpu":
        raise ValueError(f"--onnx needs ONNX Runtime's profiler on a CPU, got the device {device.name!r}: give cpu")
    begun_s = time.perf_counter()
    networks = [_checked(file, read_model(file), device) for file in files]
    profiler = KernelProfiler(device, store, seed)
    with reporter.stage("random networks", _STEPS) as stage:
        done = [0.0]

        def show(share: float) -> None:
            stage.advance(_STEPS * (share - done[0]))
            done[0] = share

        fitted = profiler.fit(on_progress=show)
    measured, whole_s = list[KernelProfile](), list[float]()
    with reporter.stage("files", len(files)) as stage:
        for file, network in zip(files, networks, strict=True):
            try:
                measured += profiler.profile([network])
                whole_s.append(measure_models([network.model], device, QUICK, store)[0].median_s)
            except RuntimeError as error:
                raise CannotBeDone(f"{file} cannot be measured on {device.name}: {error}") from error
            stage.advance()
    say_busy(reporter, "files", profiler.contentions)
    kernels = [network.kernels for network in networks]
    return FilesProfile(
        model=fitted,
        device=device,
        files=tuple(files),
        predicted=fitted.predict(kernels),
        measured_s=np.array([found.call_s for found in measured]),
        whole_s=np.array(whole_s),
        macs=np.array([totals(k).macs for k in kernels]),
        wall_s=time.perf_counter() - begun_s,
    )


def _checked(file: Path, model: bytes, device: Device) -> Network:
    """A file and its kernels; what is wrong with it shows here, before minutes of work."""
    try:
        open_session(model, device).batch_shape(device.batch)
        return Network(model, tuple(floats(executed_kernels(model, device))))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
