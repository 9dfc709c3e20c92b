"""Which multiples of channels a device likes: up to which step a layer is rounded up at no cost.

Kernels work on vectors of channels and pad what does not fill them, so that 97 channels may take as long as 112.  Chains
of 1x1 convolutions are timed at widths between two multiples.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

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
    """The largest step of `STEPS` such that rounding widths up to multiples of it is free; 1 where none is.

    A step is free where the one before it is, and halfway between two of its multiples a chain is not faster by more than
    3 % than at the upper one.

    Raises:
        ValueError: a precision that the device does not turn into time.
        RuntimeError, ChildProcessError: as of `measure_models`.
    """
    return largest_free(width_costs(device, precision, store, effort, on_round))


def largest_free(costs: dict[int, float]) -> int:
    """The last step (rising) before the first whose cost is above 3 %; 1 where that is the first."""
    found = 1
    for step, cost in sorted(costs.items()):
        if cost > 1 + LEAST_CLAIM:
            break
        found = step
    return found


def width_costs(
    device: Device,
    precision: str = "fp32",
    store: MeasurementStore | None = None,
    effort: Effort = EFFORT,
    on_round: Callable[[], object] = lambda: None,
) -> dict[int, float]:
    """Step to the latency at one of its multiples over the one half a step below; the mean over two of them.

    Raises:
        ValueError, RuntimeError, ChildProcessError: as of `width_step`.
    """
    widths = sorted({start + part for start in _STARTS for step in STEPS for part in (step, step // 2)})
    models = [deployed(_chain(width), device, precision) for width in widths]
    measured = measure_models(models, device, effort, store, on_round)
    latency_s = {width: m.median_s for width, m in zip(widths, measured, strict=True)}
    return {
        step: statistics.fmean(latency_s[start + step] / latency_s[start + step // 2] for start in _STARTS)
        for step in STEPS
    }


def _chain(width: int) -> onnx.ModelProto:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for _ in range(_LAYERS) for layer in (nn.Conv2d(width, width, 1), nn.ReLU())]
    return to_onnx(nn.Sequential(*layers), (width, _SIDE, _SIDE))
