"""What the kernels' benchmark times: blocks, chains of them and whole networks, with random weights.

Files in fp32 are written here; those in int8 are what this toolkit's exporter makes of them, with the ranges of random
images, so that codes spread over all that they can be.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from latency.kernels.contract import AveragePool, Dequantize, Program, Step
from latency.kernels.intake import program_of
from latency.lowering import INPUT, OUTPUT
from quant_search.onnx_qdq import activation_ranges, quantize

IMAGES = 2  # that ranges are taken from
FIELDS = "H,Cin,expansion,Cout,k,stride"
BLOCK_SIDE = (16, 4)  # outputs and inputs of a block of weights that is zero or not


@dataclass(frozen=True)
class Block:
    """An inverted residual with ReLU; its input is added where shapes agree.

    Args:
        expansion: inner channels over inputs; with 1 there is no first 1x1 layer.
    """

    height: int
    width: int
    inputs: int
    expansion: int
    outputs: int
    kernel: int
    stride: int

    def __str__(self) -> str:
        side = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        return f"{side},{self.inputs},{self.expansion},{self.outputs},{self.kernel},{self.stride}"

    @property
    def repeats(self) -> bool:
        """Whether it can read what it makes, so that chains of it can be built."""
        return self.stride == 1 and self.inputs == self.outputs


def parse_blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a list such as 56,24,6,24,3,1;13x17,20,3,20,3,1.

    Raises:
        ValueError: another number of fields, what is no positive number, an even kernel, or no block.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise ValueError(f"no block is named: give {FIELDS}, several separated by ';'")
    return tuple(map(_parsed, parts))


def _parsed(text: str) -> Block:
    side, *others = (field.strip() for field in text.split(","))
    sides = side.split("x")
    numbers = [*(sides if len(sides) > 1 else sides * 2), *others]
    positive = all(number.isascii() and number.isdigit() and int(number) for number in numbers)
    if len(sides) > 2 or len(others) != FIELDS.count(",") or not positive:
        raise ValueError(f"block {text!r} is not {FIELDS}: expected six positive numbers, H may be HxW")
    block = Block(*map(int, numbers))
    if block.kernel % 2 == 0:
        raise ValueError(f"block {text!r} has a kernel of {block.kernel}: expected an odd one")
    return block


class Graph:
    """A network in fp32 while it is built; what is added reads what was added last."""

    def __init__(self, shape: tuple[int, int, int], seed: int = 0) -> None:
        self.shape, self.macs = shape, 0  # of what was added last, (c, h, w)
        self._input_shape = shape
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._last = INPUT

    def convolve(
        self, outputs: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False, density: float = 1.0
    ) -> None:
        """A convolution, padded by half of its kernel.

        Args:
            density: the share of the blocks of a 1x1 layer's weight that are not zero.
        """
        inputs, height, width = self.shape
        fan_in = kernel**2 * (1 if depthwise else inputs)
        weight = self._rng.normal(0, (2 / fan_in) ** 0.5, (outputs, fan_in // kernel**2, kernel, kernel))
        if density < 1:
            weight *= self._kept(outputs, inputs, density)[:, :, None, None]
        pads, groups = [kernel // 2] * 4, inputs if depthwise else 1
        operands = self._constant(weight), self._constant(self._rng.normal(0, 0.1, outputs))
        layout = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads, "group": groups}
        self._add("Conv", *operands, **layout)
        self.shape = (outputs, (height - 1) // stride + 1, (width - 1) // stride + 1)
        self.macs += np.count_nonzero(weight) * self.shape[1] * self.shape[2]

    def relu(self) -> None:
        """What is below zero becomes zero."""
        self._add("Relu")

    def block(self, block: Block) -> None:
        """An inverted residual."""
        before, wide = self._last, block.inputs * block.expansion
        if block.expansion > 1:
            self.convolve(wide)
            self.relu()
        self.convolve(wide, block.kernel, block.stride, depthwise=True)
        self.relu()
        self.convolve(block.outputs)
        if block.repeats:
            self._add("Add", before)

    def logits(self, classes: int) -> None:
        """The mean over all pixels and a linear layer."""
        channels = self.shape[0]
        self._add("GlobalAveragePool")
        self._add("Flatten")
        weight = self._rng.normal(0, channels**-0.5, (classes, channels))
        self._add("Gemm", self._constant(weight), self._constant(self._rng.normal(0, 0.1, classes)), transB=1)
        self.macs += classes * channels

    def model(self) -> onnx.ModelProto:
        """The file, in fp32."""
        self._nodes[-1].output[0] = OUTPUT
        inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ("batch", *self._input_shape))]
        outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self._nodes, "timed", inputs, outputs, self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _add(self, kind: str, *others: str, **attributes: Any) -> None:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._last, *others], [f"{name}_y"], name, **attributes))
        self._last = f"{name}_y"

    def _constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _kept(self, outputs: int, inputs: int, density: float) -> np.ndarray:
        """Ones for the blocks that are kept, (outputs, inputs); as many of each row of blocks."""
        rows, columns = (-(-n // side) for n, side in zip((outputs, inputs), BLOCK_SIDE, strict=True))
        kept = np.argsort(self._rng.random((rows, columns)), axis=1) < round(density * columns)
        return np.kron(kept, np.ones(BLOCK_SIDE))[:outputs, :inputs]


@dataclass(frozen=True, eq=False)
class Timed:
    """A network in both precisions.

    Args:
        program: what the fused kernels run of the int8 file; what it makes of a map has its channels last.
        macs: of one image, without those by weights that are zero.
    """

    fp32: bytes
    int8: bytes
    program: Program
    macs: int

    @functools.cached_property
    def images(self) -> np.ndarray:
        """One random image."""
        return _images(self.program.input_shape, 1, seed=1)

    def repeated(self, times: int) -> Timed:
        """With a program that runs its one layer so often on the same codes; the files stay as they are."""
        first, layer, last = self.program.steps
        copies = [replace(layer, output=layer.output + i) for i in range(times)]
        end = replace(last, inputs=(copies[-1].output,), output=copies[-1].output + 1)
        return replace(self, program=Program(self.program.input_shape, (first, *copies, end)))


def timed(shape: tuple[int, int, int], build: Callable[[Graph], None]) -> Timed:
    """What `build` adds to a graph for images (c, h, w), in both precisions."""
    graph = Graph(shape)
    build(graph)
    model = graph.model()
    nodes = [node.name for node in model.graph.node]
    int8 = quantize(model, nodes, activation_ranges(model, _images(shape, IMAGES), nodes=nodes))
    ends_in_map = all(node.op_type != "Flatten" for node in model.graph.node)
    program = _program_to_map(int8) if ends_in_map else program_of(int8)
    return Timed(model.SerializeToString(), int8.SerializeToString(), program, graph.macs)


def sequence(blocks: Sequence[Block]) -> Timed:
    """Blocks of which each reads what the one before makes."""

    def build(graph: Graph) -> None:
        for block in blocks:
            graph.block(block)

    return timed((blocks[0].inputs, blocks[0].height, blocks[0].width), build)


def layers(side: int, inputs: int, outputs: int, density: float, count: int) -> Timed:
    """1x1 layers with ReLU, one behind the other; several have as many outputs as inputs."""

    def build(graph: Graph) -> None:
        for _ in range(count):
            graph.convolve(outputs, density=density)
            graph.relu()

    return timed((inputs, side, side), build)


def _images(shape: tuple[int, int, int], count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def _program_to_map(model: onnx.ModelProto) -> Program:
    """The program of a file that gives a map (b, c, h, w), as float32 (b, h · w · c).

    The intake takes files that end in values (b, classes): means over the map are put behind, and left out again.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    read = whole.graph.node[-1]
    scale, zero = read.input[1:]
    read.output[0] = "map"
    kinds = ("GlobalAveragePool", "QuantizeLinear", "DequantizeLinear", "Flatten")
    names = ("map", "mean", "codes", "values", OUTPUT)
    for kind, given, made in zip(kinds, names, names[1:], strict=False):
        whole.graph.node.append(helper.make_node(kind, [given, *([scale, zero] if "Linear" in kind else [])], [made]))
    program = program_of(whole)
    *steps, pool, last = program.steps
    assert isinstance(pool.operation, AveragePool)
    constants = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    end = Dequantize(np.float32(constants[scale]), int(constants[zero]))
    return replace(program, steps=(*steps, Step(last.name, end, pool.inputs, last.output)))
