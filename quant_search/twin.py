"""The torch twin of a QDQ file: the same network, rounding where the file rounds, and trainable.

It is made from the fp32 file, without the nodes whose work rounding does in int8 kernels (`quant_search.marks`), so
that a ReLU is the lower end of its output's range here as there.  Batch norms are folded in the file already: training
sees the weights that are rounded (arXiv:1712.05877, section 3.2, with statistics frozen from the start).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor, nn

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.fake import TorchScales, covering, fake_quantize, scales_of
from quant_search.formats import Granularity, Integer, Scales
from quant_search.layers import layers, layers_of, values_of, with_values
from quant_search.learned_step import LearnedStep, initial_step
from quant_search.marks import Bias, Marks, mark
from quant_search.precision import parse_precision
from quant_search.ranges import UINT8
from quant_search.realise import nodes_in_int8
from quant_search.weight_codes import WeightCodes, weight_bits, weight_format

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
        self._every = layers(model)
        axes = {layer.weight: layer.out_axis for layer in self._every}
        values, bits = values_of(model), _bits_of_weights(model, groups, chosen)
        self._weights = [name for name in _trained(model) if name in self.network.buffer_of]
        self.weights = nn.ParameterList([torch.from_numpy(values[name].copy()) for name in self._weights])
        self._steps_of_weights = {
            name: _step_of_weight(torch.from_numpy(values[name].copy()), count, axes[name])
            for name, count in bits.items()
        }
        self._steps_of_activations = _steps_of_activations(self._marks, ranges)
        self._biases = {name: bias for name, bias in self._marks.biases.items() if self._rounds(name, bias)}
        self.steps = nn.ModuleList([*self._steps_of_weights.values(), *self._steps_of_activations.values()])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) of images `x` (b, ...), up to a code in each activation those of the file."""
        given = {self.network.buffer_of[n]: self._round_weight(n, w) for n, w in self.by_name().items()}
        logits: Tensor = torch.func.functional_call(self.network, given, (x,))
        return logits

    def _rounds(self, name: str, bias: Bias) -> bool:
        """Whether a bias is that of one layer whose input and weight have scales; others are left as they are."""
        own = name == bias.source and all(source != name for _, source in self._marks.own_bias)
        return own and bias.input in self._marks.activations and bias.weight in self._steps_of_weights

    def by_name(self) -> dict[str, nn.Parameter]:
        """The weights and biases that learn, by their names in the file."""
        return dict(zip(self._weights, self.weights, strict=True))

    def _round_weight(self, name: str, weight: Tensor) -> Tensor:
        if name in self._steps_of_weights:
            rounded: Tensor = self._steps_of_weights[name](weight)
            return rounded
        if name in self._biases:
            return self._round_bias(self._biases[name], weight)
        constant = self._marks.constants.get(name)
        if constant is None:
            return weight
        # What is no layer's own weight is rounded as the exporter does, by its values at the time.
        if constant.weight:
            return fake_quantize(weight, weight_format(8), Granularity(constant.axis))
        return fake_quantize(weight, Integer(8, symmetric=False, signed=False, reduced=weight_bits() == 7))

    def _round_bias(self, bias: Bias, values: Tensor) -> Tensor:
        """To steps of input scale x weight scale, which of few-bit weights are too coarse to be left out."""
        input_ = self._steps_of_activations[self._marks.scale_of(bias.input)]
        with torch.no_grad():
            step = (input_.steps() * self._steps_of_weights[bias.weight].steps()).double()
            rounded = (torch.round(values.double() / step) * step).float()
        return values + (rounded - values).detach()

    def _round_activation(self, name: str, value: Tensor) -> Tensor:
        if name not in self._marks.activations:
            return value
        rounded: Tensor = self._steps_of_activations[self._marks.scale_of(name)](value)
        return rounded

    def codes(self) -> dict[str, WeightCodes]:
        """Name of each layer whose weight is rounded to that weight."""
        named, by_weight = self.by_name(), {}
        for name, step in self._steps_of_weights.items():
            scale, weight = step.steps().detach().cpu().numpy(), named[name].detach().cpu().numpy()
            scales = Scales(scale, np.zeros(scale.shape, np.int8))
            by_weight[name] = WeightCodes(step.number.codes(weight, scales, step.granularity), scale, step.number)
        return {layer.name: by_weight[layer.weight] for layer in self._every if layer.weight in by_weight}

    def ranges(self) -> TensorsData:
        """The ranges that give the activations' learned scales to `quantize`."""
        found = {}
        for name, step in self._steps_of_activations.items():
            scale, zero = step.steps().item(), step.zero.item()
            ends = (step.number.lowest - zero) * scale, (step.number.highest - zero) * scale
            found[name] = tuple(np.array([end], np.float32) for end in ends)
        return TensorsData(CalibrationMethod.MinMax, found)

    def fp32(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of `model` with the weights as they are now, before rounding."""
        return with_values(model, {name: weight.detach().cpu().numpy() for name, weight in self.by_name().items()})


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
    """Initializers that layers and norms take for their weights, or that are added or multiplied, in order.

    A factor or summand of a single value is a constant of the network, not a weight.
    """
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    least = {"Add": 2, "Mul": 2}
    read = [
        node.input[i]
        for node in model.graph.node
        for i in _TRAINED.get(node.op_type, ())
        if i < len(node.input) and sizes.get(node.input[i], 0) >= least.get(node.op_type, 1)
    ]
    return list(dict.fromkeys(read))


def _bits_of_weights(
    model: onnx.ModelProto, groups: Mapping[str, Sequence[str]], chosen: Mapping[str, str]
) -> dict[str, int]:
    """Weight to its bits, of the layers whose weights are rounded."""
    bits = {node: parse_precision(option).weight_bits for group, option in chosen.items() for node in groups[group]}
    found = {layer.weight: bits[layer.name] for layer in layers_of(model, bits)}
    return {name: count for name, count in found.items() if count is not None}


def _step_of_weight(weight: Tensor, bits: int, axis: int) -> LearnedStep:
    """A learned step for each channel.

    It begins as LSQ says (2 mean |w| / sqrt(Qp)), or with the step that just holds the largest weight where that is
    smaller: of 8 bits the former would leave three unused.
    """
    number, granularity = Integer(min(bits, weight_bits())), Granularity(axis)
    covering_all, _ = scales_of(weight, number, granularity)
    first = torch.minimum(initial_step(weight, number, granularity), covering_all)
    return LearnedStep(number, first, granularity=granularity)


def _steps_of_activations(marks: Marks, ranges: TensorsData) -> dict[str, LearnedStep]:
    names = [name for name, shared in marks.activations.items() if shared is None]
    missing = [name for name in names if name not in ranges]
    if missing:
        raise ValueError(f"no range of the activation {missing[0]!r}: take ranges from this model, for these nodes")
    return {name: _step_of(*(np.ravel(end) for end in ranges[name].range_value)) for name in names}


def _step_of(low: np.ndarray, high: np.ndarray) -> LearnedStep:
    scales: TorchScales = covering(torch.tensor(float(low[0])), torch.tensor(float(high[0])), UINT8)
    return LearnedStep(UINT8, scales.scale, scales.zero, batched=True)
