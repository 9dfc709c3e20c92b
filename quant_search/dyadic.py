"""Quantized networks in integers alone: every scale between two layers is a dyadic number b / 2^c.

Source: HAWQ-V3 (arXiv:2011.10680, section 3.1, eq. 6 to 8): the accumulator of a layer counts steps of S_w S_x, its
output steps of S_y, and S_w S_x / S_y is replaced by DN(S_w S_x / S_y) = b / 2^c, a product of integers and a shift.
Sums of branches are brought to the scale of their sum likewise (section 3.2).

`with_dyadic_scales` writes weight scales into a QDQ file for which the ratio is dyadic up to the last bit of float32;
`run_integers` is the reference of what hardware without floats computes from such a file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from latency.lowering import INPUT
from quant_search.layers import Layer, attributes_of, layers_of_codes, scalars_of
from quant_search.ptq.rows import as_matrix, windows

BITS = 16  # of b: less than 1/100 of a code of eight bits is lost
_LARGEST_SHIFT = 62
_MOVES = ("Flatten", "Reshape", "Identity")


def dyadic(ratio: np.ndarray, bits: int = BITS) -> tuple[np.ndarray, np.ndarray]:
    """b (of `bits` bits) and c (0 to 62), int64 in the shape of `ratio`, with ratio = b / 2^c up to 2^-bits of it.

    Raises:
        ValueError: ratios that are not positive and finite.
    """
    ratio = np.asarray(ratio, np.float64)
    if not (np.isfinite(ratio).all() and (ratio > 0).all()):
        raise ValueError(f"only positive finite ratios are dyadic numbers, got {ratio.min()}..{ratio.max()}")
    c = _shift_of(ratio, bits)
    return _in_steps(ratio, c), c


def _shift_of(ratio: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(bits - 1 - np.floor(np.log2(ratio)), 0, _LARGEST_SHIFT).astype(np.int64)


def _in_steps(ratio: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.round(np.ldexp(ratio, c)).astype(np.int64)


def shifted(products: np.ndarray, c: np.ndarray) -> np.ndarray:
    """products / 2^c, rounded to the nearest and halves to even as QuantizeLinear rounds: an addition and a shift."""
    half = np.where(c > 0, np.left_shift(1, np.maximum(c, 1) - 1), 0)
    quotient = np.right_shift(products + half, c)
    tie = (c > 0) & (np.bitwise_and(products + half, np.left_shift(1, c) - 1) == 0)
    return quotient - (tie & (quotient & 1))


@dataclass(frozen=True, eq=False)
class _Value:
    """A tensor as a sum of integers times scales, cut to ends.

    Args:
        terms: (integers int64, scale float64, () or along channels); for what stands in codes there is one.
    """

    terms: tuple[tuple[np.ndarray, np.ndarray], ...]
    cut: tuple[float, float] = (-math.inf, math.inf)

    def only(self, node: NodeProto) -> tuple[np.ndarray, np.ndarray]:
        """The integers and scale of a tensor of codes."""
        if len(self.terms) != 1 or self.cut != (-math.inf, math.inf):
            raise ValueError(
                f"node {node.name!r} ({node.op_type}) reads what is not in codes: quantize the node before it"
            )
        return self.terms[0]


def run_integers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The output (n, classes) float32 of a fully quantized QDQ model for `images` (n, c, h, w) float32.

    Floats are met twice, as images become codes and codes logits; in between are products in 32 bits, multiplications
    by b in 64, and shifts.

    Raises:
        ValueError: a node between codes that is not known here, or that computes in floats.
    """
    integers = _Integers(model)
    return integers.run(images)


