"""ONNX Runtime: sessions with fixed settings, accuracy of a file, and what became int8 after optimisation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from latency.device import Device

_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_LOG_ERRORS = 3
# What multiplies weights, before and after fusion, in any domain (ai.onnx, com.microsoft, com.microsoft.nchwc).
_FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_INT8 = (
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)


class Session:
    """An opened model with one float32 input (b, ...); its first output is taken for logits (b, classes)."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32; any other outputs are computed too."""
        logits: np.ndarray = self._session.run(self._outputs, {self._input: x})[0]
        return logits

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an input of so many images.

        Raises:
            ValueError: the model takes another number of them, or leaves a size besides the batch open.
        """
        shape = self._session.get_inputs()[0].shape
        if not shape or (isinstance(shape[0], int) and shape[0] != batch):
            raise ValueError(f"the model's input has the fixed shape {shape}: a batch of {batch} does not fit")
        return (batch, *self.input_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch.

        Raises:
            ValueError: a size besides the batch that the model leaves open.
        """
        shape = self._session.get_inputs()[0].shape[1:]
        if not all(isinstance(size, int) for size in shape):
            raise ValueError(f"the model's input must have fixed sizes besides the batch, got {shape}")
        return tuple(shape)

    def predict_labels(self, x: np.ndarray, batch: int = 256) -> np.ndarray:
        """The class with the largest logit, int64 (n,), of images `x` (n, *input_shape) float32."""
        parts = [self.run(x[i : i + batch]).argmax(axis=1) for i in range(0, len(x), batch)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def open_session(model: bytes | Path, device: Device) -> Session:
    """Opens a model: all graph optimisations, `device.threads` threads, one operator at a time, on the CPU alone.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a device that is no CPU, a model that ONNX Runtime does not open, or other inputs than one float32.
    """
    session = _open(model, _options(device))
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    if [kind for _, kind in inputs] != ["tensor(float)"]:
        raise ValueError(f"{_called(model)} has inputs {inputs}, expected one float32 input")
    return Session(session)


def accuracy(session: Session, x: np.ndarray, y: np.ndarray, batch: int = 256) -> float:
    """The share of images `x` (n, *input_shape) float32 whose label `y` (n,) is predicted.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"accuracy needs as many labels as images, and one at least: got {len(y)} and {len(x)}")
    return float(np.mean(session.predict_labels(x, batch) == y))


def optimised_graph(model: bytes | Path, device: Device) -> onnx.ModelProto:
    """The model as ONNX Runtime executes it on `device`, after fusion and layout changes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = _options(device)
        options.optimized_model_filepath = str(file)
        _open(model, options)
        return onnx.load_model(file)


def int8_share(model: bytes | Path, device: Device) -> float:
    """The share, by number, of convolutions and matrix products that run in int8 on `device`; 0 where there are none.

    Counted after ONNX Runtime's optimisation: a QDQ pair that did not become an int8 kernel does not count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    kinds = [node.op_type for node in optimised_graph(model, device).graph.node]
    int8 = sum(kind in _INT8 for kind in kinds)
    total = int8 + sum(kind in _FLOAT for kind in kinds)
    return int8 / total if total else 0.0


def _options(device: Device) -> onnxruntime.SessionOptions:
    if device.kind != "cpu":
        raise ValueError(f"ONNX Runtime is used on cpu only, got the device {device.name!r}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_ERRORS
    return options


def _open(model: bytes | Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    if isinstance(model, Path) and not model.is_file():
        raise FileNotFoundError(f"no model file {model}")
    try:
        source = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        raise ValueError(f"ONNX Runtime cannot open {_called(model)}: {str(error).splitlines()[0]}") from error


def _called(model: bytes | Path) -> str:
    return f"the model {model}" if isinstance(model, Path) else f"the model of {len(model)} bytes"
