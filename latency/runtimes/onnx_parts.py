"""Models in ONNX Runtime that are timed by their nodes: by its own profiler, which writes a file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latency.device import Device
from latency.runtimes.onnx_runtime import OnnxSession, open_profiled

_EVENT = re.compile(
    rb'"dur" :(\d+),"ts" :\d+,"ph" : "X","name" :"(?:(model_run)|([^"\\]*(?:\\.[^"\\]*)*)_kernel_time)"'
)
_HALF_TICK_US = 0.5  # the profiler cuts times to whole microseconds


class OnnxParts:
    """An opened model that is profiled."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an input of so many images."""
        return self._session.batch_shape(batch)

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One call for the images `x` (b, *input_shape) float32."""
        return self._session.call(x)

    def end(self) -> list[tuple[str, str, int, list[float]]]:
        """The nodes of the optimised graph in the order in which they ran: name, kind, inputs, seconds of each call."""
        nodes = read_profile(self._session.end_profiling())
        return [
            (name, kind, inputs, [1e-6 * (t + _HALF_TICK_US) for t in us]) for name, (kind, inputs, us) in nodes.items()
        ]


def open_parts(model: bytes | Path, device: Device, prefix: Path) -> OnnxParts:
    """Opens a model whose profile is written to a file of this prefix.

    Raises:
        FileNotFoundError, ValueError: as for `open_profiled`.
    """
    return OnnxParts(open_profiled(model, device, prefix))


def read_profile(file: Path) -> dict[str, tuple[str, int, list[int]]]:
    """The nodes of a profile that ONNX Runtime wrote, in the order in which they ran; the file is deleted.

    By name: kind, inputs, and the microseconds of each call.  Events are a line each; all but the first one of a node
    are read by the two fields that are needed, since there are tens of thousands.  Nodes of one name are told apart by
    their order in a call.
    """
    nodes: dict[bytes, tuple[str, int, list[int]]] = {}
    seen: Counter[bytes] = Counter()  # in this call
    content = file.read_bytes()
    for event in _EVENT.finditer(content):
        us, is_run, name = event.groups()
        if is_run:
            seen.clear()
            continue
        seen[name] += 1
        if seen[name] > 1:
            name = b"%s #%d" % (name, seen[name])
        if name not in nodes:
            start, end = content.rindex(b"\n", 0, event.start()), content.index(b"\n", event.end())
            args = json.loads(content[start:end].rstrip(b","))["args"]
            nodes[name] = (args["op_name"], len(args.get("input_type_shape", ())), [])
        nodes[name][2].append(int(us))
    file.unlink()
    return {name.decode(errors="replace"): found for name, found in nodes.items()}
