"""ONNX Runtime: sessions with fixed settings, accuracy of a file, and what became int8 after optimisation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from latency.device import Device

INPUT, OUTPUT = "input", "logits"

_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_LOG_ERRORS = 3
_NODE_EVENT = "_kernel_time"  # what the profile adds to the names of nodes
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
    """An opened model with one input `input` (b, ...) float32 and one output `logits` (b, classes)."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32."""
        logits: np.ndarray = self._session.run([OUTPUT], {INPUT: x})[0]
        return logits

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
        ValueError: a device that is no CPU, a model that ONNX Runtime does not open, or other inputs or outputs.
    """
    return _checked(_open(model, _options(device)), model)


def _checked(session: onnxruntime.InferenceSession, model: bytes | Path) -> Session:
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    outputs = [o.name for o in session.get_outputs()]
    if inputs != [(INPUT, "tensor(float)")] or outputs != [OUTPUT]:
        expected = f"one float32 input {INPUT!r} and one output {OUTPUT!r}"
        raise ValueError(f"{_called(model)} has inputs {inputs} and outputs {outputs}, expected {expected}")
    return Session(session)


class ProfiledSession:
    """A session that notes how long each node takes, which costs some microseconds a node."""

    def __init__(self, session: Session, inner: onnxruntime.InferenceSession) -> None:
        self.run, self.input_shape = session.run, session.input_shape
        self._inner = inner

    def durations_s(self) -> dict[str, list[float]]:
        """For each node's name, how long it took in each call so far; ends the notes.

        Durations are known to a microsecond, rounded down: half of one is added.
        """
        file = Path(self._inner.end_profiling())
        events = json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
        found: dict[str, list[float]] = {}
        for event in events:
            if event["name"].endswith(_NODE_EVENT):
                found.setdefault(event["name"].removesuffix(_NODE_EVENT), []).append((event["dur"] + 0.5) * 1e-6)
        return found


def open_profiled_session(model: bytes | Path, device: Device, folder: Path) -> ProfiledSession:
    """Opens a model as `open_session` does, with notes of each node's time; they grow in `folder` until they end.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    options = _options(device)
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    inner = _open(model, options)
    return ProfiledSession(_checked(inner, model), inner)


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


def executed_graph(model: bytes | Path, device: Device, batch: int = 1) -> onnx.ModelProto:
    """As `optimised_graph`, with the nodes in the order of their execution.

    The order is read off the profile of one call on blank inputs: the one in which ONNX Runtime saves nodes is another
    where there are branches, and branches of equal rank change places from session to session.

    Args:
        batch: the size of the inputs' first axis.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`, or a batch that the model does not take.
    """
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = _options(device)
        options.optimized_model_filepath = str(file)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = _open(model, options)
        _run(session, None, batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        graph = onnx.load_model(file)
    names = [event["name"].removesuffix(_NODE_EVENT) for event in events if event["name"].endswith(_NODE_EVENT)]
    nodes = _in_order(graph.graph.node, names)
    if nodes is None:
        raise ValueError(f"the profile of {_called(model)} by ONNX Runtime {onnxruntime.__version__} is not understood")
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def _in_order(nodes: Iterable[onnx.NodeProto], names: Iterable[str]) -> list[onnx.NodeProto] | None:
    """The nodes in the order of the names that a profile gives them; None where they do not fit.

    Nodes without a name, such as those of operators that are functions, are called by their operator and a number.
    """
    left, ordered = list(nodes), list[onnx.NodeProto]()
    pending = {name for node in left for name in node.output}
    for name in names:
        called = (n for n in left if n.name == name or (not n.name and name.startswith(f"{n.op_type}_")))
        node = next((n for n in called if pending.isdisjoint(n.input)), None)
        if node is None:
            return None
        left.remove(node)
        ordered.append(node)
        pending.difference_update(node.output)
    return None if left else ordered


def tensors_of(model: onnx.ModelProto, batch: int = 1) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every input and of every tensor that a node makes, read off a run on blank inputs.

    The graph runs as it stands, without optimisation: one that was optimised before is not changed any more.
    Dtypes are named as NumPy and ml_dtypes name them.  All tensors are held at once.

    Args:
        batch: the size of the inputs' first axis.

    Raises:
        ValueError: a model that ONNX Runtime does not open or run, another batch, or other sizes left open.
    """
    options = _options(Device("cpu", "cpu", 1, "onnxruntime"))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # one run does not pay for it
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del open_model.graph.output[:]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = _run(_open(open_model.SerializeToString(), options), names, batch)
    return {name: (tuple(value.shape()), _dtype(value.data_type())) for name, value in values.items()}


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str] | None, batch: int
) -> dict[str, onnxruntime.OrtValue]:
    """The blank inputs and the outputs of a call, by name."""
    names = outputs if outputs is not None else [o.name for o in session.get_outputs()]
    blank = {i.name: _blank(i, batch) for i in session.get_inputs()}
    try:
        return blank | dict(zip(names, session.run_with_ort_values(names, blank), strict=True))
    except _ERRORS as error:
        raise ValueError(f"the model does not run at batch {batch}: {str(error).splitlines()[0]}") from error


def _blank(value: onnxruntime.NodeArg, batch: int) -> onnxruntime.OrtValue:
    shape = [size if isinstance(size, int) else batch for size in value.shape[:1]] + value.shape[1:]
    if not all(isinstance(size, int) for size in shape) or shape[:1] not in ([], [batch]):
        raise ValueError(f"input {value.name!r} must have fixed sizes and take the batch {batch}, got {value.shape}")
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, _dtype(value.type)))


def _dtype(kind: str) -> str:
    """The name of a tensor's dtype that ONNX Runtime writes as tensor(float)."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


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
