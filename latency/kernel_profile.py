"""Networks measured kernel by kernel: what a latency model for any graph is fitted on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latency.graph import Kernel, Tensor
from latency.parts import Parts, ProfilerCost

_LEAST_KERNEL_S = 2e-7


@dataclass(frozen=True)
class KernelProfile:
    """One network, its times undisturbed.

    Args:
        kernels: as ONNX Runtime executes them, in order (n).
        kernel_s: of each kernel in its place (n); empty where their names do not tell them apart.
        call_s: of a whole call.
    """

    kernels: tuple[Kernel, ...]
    kernel_s: tuple[float, ...]
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
            return KernelProfile(kernels, tuple(map(float, record["kernel_s"])), float(record["call_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a kernel profile in JSON: {error}") from error


def profile_of(kernels: Sequence[Kernel], parts: Parts, cost: ProfilerCost, slower: float = 1.0) -> KernelProfile:
    """The times of a network's kernels, without what the profiler adds.

    Args:
        slower: by what factor the machine was slower than usual when they were timed.
    """
    times = {n.name: max(n.seconds - cost.node_s - cost.input_s * n.inputs, _LEAST_KERNEL_S) for n in parts.nodes}
    names = [kernel.name for kernel in kernels]
    apart = len(set(names)) == len(names) and set(names) == set(times)
    kernel_s = tuple(times[name] / slower for name in names) if apart else ()
    return KernelProfile(tuple(kernels), kernel_s, parts.seconds(cost) / slower)


def _kernel(plain: dict[str, Any]) -> Kernel:
    tensors = {key: tuple(_tensor(t) for t in plain[key]) for key in ("inputs", "weights", "constants", "outputs")}
    attributes = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in plain["attributes"])
    return Kernel(**(plain | tensors | {"attributes": attributes}))


def _tensor(plain: dict[str, Any]) -> Tensor:
    return Tensor(plain["name"], tuple(plain["shape"]), plain["dtype"])
