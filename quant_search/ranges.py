"""The ranges of activations that int8 codes are spread over: measured on images, or made up where only speed counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData

from latency.lowering import INPUT
from quant_search.catalog import OBSERVERS
from quant_search.formats.granularity import PER_TENSOR
from quant_search.formats.integer import Integer
from quant_search.formats.naming import suggestion
from quant_search.formats.number import Format
from quant_search.histogram import Histogram, histogram
from quant_search.marks import OPERATORS, float_activations, mark
from quant_search.observers import Observer, min_max

UINT8 = Integer(8, symmetric=False, signed=False)  # what ONNX Runtime's fast kernels read
_LOG_ERRORS = 3
_BATCH_PIXELS = 2**14
_FROM_ZERO = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus")
_UP_TO_ONE = ("Sigmoid", "HardSigmoid", "Softmax")
_MOVES = ("Reshape", "Flatten", "Identity", "Transpose", "Squeeze", "Unsqueeze", "Gather")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
_UNBOUNDED = (-np.inf, np.inf)
_H_SWISH_LEAST = -0.375  # x * relu6(x + 3) / 6 at x = -1.5


def activation_ranges(
    model: onnx.ModelProto,
    images: np.ndarray,
    batch: int | None = None,
    nodes: Sequence[str] | None = None,
    threads: int = 1,
    method: str | Observer = "min-max",
    number: Format = UINT8,
) -> TensorsData:
    """The range of every activation of `model` over `images` (n, c, h, w) float32.

    Args:
        batch: images at a time; unless said otherwise so few that activations stay in the processor's caches.
        nodes: take only what is needed to quantize these.
        method: a name of `OBSERVERS`, or such a function; by default the smallest and largest value.
        number: the format that the ranges are for, with a scale for the whole tensor.

    Raises:
        ValueError: no images, an unknown method, or a format that has no scale for the whole tensor.
    """
    observer = _observer(method, number)
    if observer is not min_max:
        return ranges_of(activation_histograms(model, images, batch, nodes, threads), observer, number)
    names, parts = _needed(model, images, batch, nodes)
    if not names:
        return TensorsData(CalibrationMethod.MinMax, {})
    session = _open(_with_outputs(model, names, ("ReduceMin", "ReduceMax")), threads)
    found = [session.run(None, {INPUT: part}) for part in parts]
    low, high = (np.array(found, np.float32)[:, i::2] for i in (0, 1))
    return _as_data(zip(names, np.nanmin(low, axis=0), np.nanmax(high, axis=0), strict=True))


def activation_histograms(
    model: onnx.ModelProto,
    images: np.ndarray,
    batch: int | None = None,
    nodes: Sequence[str] | None = None,
    threads: int = 1,
) -> dict[str, Histogram]:
    """The histogram of every activation of `model` over `images` (n, c, h, w) float32, for several methods to read.

    One batch of activations is in memory at a time; other batches change counts by the rounding of activations alone.

    Args:
        batch, nodes: as `activation_ranges`.

    Raises:
        ValueError: no images, or an activation that is not finite.
    """
    names, parts = _needed(model, images, batch, nodes)
    if not names:
        return {}
    session = _open(_with_outputs(model, names, ("Identity",)), threads)
    seen: dict[str, Histogram] = {}
    for part in parts:
        for name, values in zip(names, session.run(None, {INPUT: part}), strict=True):
            try:
                new = histogram(values)
            except ValueError as error:
                raise ValueError(f"activation {name!r}: {error}") from error
            seen[name] = seen[name] + new if name in seen else new
    return seen


def ranges_of(
    histograms: Mapping[str, Histogram], method: str | Observer = "min-max", number: Format = UINT8
) -> TensorsData:
    """The ranges that a method finds in what `activation_histograms` gives.

    Raises:
        ValueError: an unknown method, or a format that has no scale for the whole tensor.
    """
    observer = _observer(method, number)
    return _as_data((name, *observer(seen, number)) for name, seen in histograms.items())


def _observer(method: str | Observer, number: Format) -> Observer:
    if not number.accepts(PER_TENSOR):
        raise ValueError(f"{number.name} has no scale for a whole tensor, for which ranges are: take uint8 or e4m3")
    if not isinstance(method, str):
        return method
    if method not in OBSERVERS:
        near = suggestion(method, OBSERVERS)
        raise ValueError(f"unknown calibration method {method!r}{near}; there are {', '.join(OBSERVERS)}")
    return OBSERVERS[method]


def _needed(
    model: onnx.ModelProto, images: np.ndarray, batch: int | None, nodes: Sequence[str] | None
) -> tuple[list[str], list[np.ndarray]]:
    """The activations to be looked at, and the images in batches."""
    if not len(images):
        raise ValueError("activation ranges need calibration images, got none")
    names = _touched(model) if nodes is None else [n for n, of in mark(model, nodes).activations.items() if of is None]
    batch = batch or max(1, _BATCH_PIXELS // int(np.prod(images.shape[2:])))
    return names, np.array_split(images, max(1, len(images) // batch))


def _as_data(ends: Iterable[tuple[str, float, float]]) -> TensorsData:
    ranges = {name: tuple(np.array([end], np.float32) for end in (low, high)) for name, low, high in ends}
    return TensorsData(CalibrationMethod.MinMax, ranges)


def _touched(model: onnx.ModelProto) -> list[str]:
    """Activations that an operator with an int8 kernel reads or writes, in order."""
    floats = float_activations(model)
    nodes = (node for node in model.graph.node if node.op_type in OPERATORS)
    return list(dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name in floats))


def _with_outputs(model: onnx.ModelProto, names: Sequence[str], kinds: Sequence[str]) -> bytes:
    """`model` whose outputs are nodes of `kinds` (ReduceMin, ReduceMax, Identity) on each named tensor, in turn."""
    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    graph = augmented.graph
    graph.ClearField("output")
    for i, name in enumerate(names):
        for kind in kinds:
            output = f"{kind} {i}"
            whole = kind == "Identity"
            graph.node.append(helper.make_node(kind, [name], [output], **({} if whole else {"keepdims": 0})))
            graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None if whole else []))
    serialized: bytes = augmented.SerializeToString()
    return serialized


def _open(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # more of them wait in loops, which costs a pinned process its core
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # activations as they are
    options.log_severity_level = _LOG_ERRORS
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def neutral_ranges(model: onnx.ModelProto, seed: int = 0) -> TensorsData:
    """Plausible ranges of every activation without running `model`: for networks of which only speed is measured.

    What cannot be negative starts at exactly 0 and h-swish at -0.375; everything else lies around 0.  No two scales
    are equal, so that the graph is optimised as with ranges from images.
    """
    names, limits = _touched(model), _limits(model)
    moved = {node.output[0]: node.input[0] for node in model.graph.node if _moves(node, limits)}
    rng = np.random.default_rng(seed)
    drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    ends = {}
    for name in names:
        origin = name
        while origin in moved:
            origin = moved[origin]
        if origin not in drawn:
            drawn[origin] = _draw(limits.get(origin, _UNBOUNDED), rng)
        ends[name] = drawn[origin]
    return TensorsData(CalibrationMethod.MinMax, ends)


def _draw(limits: tuple[float, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    (least, most), (below, above) = limits, rng.uniform(2, 4, 2)
    ends = max(least, -below), above if most == np.inf else most * above / 4
    return np.array([ends[0]], np.float32), np.array([ends[1]], np.float32)


def _moves(node: NodeProto, limits: Mapping[str, tuple[float, float]]) -> bool:
    """Whether the output has the range of the input: the same values, or, from 0 on, the larger of them."""
    return node.op_type in _MOVES or (node.op_type == "MaxPool" and limits.get(node.input[0], _UNBOUNDED)[0] >= 0)


def _limits(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Tensor to the values between which it lies by the way it is computed, where there are such bounds."""
    limits = {t.name: _extent(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    for node in model.graph.node:
        bounds = _bounds(node, [limits.get(name, _UNBOUNDED) for name in node.input])
        if bounds != _UNBOUNDED:
            limits[node.output[0]] = bounds
    return limits


def _bounds(node: NodeProto, inputs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    kind = node.op_type
    if kind == "Constant":
        values = [a.t for a in node.attribute if a.name == "value" and a.t.data_type == TensorProto.FLOAT]
        return _extent(values[0]) if values else _UNBOUNDED
    if kind in _FROM_ZERO:
        return 0.0, 1.0 if kind in _UP_TO_ONE else np.inf
    if kind == "HardSwish":
        return _H_SWISH_LEAST, np.inf
    if kind == "Clip":
        least, most = (inputs[i] if i < len(node.input) and node.input[i] else _UNBOUNDED for i in (1, 2))
        return least[0], most[1]
    if kind in _MOVES or kind in _POOLS:
        return inputs[0]
    if kind in ("Add", "Mul") and all(least >= 0 for least, _ in inputs):
        return 0.0, np.inf
    return _UNBOUNDED


def _extent(tensor: TensorProto) -> tuple[float, float]:
    values = numpy_helper.to_array(tensor)
    return (float(values.min()), float(values.max())) if values.size else _UNBOUNDED
