"""The torch twin of a QDQ file: the same network, rounding where the file rounds, and trainable.

It is made from the fp32 file, without the nodes whose work rounding does in int8 kernels (`quant_search.marks`), so
that a ReLU is the lower end of its output's range here as there.  Batch norms are folded in the file already: training
sees the weights that are rounded (arXiv:1712.05877, section 3.2, with statistics frozen from the start).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor, nn

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.fake import TorchScales, covering, fake_quantize, scales_of
from quant_search.formats import PER_TENSOR, Granularity, Integer
from quant_search.learned_step import LearnedStep, initial_step
from quant_search.marks import Marks, mark
from quant_search.onnx_qdq import UINT8, weight_bits
from quant_search.precision import nodes_in_int8, parse_precision, weights_of

# Which inputs of a node are weights that training may change; statistics of norms are not among them.
_TRAINED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}


@dataclass(frozen=True, eq=False)
class Rounded:
    """A weight as a file stores it: codes of its shape and the scales of its channels, or one scale."""

    codes: np.ndarray
    scale: np.ndarray
    axis: int | None

    @property
    def values(self) -> np.ndarray:
        """What the codes mean, float32."""
        shape = [-1 if i == self.axis else 1 for i in range(self.codes.ndim)] if self.scale.ndim else []
        result: np.ndarray = self.codes.astype(np.float32) * self.scale.reshape(shape)
        return result


class Twin(nn.Module):
    """A model with groups of its nodes in the precisions chosen for them, whose weights and step sizes learn.

    Args:
        groups, chosen: as for `precision.in_precisions`.
        ranges: of the activations that groups with 8-bit activations read and write; steps begin with them.

    Raises:
        ValueError: an unknown precision, an activation without a range, or a model that torch cannot run.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        groups: Mapping[str, Sequence[str]],
        chosen: Mapping[str, str],
        ranges: TensorsData,
    ) -> None:
        super().__init__()
        self._marks = mark(model, nodes_in_int8(groups, chosen))
        self.network = to_torch(without_dropped(model, self._marks))
        self.network.on_tensor = self._round_activation
        values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._weights = [name for name in _trained(model) if name in self.network.buffer_of]
        self.weights = nn.ParameterList([torch.from_numpy(values[name].copy()) for name in self._weights])
        self._steps_of_weights = _steps_of_weights(model, groups, chosen, values)
        self._steps_of_activations = _steps_of_activations(self._marks, ranges)
        self.steps = nn.ModuleList([*self._steps_of_weights.values(), *self._steps_of_activations.values()])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) of images `x` (b, ...), up to a code in each activation those of the file."""
        given = {self.network.buffer_of[n]: self._round_weight(n, w) for n, w in self.by_name().items()}
        logits: Tensor = torch.func.functional_call(self.network, given, (x,))
        return logits

    def by_name(self) -> dict[str, nn.Parameter]:
        """The weights and biases that learn, by their names in the file."""
        return dict(zip(self._weights, self.weights, strict=True))

    def _round_weight(self, name: str, weight: Tensor) -> Tensor:
        if name in self._steps_of_weights:
            rounded: Tensor = self._steps_of_weights[name](weight)
            return rounded
        constant = self._marks.constants.get(name)
        if constant is None:
            return weight
        # An operand that is stored as activations are: its range is that of its values, as the writer takes it.
        number = Integer(8, symmetric=False, signed=False, reduced=weight_bits() == 7)
        return fake_quantize(weight, number, PER_TENSOR, scales_of(weight.detach(), number))

    def _round_activation(self, name: str, value: Tensor) -> Tensor:
        if name not in self._marks.activations:
            return value
        rounded: Tensor = self._steps_of_activations[self._marks.scale_of(name)](value)
        return rounded

    def rounded(self) -> dict[str, Rounded]:
        """The codes and scales of every weight that is rounded, by name."""
        named, result = self.by_name(), {}
        for name, step in self._steps_of_weights.items():
            scale, granularity = step.steps().detach(), step.granularity
            layout = granularity.layout(tuple(named[name].shape))
            codes = torch.round(named[name].detach() / scale.reshape(layout.broadcast))
            cut = codes.clamp(step.number.lowest, step.number.highest).to(torch.int8)
            result[name] = Rounded(cut.cpu().numpy(), scale.cpu().numpy(), granularity.axis)
        return result

    def ranges(self) -> TensorsData:
        """The ranges that give the activations' learned scales to `quantize`."""
        found = {}
        for name, step in self._steps_of_activations.items():
            scale, zero = float(step.steps()), float(step.zero)
            ends = (step.number.lowest - zero) * scale, (step.number.highest - zero) * scale
            found[name] = tuple(np.array([end], np.float32) for end in ends)
        return TensorsData(CalibrationMethod.MinMax, found)

    def fp32(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of `model` with the weights as they are now; rounded ones with the values of their codes."""
        result, rounded = onnx.ModelProto(), self.rounded()
        result.CopyFrom(model)
        tensors = {tensor.name: tensor for tensor in result.graph.initializer}
        for name, weight in self.by_name().items():
            values = rounded[name].values if name in rounded else weight.detach().cpu().numpy()
            tensors[name].CopyFrom(numpy_helper.from_array(values, name))
        return result


def without_dropped(model: onnx.ModelProto, marks: Marks) -> onnx.ModelProto:
    """A copy of `model` without the nodes that rounding stands for, in fp32: what a QDQ file computes between codes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [node for node in result.graph.node if not marks.drops(node)]
    for node in kept:
        node.output[:] = [marks.made_as(name) for name in node.output]
    nodes = [node.SerializeToString() for node in kept]
    del result.graph.node[:]
    result.graph.node.extend(onnx.NodeProto.FromString(node) for node in nodes)
    return result


def _trained(model: onnx.ModelProto) -> list[str]:
    """Initializers of more than one value that layers, norms and sums take for their weights, in order."""
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    read = [node.input[i] for node in model.graph.node for i in _TRAINED.get(node.op_type, ()) if i < len(node.input)]
    return list(dict.fromkeys(name for name in read if sizes.get(name, 0) > 1))


def _steps_of_weights(
    model: onnx.ModelProto,
    groups: Mapping[str, Sequence[str]],
    chosen: Mapping[str, str],
    values: Mapping[str, np.ndarray],
) -> dict[str, LearnedStep]:
    """A learned step for each weight that has fewer than 32 bits.

    It begins as LSQ says (2 mean |w| / sqrt(Qp)), or with the step that just holds the largest weight where that is
    smaller: of 8 bits the former would leave three unused.
    """
    steps = {}
    for group, option in chosen.items():
        bits = parse_precision(option).weight_bits
        for name, axis in weights_of(model, groups[group]).items() if bits else ():
            number, granularity = Integer(min(bits or 8, weight_bits())), Granularity(axis)
            weight = torch.from_numpy(values[name].copy())
            first = torch.minimum(initial_step(weight, number, granularity), scales_of(weight, number, granularity)[0])
            steps[name] = LearnedStep(number, first, granularity=granularity)
    return steps


def _steps_of_activations(marks: Marks, ranges: TensorsData) -> dict[str, LearnedStep]:
    names = [name for name, shared in marks.activations.items() if shared is None]
    missing = [name for name in names if name not in ranges]
    if missing:
        raise ValueError(f"no range of the activation {missing[0]!r}: take ranges from this model, for these nodes")
    return {name: _step_of(*(np.ravel(end) for end in ranges[name].range_value)) for name in names}


def _step_of(low: np.ndarray, high: np.ndarray) -> LearnedStep:
    scales: TorchScales = covering(torch.tensor(float(low[0])), torch.tensor(float(high[0])), UINT8)
    return LearnedStep(UINT8, scales.scale, scales.zero, batched=True)
