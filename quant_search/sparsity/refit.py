"""The layers after pruned channels, fitted by least squares to give what they gave before.

Source: "Channel pruning for accelerating very deep neural networks" (arXiv:1707.06168), eq. 1 without its choice of
channels, with a weight for each tap as in ThiNet (arXiv:1707.06342, eq. 7).  It needs images, but no labels and no
gradients; layers are fitted in order, each to make good what those before it left.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import NodeProto, numpy_helper

from quant_search.sparsity.activations import activations
from quant_search.sparsity.channels import Keep, prune_channels, survivors
from quant_search.sparsity.weighted import Layer, attributes_of, called, constants_of, layers_of, weights_of, write


def refit(model: onnx.ModelProto, keep: Keep, images: np.ndarray, ridge: float = 1e-2) -> onnx.ModelProto:
    """`prune_channels(model, keep)` with the layers that read pruned channels fitted to give what they gave.

    For each of them, in order: W, b = argmin of mean |Y - W X - b|^2 + `ridge` * mean(X^2) * |W - W0|^2 over all
    pixels, where Y is what the layer gave in `model`, X what it reads in the network pruned and fitted so far, and W0
    its pruned weight.  Networks run twice on all images for each layer; (i * k)^2 numbers are held.  Convolutions in
    groups, over other than two axes, or with paddings that are not written down, products with a factor, and shared
    weights stay as they were pruned.

    Args:
        images: (n, c, h, w) float32.

    Raises:
        ValueError: no images, a ridge that is not positive, or as of `prune_channels`.
    """
    if not ridge > 0:
        raise ValueError(f"the ridge must be positive, got {ridge}: it holds weights of what hardly varies")
    result = prune_channels(model, keep)
    left = survivors(model, keep)
    uses = Counter(name for node in result.graph.node for name in node.input)
    for layer in layers_of(result):
        node = next(node for node in result.graph.node if called(node) == layer.node)
        reads_less = layer.node in left and not left[layer.node][0].all()
        if reads_less and uses[layer.weight] == 1 and _can_be_fitted(node, layer):
            _fit(model, result, node, layer, left[layer.node][1], images, ridge)
    return result


def _can_be_fitted(node: NodeProto, layer: Layer) -> bool:
    settings = attributes_of(node)
    if node.op_type == "Conv":
        return layer.groups == 1 and len(layer.shape) == 4 and settings.get("auto_pad", b"NOTSET") == b"NOTSET"
    return settings.get("alpha", 1.0) == 1.0


def _fit(
    model: onnx.ModelProto,
    pruned: onnx.ModelProto,
    node: NodeProto,
    layer: Layer,
    rows: np.ndarray,
    images: np.ndarray,
    ridge: float,
) -> None:
    """Fits one layer of `pruned` in place: W = W0 + (A + lambda)^-1 B, with A = X X' and B = X (Y - W0 X - b0)'."""
    before, now = node.output[0], (node.input[0], node.output[0])
    d = int(np.prod(layer.shape[1:]))
    gram, moment = np.zeros((d + 1, d + 1)), np.zeros((d + 1, layer.shape[0]))
    pairs = zip(activations(model, [before], images), activations(pruned, now, images), strict=True)
    for whole, part in pairs:
        x = _columns(part[now[0]], node, layer)
        x = np.concatenate([x, np.ones((1, x.shape[1]))])
        lost = np.compress(rows, whole[before], 1) - part[now[1]]
        gram += x @ x.T
        moment += x @ np.moveaxis(lost, 1, -1).reshape(-1, layer.shape[0])
    pull = ridge * np.trace(gram[:d, :d]) / d
    gram[np.arange(d), np.arange(d)] += max(pull, np.finfo(np.float32).tiny)  # the last one is the bias
    change = np.linalg.solve(gram, moment).T
    stored = weights_of(pruned, [layer.weight])[layer.weight]
    weight = layer.read(stored) + change[:, :d].reshape(layer.shape)
    write(constants_of(pruned)[layer.weight], layer.read(weight).astype(np.float32))
    _add_to_bias(pruned, node, change[:, d])


def _columns(x: np.ndarray, node: NodeProto, layer: Layer) -> np.ndarray:
    """What the layer multiplies, float64 (i * k, pixels of all images): one column for each pixel that it gives."""
    if node.op_type != "Conv":
        return x.T.astype(np.float64)
    settings: dict[str, Any] = attributes_of(node)
    top, left, bottom, right = settings.get("pads", [0] * 4)
    padded = F.pad(torch.from_numpy(x), (left, right, top, bottom))
    columns = F.unfold(
        padded,
        layer.shape[2:],
        dilation=settings.get("dilations", [1, 1]),
        stride=settings.get("strides", [1, 1]),
    )
    return columns.double().permute(1, 0, 2).reshape(columns.shape[1], -1).numpy()


def _add_to_bias(model: onnx.ModelProto, node: NodeProto, change: np.ndarray) -> None:
    """Adds `change` (o,) to what a convolution or matrix product of `model` gives; it gets a bias where it has none.

    A MatMul becomes a Gemm, which computes the same.
    """
    node.op_type = "Gemm" if node.op_type == "MatMul" else node.op_type
    change = change / float(attributes_of(node).get("beta", 1.0))
    constants, name = constants_of(model), node.input[2] if len(node.input) > 2 else ""
    before = numpy_helper.to_array(constants[name]) if name else np.zeros(len(change), np.float32)
    after = np.asarray(before + change, np.float32)
    uses = Counter(used for other in model.graph.node for used in other.input)
    if name and uses[name] == 1 and after.shape == before.shape:
        write(constants[name], after)
        return
    own = f"{node.output[0]}_bias"
    model.graph.initializer.append(numpy_helper.from_array(after, own))
    node.input[2:] = [own]
    if uses[name] == 1:
        kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
