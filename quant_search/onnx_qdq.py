"""Static int8 quantization of chosen nodes of an ONNX model, in QDQ form.

uint8 asymmetric activations and int8 symmetric per-channel weights: the one combination that ONNX Runtime's x86
kernels run fast.  Symmetric activations cannot absorb a ReLU, and operator-format or uint8 weights fall back to
slow kernels.  The result computes what ONNX Runtime's own `QDQQuantizer` makes, which goes through weights channel
by channel in Python and takes tens of times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper, version_converter
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.formats.granularity import PER_TENSOR, Granularity, extremes
from quant_search.formats.integer import Integer
from quant_search.formats.number import Scales
from quant_search.marks import Bias, Constant, Marks, mark, quantizable
from quant_search.ranges import UINT8, activation_ranges, neutral_ranges
from quant_search.weight_codes import WeightCodes, packed_tensor, weight_bits

__all__ = ["activation_ranges", "neutral_ranges", "quantize", "weight_bits"]

INT32 = Integer(32)  # of biases
INT4_OPSET, INT4_IR = 21, 10


def quantize(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    ranges: TensorsData,
    codes: Mapping[str, WeightCodes] | None = None,
    pack: bool = True,
) -> onnx.ModelProto:
    """A copy of `model` in which the named nodes compute in int8; nodes without an int8 kernel stay as they are.

    Args:
        ranges: what `activation_ranges` or `neutral_ranges` found for this model.
        codes: node name to the weight it computes with; others are rounded to int8.  Those of nodes that are not
            quantized are not used.
        pack: store codes of up to four bits as INT4, which lifts the model to opset 21; as int8 otherwise.  ONNX
            Runtime widens them once, as it opens the file: kernels, outputs and time are the same.

    Raises:
        ValueError: an activation without a range, codes of an unknown node or of another shape than its weight's,
            different codes for nodes that share a weight, or a model that cannot be lifted to opset 21.
    """
    there = quantizable(model, nodes)
    given = _codes_of_weights(model, there, codes or {})
    if pack and any(found.packed for found in given.values()):
        model = with_int4(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if there:
        marks = mark(model, nodes)
        result.graph.ClearField("node")
        result.graph.ClearField("initializer")
        result.graph.ClearField("value_info")  # of names that are others now; the file does without
        _Rewriter(model, marks, result.graph, given, pack).write(ranges)
    return result


def _codes_of_weights(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], codes: Mapping[str, WeightCodes]
) -> dict[str, WeightCodes]:
    """Name of a weight to the codes given for the node that reads it."""
    unknown = set(codes) - {node.name for node in model.graph.node}
    if unknown:
        raise ValueError(f"codes are given for {min(unknown)!r}, which is no node of the model")
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found: dict[str, WeightCodes] = {}
    for node in nodes:
        if node.name not in codes:
            continue
        weight, given = node.input[1], codes[node.name]
        if shapes.get(weight) != given.values.shape:
            raise ValueError(
                f"node {node.name!r} has a weight of shape {shapes.get(weight)}, got codes of {given.values.shape}"
            )
        if not found.setdefault(weight, given).equals(given):
            raise ValueError(f"node {node.name!r} shares its weight {weight!r}: give both nodes the same codes")
    return found


def with_int4(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` at an opset that has four-bit tensors: 21 or later.

    Raises:
        ValueError: a model that cannot be lifted to it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < INT4_OPSET:
        try:
            result = version_converter.convert_version(model, INT4_OPSET)
        except Exception as error:  # the converter's errors have no base of their own
            reason = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
            raise ValueError(
                f"four-bit weights need opset {INT4_OPSET}; this model of opset {opset} cannot be lifted: {reason}"
            ) from error
    result.ir_version = max(result.ir_version, INT4_IR)
    return result


class _Rewriter:
    """Writes the quantized graph of `model` into an empty one."""

    def __init__(
        self,
        model: onnx.ModelProto,
        marks: Marks,
        graph: onnx.GraphProto,
        given: Mapping[str, WeightCodes],
        pack: bool,
    ) -> None:
        self._model, self._marks, self._graph, self._given, self._pack = model, marks, graph, given, pack
        self._values = {t.name: t for t in model.graph.initializer}
        self._ends = {value.name for value in model.graph.output}
        self._scale: dict[str, np.ndarray] = {}  # of activations and weights, in float32

    def write(self, ranges: TensorsData) -> None:
        """Constants first, then every node followed by the rounding of what it makes."""
        self._write_scales(ranges)
        self._write_constants()
        for value in self._model.graph.input:
            self._round(value.name)
        for node in self._model.graph.node:
            if not self._marks.drops(node):
                self._write_node(node)
        self._keep_used()

    def _write_scales(self, ranges: TensorsData) -> None:
        names = [name for name, shared in self._marks.activations.items() if shared is None]
        missing = [name for name in names if name not in ranges]
        if missing:
            raise ValueError(f"no range of the activation {missing[0]!r}: take ranges from this model, for these nodes")
        ends = np.array([np.ravel(ranges[name].range_value) for name in names], np.float32).reshape(-1, 2)
        scales, zeros = UINT8.covering(ends[:, 0], ends[:, 1])
        for name, scale, zero in zip(names, scales, zeros, strict=True):
            self._store(name, scale, zero)

    def _store(self, name: str, scale: np.ndarray, zero: np.ndarray) -> None:
        self._scale[name] = np.asarray(scale)
        self._constant(f"{name}_scale", scale)
        self._constant(f"{name}_zero_point", zero)

    def _constant(self, name: str, values: np.ndarray) -> None:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))

    def _write_constants(self) -> None:
        reduced = weight_bits() == 7
        biases: dict[str, list[Bias]] = {}
        for bias in self._marks.biases.values():
            biases.setdefault(bias.weight, []).append(bias)
        for name, constant in self._marks.constants.items():
            if name in self._given:
                self._write_given(name, constant, self._given[name])
                continue
            values = numpy_helper.to_array(self._values[name])
            number, granularity = _stored_as(constant, reduced)
            scale, zero = number.covering(*extremes(values, granularity))
            for bias in biases.get(name, []):
                scale = self._widened(scale, bias)
            self._constant(f"{name}_quantized", number.codes(values, Scales(scale, zero), granularity))
            self._store(name, scale, zero)
            self._dequantize(name, f"{name}_quantized", name, f"{name}_DequantizeLinear_Output", constant.axis)
        for name, bias in self._marks.biases.items():
            if name not in self._marks.constants:
                self._write_bias(name, bias)

    def _write_given(self, name: str, constant: Constant, codes: WeightCodes) -> None:
        """Codes as they are; packed ones are widened by a Cast, which ONNX Runtime does as it opens the file.

        A DequantizeLinear of four-bit codes would leave the layer in fp32.
        """
        quantized = f"{name}_quantized"
        if self._pack and codes.packed:
            self._graph.initializer.append(packed_tensor(codes.values, f"{name}_packed"))
            self._graph.node.append(
                helper.make_node("Cast", [f"{name}_packed"], [quantized], f"{name}_Cast", to=onnx.TensorProto.INT8)
            )
        else:
            self._constant(quantized, codes.values)
        self._store(name, codes.scale, np.zeros(codes.scale.shape, np.int8))
        axis = constant.axis if codes.scale.ndim else None
        self._dequantize(name, quantized, name, f"{name}_DequantizeLinear_Output", axis)

    def _input_scale(self, tensor: str) -> np.ndarray:
        return self._scale[self._marks.scale_of(tensor) if tensor in self._marks.activations else tensor]

    def _widened(self, scale: np.ndarray, bias: Bias) -> np.ndarray:
        """Scales of a weight, enlarged where the bias would take more than half of what 32 bits hold.

        The other half is for the products, up to 2^15 of them.  ONNX Runtime's own quantizer leaves them none: sums of
        a channel whose weights are nearly zero may then wrap around.
        """
        largest = np.abs(numpy_helper.to_array(self._values[bias.source]))
        least = largest / np.float64(2**30)
        step = self._input_scale(bias.input).astype(np.float64) * scale
        small = (step < least) & (step > 0)
        ratio = np.divide(least, step, out=np.ones_like(step), where=small)
        return np.where(small, scale * ratio, scale).astype(np.float32)

    def _write_bias(self, name: str, bias: Bias) -> None:
        step = np.asarray(self._input_scale(bias.input) * self._input_scale(bias.weight))
        values = numpy_helper.to_array(self._values[bias.source])
        self._constant(f"{name}_quantized", INT32.encode(values, step, np.zeros((), np.int32)))
        self._constant(f"{name}_quantized_scale", step.reshape(-1))
        several = step.size > 1
        self._constant(f"{name}_quantized_zero_point", np.zeros(step.shape if several else (), np.int32))
        self._dequantize(name, f"{name}_quantized", f"{name}_quantized", name, 0 if several else None)

    def _dequantize(self, tensor: str, source: str, scaled_as: str, output: str, axis: int | None = None) -> None:
        inputs = [source, f"{scaled_as}_scale", f"{scaled_as}_zero_point"]
        name = f"{tensor}_DequantizeLinear"
        self._graph.node.append(helper.make_node("DequantizeLinear", inputs, [output], name, axis=axis))

    def _read_as(self, node: NodeProto, tensor: str) -> str:
        marks = self._marks
        rounded = tensor in marks.constants or (tensor in marks.activations and tensor not in self._ends)
        return f"{tensor}_DequantizeLinear_Output" if rounded else marks.own_bias.get((node.output[0], tensor), tensor)

    def _written_as(self, tensor: str) -> str:
        rounded = tensor in self._ends and tensor in self._marks.activations
        return f"{tensor}_QuantizeLinear_Input" if rounded else tensor

    def _write_node(self, node: NodeProto) -> None:
        made = [self._marks.made_as(name) for name in node.output]
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [self._read_as(node, name) for name in node.input]
        copy.output[:] = [self._written_as(name) for name in made]
        for name in made:
            self._round(name)

    def _round(self, tensor: str) -> None:
        """To uint8 and back, which the optimiser takes for the border of int8 kernels."""
        if tensor not in self._marks.activations:
            return
        scaled_as = self._marks.scale_of(tensor)
        inputs = [self._written_as(tensor), f"{scaled_as}_scale", f"{scaled_as}_zero_point"]
        quantized = f"{tensor}_QuantizeLinear_Output"
        self._graph.node.append(helper.make_node("QuantizeLinear", inputs, [quantized], f"{tensor}_QuantizeLinear"))
        end = tensor in self._ends
        self._dequantize(tensor, quantized, scaled_as, tensor if end else f"{tensor}_DequantizeLinear_Output")

    def _keep_used(self) -> None:
        """Initializers that are still read stay; one may be read by fp32 nodes, too."""
        used = {name for node in self._graph.node for name in node.input} - self._marks.biases.keys()
        self._graph.initializer.extend(t for name, t in self._values.items() if name in used)


def _stored_as(constant: Constant, reduced: bool) -> tuple[Integer, Granularity]:
    if constant.weight:
        return Integer(8, reduced=reduced), Granularity(constant.axis)
    return Integer(8, symmetric=False, signed=False, reduced=reduced), PER_TENSOR