class _Integers:
    """Runs the nodes of a model in their order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._scalars = scalars_of(model)
        self._layers = {layer.name: layer for layer in layers_of_codes(model)}
        self._known: dict[str, _Value] = {}
        self._codes: dict[str, np.ndarray] = {}

    def run(self, images: np.ndarray) -> np.ndarray:
        (end,) = (value.name for value in self._model.graph.output)
        for node in self._model.graph.node:
            if node.op_type == "QuantizeLinear":
                self._codes[node.output[0]] = self._quantized(node, images)
            elif node.op_type == "DequantizeLinear":
                self._known[node.output[0]] = self._steps(node)
            elif node.op_type == "Cast":
                self._constants[node.output[0]] = self._constants[node.input[0]].astype(np.int8)
            elif node.op_type != "Constant":
                self._known[node.output[0]] = self._computed(node)
        integers, scale = self._known[end].only(self._model.graph.node[-1])
        return (integers * scale).astype(np.float32)

    def _quantized(self, node: NodeProto, images: np.ndarray) -> np.ndarray:
        scale, zero = (self._constants[name] for name in node.input[1:3])
        if node.input[0] == INPUT:
            steps = np.round(images / scale) + zero
        else:
            steps = _requantized(self._known[node.input[0]], float(scale), int(zero))
        ends = np.iinfo(zero.dtype)
        return np.clip(steps, ends.min, ends.max).astype(zero.dtype)

    def _steps(self, node: NodeProto) -> _Value:
        """Codes less their zero point."""
        source, scale, zero = (node.input[0], *(self._constants[name] for name in node.input[1:3]))
        codes = self._codes[source] if source in self._codes else self._constants[source]
        return _Value(((codes.astype(np.int64) - zero.astype(np.int64).reshape(-1)[:1], scale.astype(np.float64)),))

    def _computed(self, node: NodeProto) -> _Value:
        if node.name in self._layers:
            return self._product(node, self._layers[node.name])
        operation = _OPERATIONS.get(node.op_type)
        inputs = [self._known[name] for name in node.input if name in self._known]
        if operation is None or not inputs:
            raise ValueError(f"node {node.name!r} is a {node.op_type}, which is not computed in integers: quantize it")
        constants = {**self._constants, **self._scalars}
        return operation(node, inputs, [constants.get(name) for name in node.input])

    def _product(self, node: NodeProto, layer: Layer) -> _Value:
        x, x_scale = self._known[node.input[0]].only(node)
        w, w_scale = self._known[node.input[1]].only(node)
        matrix = as_matrix(layer, w)
        if matrix.shape[-1] * 255 * 128 >= 2**31:
            raise ValueError(f"layer {layer.name!r} sums {matrix.shape[-1]} products: they do not fit into 32 bits")
        products = _convolved(layer, x, matrix) if layer.op_type == "Conv" else x @ matrix[0].T
        if len(node.input) > 2:
            bias = self._known[node.input[2]].only(node)[0]
            products += bias.reshape(-1, *[1] * (products.ndim - 2)) if layer.op_type == "Conv" else bias
        scale = np.broadcast_to(x_scale * w_scale, layer.out_channels)
        return _Value(
            ((products, scale.reshape(-1, *[1] * (products.ndim - 2)) if layer.op_type == "Conv" else scale),)
        )


def _convolved(layer: Layer, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Sums of products (b, out channels, *out sizes) of maps (b, c, ...)."""
    seen = windows(layer, x)
    axes = len(layer.strides)
    places = seen.shape[2 : 2 + axes]
    rows = np.moveaxis(seen, 1, 1 + axes).reshape(len(x), math.prod(places), layer.groups, -1)
    sums = np.einsum("npgk,gok->ngop", rows.astype(np.int32), matrix.astype(np.int32))
    return sums.reshape(len(x), layer.out_channels, *places).astype(np.int64)


def _requantized(value: _Value, scale: float, zero: int) -> np.ndarray:
    """Codes of a sum of terms: each times its b, all shifted by one c."""
    ratios = [np.asarray(s / scale) for _, s in value.terms]
    c = _shift_of(functools.reduce(np.maximum, ratios), BITS)
    terms = zip(value.terms, ratios, strict=True)
    total = sum(integers * _in_steps(ratio, c) for (integers, _), ratio in terms)
    low, high = (end if math.isinf(end) else round(end / scale) for end in value.cut)
    return np.clip(shifted(np.asarray(total), c), low, high) + zero


def _added(_node: NodeProto, inputs: Sequence[_Value], _constants: Sequence[np.ndarray | None]) -> _Value:
    return _Value(tuple(term for value in inputs for term in value.terms))


def _multiplied(node: NodeProto, inputs: Sequence[_Value], _constants: Sequence[np.ndarray | None]) -> _Value:
    (a, a_scale), (b, b_scale) = (value.only(node) for value in inputs)
    return _Value(((a * b, a_scale * b_scale),))


def _cut(node: NodeProto, inputs: Sequence[_Value], constants: Sequence[np.ndarray | None]) -> _Value:
    ends = [*constants[1:], None, None][:2] if node.op_type == "Clip" else [np.zeros(()), None]
    low, high = (
        default if end is None else float(end.item()) for end, default in zip(ends, (-math.inf, math.inf), strict=True)
    )
    return replace(inputs[0], cut=(max(low, inputs[0].cut[0]), min(high, inputs[0].cut[1])))


def _averaged(node: NodeProto, inputs: Sequence[_Value], _constants: Sequence[np.ndarray | None]) -> _Value:
    """Sums over maps, in steps of the scale over their number."""
    x, scale = inputs[0].only(node)
    if node.op_type == "GlobalAveragePool":
        axes = tuple(range(2, x.ndim))
        return _Value(((x.sum(axes, keepdims=True), scale / math.prod(x.shape[2:])),))
    seen = _pooled(node, x, 0)
    if any(attributes_of(node).get("pads", ())) and not attributes_of(node).get("count_include_pad", 0):
        raise ValueError(f"node {node.name!r} averages fewer values at the border, which is not computed in integers")
    axes = tuple(range(x.ndim, seen.ndim))
    return _Value(((seen.sum(axes), scale / math.prod(seen.shape[x.ndim :])),))


