"""Networks measured kernel by kernel: what a latency model for any graph is fitted on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from latency.graph import Kernel, Tensor
from latency.node_times import NodeTimes

_DISTURBED = 1.1  # as of `timing`: times this much above the fastest were shared with somebody
_STEP_S = 1e-6  # of the profiler's clock


@dataclass(frozen=True)
class KernelProfile:
    """One network, its times undisturbed.

    Args:
        kernels: as ONNX Runtime executes them, in order (n).
        profiled_s: of each kernel in its place, what the profiler adds included (n); empty where their names do not
            tell them apart.
        call_s: of a whole call without the profiler.
    """

    kernels: tuple[Kernel, ...]
    profiled_s: tuple[float, ...]
    call_s: float

    def to_json(self) -> str:
        """One line of JSON that `from_json` turns back into an equal profile."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> KernelProfile:
        """The profile that `to_json` wrote.

        Raises:
            ValueError: text that is none.
        """
        try:
            record = json.loads(text)
            kernels = tuple(_kernel(plain) for plain in record["kernels"])
            return KernelProfile(kernels, tuple(map(float, record["profiled_s"])), float(record["call_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a kernel profile in JSON: {error}") from error


def profile_of(kernels: Sequence[Kernel], times: NodeTimes) -> KernelProfile:
    """What is left of the times of a network's kernels where they were undisturbed."""
    names = [kernel.name for kernel in kernels]
    apart = len(set(names)) == len(names) and set(names) == set(times.node_s)
    profiled = tuple(undisturbed_s(times.node_s[name], _STEP_S) for name in names) if apart else ()
    return KernelProfile(tuple(kernels), profiled, undisturbed_s([t for visit in times.call_s for t in visit]))


def undisturbed_s(seconds: Sequence[float], step_s: float = 0.0) -> float:
    """The mean of the times within a tenth of the fastest, or a step of the clock; of many, of the third fastest."""
    ordered = np.sort(seconds)
    limit = _DISTURBED * ordered[min(2, len(ordered) // 10)] + step_s
    return float(ordered[ordered <= limit].mean())


def _kernel(plain: dict[str, Any]) -> Kernel:
    tensors = {key: tuple(_tensor(t) for t in plain[key]) for key in ("inputs", "weights", "constants", "outputs")}
    attributes = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in plain["attributes"])
    return Kernel(**(plain | tensors | {"attributes": attributes}))


def _tensor(plain: dict[str, Any]) -> Tensor:
    return Tensor(plain["name"], tuple(plain["shape"]), plain["dtype"])
