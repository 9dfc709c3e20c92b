"""Layer-wise reconstruction: the rounding of each layer learned in turn, on what the layers before it make of images.

Sequential as in AdaRound (arXiv:2004.10568, eq. 25) and AdaQuant (arXiv:2006.10518, section 3.3): the input of a layer
comes from the network quantized so far, the target from the fp32 network, so that a layer also makes up for what those
before it left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.layers import Layer, layers_of, scalars_of, values_of, with_values
from quant_search.onnx_qdq import quantize
from quant_search.ptq.fold import with_biases
from quant_search.ptq.learned_rounding import Problem, Rounded, Setting, adaquant, adaround
from quant_search.ptq.rows import as_matrix, as_weight, sampled
from quant_search.ptq.walk import Walk
from quant_search.weight_codes import WeightCodes, rounded

METHODS: Mapping[str, Callable[[Problem, Setting], Rounded]] = {"adaround": adaround, "adaquant": adaquant}


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What was learned.

    Args:
        model: fp32, with the biases that belong to the codes.
        codes: of each layer by name, for `onnx_qdq.quantize`.
        errors: of each layer by name: mean square of what is off in its outputs on sampled rows, rounded to the nearest
            and as learned.
    """

    model: onnx.ModelProto
    codes: dict[str, WeightCodes]
    errors: dict[str, tuple[float, float]]


def reconstruct(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    ranges: TensorsData,
    images: np.ndarray,
    bits: Mapping[str, int],
    method: str = "adaround",
    setting: Setting | None = None,
    rows: int = 4096,
    progress: Callable[[int, int, str], None] | None = None,
    threads: int = 1,
) -> Reconstruction:
    """Learns the rounding of the weights of the named nodes on `images` (n, c, h, w) float32.

    Two passes of the network, and `setting.steps` small products for each layer.

    Args:
        nodes, ranges: as for `onnx_qdq.quantize`.
        bits: node name to those of its weight, 2..8; layers of `nodes` that are not in it have 8.
        method: `adaround` or `adaquant`.
        rows: positions sampled for each layer, over all images.
        progress: called with the number of layers that are done, of all, and the name of the last.

    Raises:
        ValueError: an unknown method, bits that weights do not have, no images, or as `quantize`.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r} to learn rounding: there are {', '.join(METHODS)}")
    setting = setting or Setting()
    learned = with_biases(model)
    codes = rounded(learned, {name: bits.get(name, 8) for name in nodes})
    found = [layer for layer in layers_of(learned, nodes) if not layer.shared]
    plain = Walk(model, images, threads=threads)
    coarse = Walk(quantize(learned, nodes, ranges, codes, pack=False), images, threads=threads)
    errors = {}
    for i, layer in enumerate(found):
        problem = _problem(
            learned, layer, plain, coarse, codes[layer.name], max(1, rows // len(images)), setting.seed + i
        )
        result = METHODS[method](problem, replace(setting, seed=setting.seed + i))
        codes[layer.name] = _codes(layer, result, codes[layer.name])
        errors[layer.name] = result.before, result.after
        if layer.bias and layer.op_type != "MatMul":
            learned = with_values(learned, {layer.bias: result.bias})
        coarse.use(quantize(learned, nodes, ranges, codes, pack=False))
        if progress:
            progress(i + 1, len(found), layer.name)
    return Reconstruction(learned, codes, errors)


def _problem(
    model: onnx.ModelProto, layer: Layer, plain: Walk, coarse: Walk, codes: WeightCodes, each: int, seed: int
) -> Problem:
    """The layer on rows of all images; both walks go there."""
    plain.advance(layer.name)
    coarse.advance(layer.name)
    node, values = coarse.node(layer.name), values_of(model)
    rows = sampled(layer, coarse.each(node.input[0]), plain.each(layer.output), each, np.random.default_rng(seed))
    bias = values[layer.bias] if layer.bias and layer.op_type != "MatMul" else np.zeros(layer.out_channels, np.float32)
    weight = as_matrix(layer, values[layer.weight])
    return Problem(rows, weight, bias, codes.scale, codes.format, cut_after(model, layer))


def _codes(layer: Layer, result: Rounded, before: WeightCodes) -> WeightCodes:
    scale = result.scale if before.scale.ndim else result.scale[:1].reshape(())
    return WeightCodes(as_weight(layer, result.codes), scale, before.format)


def cut_after(model: onnx.ModelProto, layer: Layer) -> tuple[float, float]:
    """The ends to which the activation function after a layer cuts what it makes, where that is all that reads it."""
    readers = [node for node in model.graph.node if layer.output in node.input]
    if len(readers) != 1 or layer.output in {value.name for value in model.graph.output}:
        return -math.inf, math.inf
    if readers[0].op_type == "Relu":
        return 0.0, math.inf
    if readers[0].op_type != "Clip":
        return -math.inf, math.inf
    limits = scalars_of(model)
    names = [*readers[0].input[1:], "", ""][:2]
    low, high = (limits.get(name) for name in names)
    return -math.inf if low is None else float(low.item()), math.inf if high is None else float(high.item())


__all__ = ["METHODS", "Reconstruction", "Setting", "cut_after", "reconstruct"]
