"""A latency model of a device for any network, checked on the user's own files: `nas profile --onnx`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latency.device import Device
from latency.graph import executed_kernels, totals
from latency.harness import QUICK, measure_models
from latency.store import MeasurementStore
from nas.measuring import read_model
from nas.progress import Reporter
from predictors.kernel_level import KernelModel
from predictors.kernel_profiling import profile_kernels
from predictors.protocol import Prediction
from predictors.ranking import Agreement, agreement

_SECONDS = 170.0  # for random networks, which the model is fitted on
_COLUMNS = ("file", "predicted_s", "half_width_s", "measured_s", "macs")
_STEPS = 100  # of the bar


@dataclass(frozen=True, eq=False)
class FilesProfile:
    """A model fitted on random networks, and what it says of files (n) that it has not seen."""

    model: KernelModel
    device: Device
    files: tuple[Path, ...]
    predicted: Prediction
    measured_s: np.ndarray
    macs: np.ndarray

    @property
    def agreement(self) -> Agreement:
        """Of predictions and measurements."""
        return agreement(self.predicted.mean, self.measured_s)

    def summary(self) -> dict[str, Any]:
        """What `nas profile --onnx --json` prints."""
        half = self.predicted.half_width(0.9)
        inside = np.abs(self.predicted.mean - self.measured_s) <= half
        found = self.agreement.plain()
        rows = zip(self.files, self.predicted.mean, half, self.measured_s, self.macs, strict=True)
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
            "files": [
                {
                    "file": str(f),
                    "predicted_s": float(p),
                    "half_width_s": float(h),
                    "measured_s": float(m),
                    "macs": int(n),
                }
                for f, p, h, m, n in rows
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
        RuntimeError, ChildProcessError: the run-time fails, or the process that measures dies.
    """
    if device.runtime != "onnxruntime" or device.kind != "cpu":
        raise ValueError(f"--onnx needs ONNX Runtime's profiler on a CPU, got the device {device.name!r}: give cpu")
    models = [read_model(file) for file in files]
    kernels = [executed_kernels(model, device) for model in models]  # what is wrong with a file shows before the work
    with reporter.stage("random networks", _STEPS) as stage:
        done = [0.0]

        def show(share: float) -> None:
            stage.advance(_STEPS * (share - done[0]))
            done[0] = share

        fitted = profile_kernels(device, seconds=_SECONDS, seed=seed, on_progress=show)
    with reporter.stage("files", len(models)) as stage:
        measured = []
        for model in models:
            measured.append(measure_models([model], device, QUICK, store)[0].median_s)
            stage.advance()
    macs = np.array([totals(k).macs for k in kernels])
    return FilesProfile(fitted, device, tuple(files), fitted.predict(kernels), np.array(measured), macs)
