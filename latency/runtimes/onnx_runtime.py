"""ONNX Runtime: sessions with fixed settings on a CPU or through CUDA, and what became int8 after optimisation."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from latency.device import Device
from latency.installed import gpu, onnxruntime_cuda
from latency.runtimes.session import Session, called, fixed_shape

if TYPE_CHECKING:
    import onnx

_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_LOG_ERRORS = 3
_CPU = Device("cpu", "cpu", 1, "onnxruntime")
_CUDA = {"use_tf32": "0"}
# What multiplies weights, before and after fusion, in any domain (ai.onnx, com.microsoft, com.microsoft.nchwc).
_FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
INT8_KERNELS = (
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)


class OnnxSession(Session):
    """A model in ONNX Runtime, whatever its input is called; its first output is taken for logits (b, classes)."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32; any other outputs are computed too."""
        logits: np.ndarray = self._session.run(self._outputs, {self._input: x})[0]
        return logits

    def end_profiling(self) -> Path:
        """The profile of a session that `open_profiled` opened."""
        return Path(self._session.end_profiling())

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
        return fixed_shape(tuple(self._session.get_inputs()[0].shape[1:]))


def open_session(model: bytes | Path, device: Device) -> OnnxSession:
    """Opens a model: all graph optimisations, `device.threads` threads, one operator at a time.

    On a GPU fp32 means fp32: TF32 is off.

    Args:
        model: an ONNX file, or its bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a CUDA provider that does not start, a model that ONNX Runtime does not open, or other inputs than
            one float32.
    """
    session = _open(model, _options(device), device)
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    if [kind for _, kind in inputs] != ["tensor(float)"]:
        raise ValueError(f"{called(model)} has inputs {inputs}, expected one float32 input")
    return OnnxSession(session)


def open_profiled(
    model: bytes | Path, device: Device, prefix: Path, providers: Sequence[str] | None = None
) -> OnnxSession:
    """Opens a model as `open_session` does, with ONNX Runtime's profiler writing to a file of this prefix.

    Args:
        providers: other ones than those of `device`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`, or a device of another run-time.
    """
    if device.runtime != "onnxruntime":
        raise ValueError(f"device {device.name!r} does not run in ONNX Runtime, whose profiler is needed")
    options = _options(device)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    return OnnxSession(_open(model, options, device, providers))


def optimised_graph(model: bytes | Path, device: Device) -> onnx.ModelProto:
    """The model as ONNX Runtime executes it on `device`, after fusion and layout changes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`.
    """
    import onnx  # here, since measuring needs no onnx, and is done where there is none

    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = _options(device)
        options.optimized_model_filepath = str(file)
        _open(model, options, device)
        return onnx.load_model(file)


def executed_graph(model: bytes | Path, device: Device) -> onnx.ModelProto:
    """As `optimised_graph`, with the nodes in the order of their execution.

    The order is read off the profile of one call on blank inputs: the one in which ONNX Runtime saves nodes is another
    where there are branches, and branches of equal rank change places from session to session.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `open_session`, or a model that does not take the device's batch.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = _options(device)
        options.optimized_model_filepath = str(file)
        names = [name for name, _ in _profile(model, options, device.batch)]
        graph = onnx.load_model(file)
    nodes = _in_order(graph.graph.node, names)
    if nodes is None:
        raise ValueError(f"the profile of {called(model)} by ONNX Runtime {onnxruntime.__version__} is not understood")
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def arena_bytes(model: bytes | Path, device: Device) -> tuple[int, ...]:
    """The bytes of the arena that are in use as each kernel of a first call ends (n,), beyond those before the call.

    Activations, that is, without inputs and weights.  Read off the profile; the arena's own rounding is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as for `executed_graph`, or a version of ONNX Runtime whose profile does not tell.
    """
    events = [event for _, event in _profile(model, _options(device), device.batch)]
    try:
        held = [int(event["mem_bytes_requested_in_use"]) for event in events]
        before = held[0] - int(events[0]["mem_requested_in_use_delta"]) if events else 0
    except KeyError as error:
        has = f"the profile of ONNX Runtime {onnxruntime.__version__} has no {error}"
        raise ValueError(f"{has}: memory can be read from version 1.31 on, as far as is known") from error
    return tuple(bytes_ - before for bytes_ in held)


def _profile(model: bytes | Path, options: onnxruntime.SessionOptions, batch: int) -> list[tuple[str, dict[str, str]]]:
    """The names of kernels in the order of a first call on blank inputs, and what the profile tells of each."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = _open(model, options, _CPU)
        _run(session, None, batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    end = "_kernel_time"
    return [(event["name"].removesuffix(end), event["args"]) for event in events if event["name"].endswith(end)]


def _in_order(nodes: Iterable[onnx.NodeProto], names: Iterable[str]) -> list[onnx.NodeProto] | None:
    """The nodes in the order of the names that a profile gives them; None where they do not fit.

    Nodes without a name, such as those of operators that are functions, are called by their operator and a number.
    """
    left = list(nodes)
    ordered: list[onnx.NodeProto] = []
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
    options = _options(_CPU)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # one run does not pay for it
    import onnx

    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del open_model.graph.output[:]
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = _run(_open(open_model.SerializeToString(), options, _CPU), names, batch)
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
    int8 = sum(kind in INT8_KERNELS for kind in kinds)
    total = int8 + sum(kind in _FLOAT for kind in kinds)
    return int8 / total if total else 0.0


def providers_of(device: Device) -> list[str]:
    """The execution providers of a device, the one that is meant first; what it does not run goes to the others."""
    return ["CPUExecutionProvider"] if device.kind == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _options(device: Device) -> onnxruntime.SessionOptions:
    """The settings of every session on `device`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_ERRORS
    return options


def _open(
    model: bytes | Path,
    options: onnxruntime.SessionOptions,
    device: Device,
    providers: Sequence[str] | None = None,
) -> onnxruntime.InferenceSession:
    """A session with these options, in which the first of `providers` (by default those of `device`) takes part."""
    if isinstance(model, Path) and not model.is_file():
        raise FileNotFoundError(f"no model file {model}")
    providers = providers or providers_of(device)
    if device.kind == "gpu":
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # number 0 is the one that nvidia-smi calls so
        onnxruntime.preload_dlls()  # CUDA and cuDNN may lie in Python packages, where the system does not look
    try:
        source = str(model) if isinstance(model, Path) else model
        there = [name for name in providers if name in onnxruntime.get_available_providers()]
        settings = [_CUDA if name == "CUDAExecutionProvider" else {} for name in there]
        # Without its fall-back, which would open the model on the CPU.
        session = onnxruntime.InferenceSession(source, options, there, settings, enable_fallback=0)
    except _ERRORS as error:
        raise ValueError(f"ONNX Runtime cannot open {called(model)}: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != providers[0]:
        raise ValueError(
            f"device {device.name!r}: ONNX Runtime {onnxruntime.__version__} did not start {providers[0]} (built for "
            f"CUDA {onnxruntime_cuda()}, driver {getattr(gpu(), 'driver', None)}): "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or name gpu:torch"
        )
    return session
