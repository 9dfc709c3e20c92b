"""Static int8 quantization of chosen nodes of an ONNX model, in QDQ form.

uint8 asymmetric activations and int8 symmetric per-channel weights: the one combination that ONNX Runtime's x86
kernels run fast.  Symmetric activations cannot absorb a ReLU, and operator-format or uint8 weights fall back to
slow kernels.  The result computes what ONNX Runtime's own `QDQQuantizer` makes, which goes through weights channel
by channel in Python and takes tens of times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import TensorsData

from latency.device import environment
from quant_search.formats.granularity import PER_TENSOR, Granularity, extremes
from quant_search.formats.integer import Integer
from quant_search.formats.number import Scales
from quant_search.marks import Bias, Constant, Marks, mark, quantizable
from quant_search.ranges import UINT8, activation_ranges, neutral_ranges

__all__ = ["activation_ranges", "neutral_ranges", "quantize", "weight_bits"]

INT32 = Integer(32)  # of biases


def weight_bits() -> int:
    """Bits of weights that are exact on this machine: 7 on x86 without VNNI, whose products of bytes saturate.

    There two products of a byte each are added in 16 bits (`vpmaddubsw`), which eight-bit weights overflow.
    """
    here = environment()
    vnni = {"avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8"}
    return 7 if here.machine in ("x86_64", "AMD64") and vnni.isdisjoint(here.isa) else 8


def quantize(model: onnx.ModelProto, nodes: Sequence[str], ranges: TensorsData) -> onnx.ModelProto:
    """A copy of `model` in which the named nodes compute in int8; nodes without an int8 kernel stay as they are.

    Args:
        ranges: what `activation_ranges` or `neutral_ranges` found for this model.

    Raises:
        ValueError: an activation without a range.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if quantizable(model, nodes):
        marks = mark(model, nodes)
        result.graph.ClearField("node")
        result.graph.ClearField("initializer")
        result.graph.ClearField("value_info")  # of names that are others now; the file does without
        _Rewriter(model, marks, result.graph).write(ranges)
    return result


class _Rewriter:
    """Writes the quantized graph of `model` into an empty one."""

    def __init__(self, model: onnx.ModelProto, marks: Marks, graph: onnx.GraphProto) -> None:
        self._model, self._marks, self._graph = model, marks, graph
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

    def _input_scale(self, tensor: str) -> np.ndarray:
        return self._scale[self._marks.scale_of(tensor) if tensor in self._marks.activations else tensor]

    def _widened(self, scale: np.ndarray, bias: Bias) -> np.ndarray:
        """Scales of a weight, enlarged where the bias would not fit into 32 bits."""
        largest = np.abs(numpy_helper.to_array(self._values[bias.source]))
        least = 1.0001 * (2.0 * largest) / np.float64(2**32 - 2)
        step = self._input_scale(bias.input).astype(np.float64) * scale
        small = (step < least) & (step > 0)
        ratio = np.divide(least, step, out=np.ones_like(step), where=small)
        return np.where(small, scale * ratio, scale).astype(np.float32)

    def _write_bias(self, name: str, bias: Bias) -> None:
        step = np.asarray(self._input_scale(bias.input) * self._input_scale(bias.weight) * np.float32(bias.beta))
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
        if node.op_type == "Gemm" and self._marks_bias_of(node):
            for attribute in copy.attribute:
                if attribute.name == "beta":  # is in the bias now
                    attribute.f = 1.0
        for name in made:
            self._round(name)

    def _marks_bias_of(self, node: NodeProto) -> bool:
        return len(node.input) > 2 and node.input[2] in self._marks.biases

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
