"""Bias correction: the mean error that rounding leaves in each channel, measured on images and taken off the bias.

Source: Data-free quantization (arXiv:1906.04721, section 4.2; empirically, appendix D): rounding shifts the mean of a
layer's output, E[y~] - E[y], which is subtracted from its bias.  Layer by layer in the order of the graph, so that the
error that is measured is what earlier corrections have left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import TensorsData

from quant_search.layers import Layer, layers_of, values_of, with_values
from quant_search.onnx_qdq import quantize
from quant_search.ptq.fold import with_biases
from quant_search.ptq.walk import Walk
from quant_search.weight_codes import WeightCodes

Progress = Callable[[int, int, str], None]
"""Called with the number of layers that are done, of all, and the name of the one that was done last."""


def correct_biases(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    ranges: TensorsData,
    images: np.ndarray,
    codes: Mapping[str, WeightCodes] | None = None,
    progress: Progress | None = None,
    threads: int = 1,
    target: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """A copy of `model` whose biases make up for the mean error of its quantized form; layers get one that have none.

    Matrix products that add their bias in a node of its own are left: there it is rounded to the steps of activations.
    Two passes of the network over `images` (n, c, h, w) float32, in fp32 and quantized.

    Args:
        nodes, ranges, codes: as for `onnx_qdq.quantize`.  Codes with scales of least error (`weight_codes.rounded`) cut
            the largest weights, which makes outputs smaller rather than shifted: with few bits correct those of `max`.
        target: the fp32 network whose means are come back to, with layers of the same names; `model` unless its biases
            were learned for the codes.

    Raises:
        ValueError: as `quantize`, or no images.
    """
    corrected = with_biases(model)
    found = [layer for layer in layers_of(corrected, nodes) if layer.bias and layer.op_type != "MatMul"]
    plain = Walk(target or model, images, threads=threads)
    rounded = Walk(quantize(corrected, nodes, ranges, codes, pack=False), images, threads=threads)
    for i, layer in enumerate(found):
        error = mean_output(rounded, layer) - mean_output(plain, layer)
        bias = values_of(corrected)[layer.bias]
        corrected = with_values(corrected, {layer.bias: (bias - error / _beta(corrected, layer)).astype(np.float32)})
        rounded.use(quantize(corrected, nodes, ranges, codes, pack=False))
        if progress:
            progress(i + 1, len(found), layer.name)
    return corrected


def mean_output(walk: Walk, layer: Layer) -> np.ndarray:
    """The mean (out channels,) float64 of what a layer makes, before any activation function; the walk goes there."""
    walk.advance(layer.name)
    total, count = np.zeros(layer.out_channels), 0
    for y in walk.each(walk.node(layer.name).output[0]):
        by_channel = np.moveaxis(y, 1 if layer.op_type == "Conv" else -1, -1).reshape(-1, layer.out_channels)
        total += by_channel.sum(axis=0, dtype=np.float64)
        count += len(by_channel)
    return total / count


def _beta(model: onnx.ModelProto, layer: Layer) -> float:
    """What a Gemm multiplies its bias by."""
    node = next(node for node in model.graph.node if node.name == layer.name)
    return float(next((a.f for a in node.attribute if a.name == "beta"), 1.0)) or 1.0
