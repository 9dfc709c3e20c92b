"""OpenVINO on a CPU: a file compiled for one stream and the device's threads, in fp32 wherever the file is.

A timed model is compiled for the shape of its input, as OpenVINO's guide to low latency has it; accuracies are taken
with the batch left open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from latency.device import Device
from latency.runtimes.session import Session, called, fixed_shape, read

# What multiplies weights, as the compiled graph names it.
_PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_INT8 = ("i8", "u8")


class OpenVinoSession(Session):
    """A model in OpenVINO, compiled when it is first needed."""

    def __init__(self, model: openvino.Model, what: str, threads: int) -> None:
        self._model, self._what, self._threads = model, what, threads
        first = next(iter(model.input(0).partial_shape), None)
        self.fixed_batch = first.get_length() if first is not None and first.is_static else None

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32."""
        return np.array(self._request.infer({0: x}, share_inputs=True)[0])

    @functools.cached_property
    def _request(self) -> Any:
        return self.compiled(None).create_infer_request()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch.

        Raises:
            ValueError: a size besides the batch that the model leaves open.
        """
        sizes = list(self._model.input(0).partial_shape)[1:]
        return fixed_shape(tuple(size.get_length() if size.is_static else None for size in sizes))

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """One inference of the model compiled for the shape of `x`; inputs and outputs are not copied."""
        request = self.compiled(len(x)).create_infer_request()
        return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)

    def compiled(self, batch: int | None) -> Any:
        """The compiled model, for this batch or for any.

        Raises:
            ValueError: it cannot be compiled.
        """
        model = self._model.clone()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
            "ENABLE_CPU_PINNING": False,  # which cores are used is the caller's affair, as with other run-times
        }
        try:
            if batch is not None:
                model.reshape([batch, *self.input_shape])
            return _core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ValueError(f"OpenVINO cannot compile {self._what}: {_gist(error)}") from error


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()


def open_session(model: bytes | Path, device: Device) -> OpenVinoSession:
    """Opens a model for `device.threads` threads of the CPU.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a model that OpenVINO does not open, or other inputs than one float32.
    """
    try:
        opened = _core().read_model(read(model))
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot open {called(model)}: {_gist(error)}") from error
    inputs = [(i.any_name, i.element_type.get_type_name()) for i in opened.inputs]
    if [kind for _, kind in inputs] != ["f32"]:
        raise ValueError(f"{called(model)} has inputs {inputs}, expected one float32 input")
    return OpenVinoSession(opened, called(model), device.threads)


def int8_share(model: bytes | Path, device: Device) -> float:
    """The share, by number, of convolutions and matrix products that run in int8; 0 where there are none.

    Counted in the graph that OpenVINO compiled for one image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    graph = open_session(model, device).compiled(1).get_runtime_model()
    found = [info for info in map(_info, graph.get_ops()) if info["layerType"] in _PRODUCTS]
    return sum(info["runtimePrecision"] in _INT8 for info in found) / len(found) if found else 0.0


def _info(operation: Any) -> dict[str, str]:
    """What the compiled graph says of an operation, as text."""
    known = operation.get_rt_info()
    return {key: str(known[key].astype(str)) for key in ("layerType", "runtimePrecision")}


def _gist(error: Exception) -> str:
    """The last line that says something: those before it are places in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
