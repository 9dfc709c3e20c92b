"""Which multiples of channels a device likes: off them, time is wasted.

Kernels work on vectors of channels and pad what does not fill them, or are others where channels do not fill them, so
that 100 channels may take as long as 112.  Chains of 1x1 convolutions are timed at multiples of a step and halfway
between.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import onnx
import torch
from torch import nn

from latency.compare import LEAST_CLAIM
from latency.device import Device
from latency.harness import measure_models
from latency.lowering import to_onnx
from latency.store import MeasurementStore
from latency.worker import Effort
from quant_search.sparsity.deployed import deployed

STEPS = (2, 4, 8, 16, 32)
_STARTS = (96, 160)  # multiples of the largest step, above which widths are timed
_SIDE, _LAYERS = 14, 4
EFFORT = Effort(rounds=6, most_rounds=18, samples=12)


def width_step(
    device: Device,
    precision: str = "fp32",
    store: MeasurementStore | None = None,
    effort: Effort = EFFORT,
    on_round: Callable[[], object] = lambda: None,
) -> int:
    """The largest step of `STEPS` off whose multiples more than 3 % of the time is wasted; 1 where none is such.

    Raises:
        ValueError: a precision that the device does not turn into time.
        RuntimeError, ChildProcessError: as of `measure_models`.
    """
    return largest_that_pays(width_waste(device, precision, store, effort, on_round))


def largest_that_pays(waste: Mapping[int, float]) -> int:
    """The largest step with a waste above 3 %; 1 where there is none."""
    return max((step for step, ratio in waste.items() if ratio > 1 + LEAST_CLAIM), default=1)


def width_waste(
    device: Device,
    precision: str = "fp32",
    store: MeasurementStore | None = None,
    effort: Effort = EFFORT,
    on_round: Callable[[], object] = lambda: None,
) -> dict[int, float]:
    """Step to the latency halfway between two of its multiples over the mean of those at both; the mean of two places.

    It is 1, and by curvature hardly less, where latency grows evenly with channels.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `width_step`.
    """
    widths = sorted({start + part for start in _STARTS for step in STEPS for part in (0, step // 2, step)})
    models = [deployed(_chain(width), device, precision) for width in widths]
    measured = measure_models(models, device, effort, store, on_round)
    return waste_of({width: m.median_s for width, m in zip(widths, measured, strict=True)})


def waste_of(latency_s: Mapping[int, float]) -> dict[int, float]:
    """As `width_waste`, of latencies by width."""
    return {
        step: statistics.fmean(
            2 * latency_s[start + step // 2] / (latency_s[start] + latency_s[start + step]) for start in _STARTS
        )
        for step in STEPS
    }


def _chain(width: int) -> onnx.ModelProto:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for _ in range(_LAYERS) for layer in (nn.Conv2d(width, width, 1), nn.ReLU())]
    return to_onnx(nn.Sequential(*layers), (width, _SIDE, _SIDE))
