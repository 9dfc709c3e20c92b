"""Where ONNX Runtime runs each node of a model: a provider that lacks a kernel leaves the node to the next one.

Read from the profile of one run, in which every node names the provider that ran it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latency.device import Device
from latency.runtimes.onnx_runtime import open_profiled, providers_of

_SUFFIX = "_kernel_time"  # what the profile adds to the name of a node
_FLOATS = ("float", "float16", "bfloat16", "double")
_SHOWN = 5


class Placed(NamedTuple):
    """One node of the optimised graph.

    Args:
        provider: ONNX Runtime's name of what ran it, such as CUDAExecutionProvider.
        computes: whether it gives floats with a batch and one more axis at least.  ONNX Runtime computes shapes on
            the CPU on purpose.
    """

    node: str
    op_type: str
    provider: str
    computes: bool


def placement(model: bytes, device: Device, providers: Sequence[str] | None = None) -> tuple[Placed, ...]:
    """The nodes of `model` after optimisation, in the order in which they ran, each with its provider.

    Args:
        providers: by default those of `device`.

    Raises:
        ValueError: as for `open_profiled`, or a batch that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        session = open_profiled(model, device, Path(folder) / "profile", providers)
        session.run(np.zeros(session.batch_shape(device.batch), np.float32))
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    return tuple(_placed(event) for event in events if event.get("cat") == "Node" and "provider" in event["args"])


def _placed(event: dict[str, Any]) -> Placed:
    arguments = event["args"]
    outputs = [pair for output in arguments.get("output_type_shape", ()) for pair in output.items()]
    computes = any(kind in _FLOATS and len(shape) > 1 for kind, shape in outputs)
    return Placed(event["name"].removesuffix(_SUFFIX), arguments["op_name"], arguments["provider"], computes)


def elsewhere(placed: Sequence[Placed], provider: str) -> tuple[Placed, ...]:
    """The nodes that compute and that another provider ran."""
    return tuple(p for p in placed if p.computes and p.provider != provider)


def check(model: bytes, device: Device, providers: Sequence[str] | None = None) -> None:
    """Refuses a model of which a part would be timed on something else than `device`.

    Raises:
        ValueError: with the nodes that ran elsewhere; or as for `placement`.
    """
    meant = (providers or providers_of(device))[0]
    placed = placement(model, device, providers)
    if strays := elsewhere(placed, meant):
        shown = ", ".join(f"{p.node} ({p.op_type}, {p.provider})" for p in strays[:_SHOWN])
        more = f" and {len(strays) - _SHOWN} more" if len(strays) > _SHOWN else ""
        raise ValueError(
            f"device {device.name!r}: {len(strays)} of {len(placed)} nodes do not run on {meant} but elsewhere: "
            f"{shown}{more}; leave these operators out of the space, or name another run-time"
        )