def _largest(node: NodeProto, inputs: Sequence[_Value], _constants: Sequence[np.ndarray | None]) -> _Value:
    x, scale = inputs[0].only(node)
    return _Value(((_pooled(node, x, int(x.min())).max(axis=tuple(range(x.ndim, 2 * x.ndim - 2))), scale),))


def _pooled(node: NodeProto, x: np.ndarray, fill: int) -> np.ndarray:
    """What a pool sees of `x` (b, c, ...) at every position: (b, c, *out sizes, *kernel)."""
    settings = attributes_of(node)
    kernel = tuple(settings["kernel_shape"])
    one = (1,) * len(kernel)
    if settings.get("ceil_mode", 0):
        raise ValueError(f"node {node.name!r} pools beyond the border (ceil_mode), which is not computed in integers")
    layer = Layer(
        node.name, "Conv", "", "", "", "", 0, (1, 1, *kernel),
        strides=tuple(settings.get("strides", one)), pads=tuple(settings.get("pads", (0,) * 2 * len(kernel))),
        dilations=tuple(settings.get("dilations", one)),
    )  # fmt: skip
    return windows(layer, x, fill)


def _moved(node: NodeProto, inputs: Sequence[_Value], constants: Sequence[np.ndarray | None]) -> _Value:
    x, scale = inputs[0].only(node)
    if node.op_type == "Identity":
        return inputs[0]
    if node.op_type == "Flatten":
        return _Value(((x.reshape(math.prod(x.shape[: attributes_of(node).get("axis", 1)]), -1), scale),))
    target = constants[1]
    if target is None:
        raise ValueError(
            f"node {node.name!r} reshapes to what is computed: bring the model into form by `ptq.intake.prepared`"
        )
    return _Value(((x.reshape([x.shape[i] if n == 0 else int(n) for i, n in enumerate(target)]), scale),))


_Operation = Callable[[NodeProto, Sequence[_Value], Sequence[np.ndarray | None]], _Value]
_OPERATIONS: Mapping[str, _Operation] = {
    "Add": _added,
    "Mul": _multiplied,
    **dict.fromkeys(("Relu", "Clip"), _cut),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), _averaged),
    "MaxPool": _largest,
    **dict.fromkeys(_MOVES, _moved),
}


def with_dyadic_scales(model: onnx.ModelProto, bits: int = BITS) -> onnx.ModelProto:
    """A copy of a QDQ model in which S_w S_x / S_y of every layer whose output is rounded is b / 2^c, b of `bits` bits.

    Weight scales move by less than 2^-bits of their size, those of activations stay; codes of biases follow.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {t.name: t for t in result.graph.initializer}
    made = {node.output[0]: node for node in result.graph.node}
    done = set()
    for layer in layers_of_codes(model):
        node = made[layer.output]
        after = _rounding_after(result, layer.output)
        x, w = (made.get(name) for name in node.input[:2])
        if after is None or x is None or w is None or x.op_type != "DequantizeLinear" or w.input[1] in done:
            continue
        done.add(w.input[1])
        s_x, s_w, s_y = (
            numpy_helper.to_array(tensors[name]).astype(np.float64) for name in (x.input[1], w.input[1], after.input[1])
        )
        b, c = dyadic(s_w * s_x / s_y, bits)
        scale = np.ldexp(b.astype(np.float64), -c) * s_y / s_x
        _store(tensors[w.input[1]], scale.astype(np.float32))
        if len(node.input) > 2 and node.input[2] in made:
            bias = made[node.input[2]]
            old = numpy_helper.to_array(tensors[bias.input[1]]).astype(np.float64)
            new = (np.broadcast_to(s_x * scale, old.shape)).astype(np.float32)
            values = numpy_helper.to_array(tensors[bias.input[0]]) * old
            _store(tensors[bias.input[1]], new)
            _store(tensors[bias.input[0]], np.round(values / new).astype(np.int32))
    return result


def _rounding_after(model: onnx.ModelProto, tensor: str) -> NodeProto | None:
    """The QuantizeLinear that alone reads a tensor, behind ReLU and Clip at most."""
    readers = [node for node in model.graph.node if tensor in node.input]
    if len(readers) != 1:
        return None
    if readers[0].op_type in ("Relu", "Clip"):
        return _rounding_after(model, readers[0].output[0])
    return readers[0] if readers[0].op_type == "QuantizeLinear" else None


def _store(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
