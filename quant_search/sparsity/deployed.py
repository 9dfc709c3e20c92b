"""What is timed of a pruned model: the file as it would be shipped, in the precision that it would have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from latency.device import Device, entry_of
from latency.harness import measure_models
from latency.store import MeasurementStore
from latency.worker import Effort
from quant_search.policy import check_precisions
from quant_search.precision import kind_of
from quant_search.ranges import neutral_ranges
from quant_search.realise import in_precisions

Latency = Callable[[Sequence[onnx.ModelProto]], list[float]]  # fp32 models to seconds, in the same order


def deployed(model: onnx.ModelProto, device: Device, precision: str = "fp32") -> bytes:
    """The file of an fp32 model in one precision, with ranges of activations that serve to time it, not to use it.

    Raises:
        ValueError: an unknown precision, or one that the device does not turn into time.
    """
    check_precisions((precision,))
    entry = entry_of(device)
    if kind_of(precision) not in entry.precisions:
        raise ValueError(f"device {device.name!r} does not turn {precision} into time: {entry.only}")
    if precision != "fp32":
        groups = {"all": [node.name for node in model.graph.node]}
        model = in_precisions(model, groups, {"all": precision}, neutral_ranges(model), pack=True)
    return bytes(model.SerializeToString())


def measured_latency(
    device: Device, effort: Effort, precision: str = "fp32", store: MeasurementStore | None = None
) -> Latency:
    """A function that times fp32 models, interleaved, as the files that they become in one precision.

    Raises:
        ValueError: as of `deployed`, when it is called.
    """

    def latency(models: Sequence[onnx.ModelProto]) -> list[float]:
        files = [deployed(model, device, precision) for model in models]
        return [m.median_s for m in measure_models(files, device, effort, store)]

    return latency
