"""What pruned channels gave on average, taken over by the biases of the layers that read them.

Batch norms of an exported graph are folded, so that their statistics cannot be taken anew; this is what is left of
it, as bias correction is after quantization ("Data-free quantization", arXiv:1906.04721, section 4.2).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from quant_search.sparsity.activations import activations
from quant_search.sparsity.channels import Keep, prune_channels, survivors
from quant_search.sparsity.weighted import attributes_of, called, constants_of, layers_of, weights_of, write


def absorb_means(model: onnx.ModelProto, keep: Keep, images: np.ndarray) -> onnx.ModelProto:
    """`prune_channels(model, keep)` with the mean of what went in the biases of the layers that read it.

    b' = b + sum over channels c that went of mean(x_c) * sum of W[:, c] over taps: exact for channels that are
    constant, but for the borders of padded convolutions.  Convolutions in groups keep their biases.

    Args:
        images: (n, c, h, w) float32.

    Raises:
        ValueError: no images, or as of `prune_channels`.
    """
    result = prune_channels(model, keep)
    left = {name: (read, made) for name, (read, made) in survivors(model, keep).items() if not read.all()}
    layers = {layer.node: layer for layer in layers_of(model) if layer.groups == 1 and layer.node in left}
    nodes = {called(node): node for node in model.graph.node}
    means = channel_means(model, [nodes[name].input[0] for name in layers], images)
    stored = weights_of(model, (layer.weight for layer in layers.values()))
    for node in result.graph.node:
        if (name := called(node)) in layers:
            layer, (read, made) = layers[name], left[name]
            weight = layer.read(stored[layer.weight]).reshape(*layer.shape[:2], -1).sum(2, dtype=np.float64)
            add_to_bias(result, node, (weight[:, ~read] @ means[node.input[0]][~read])[made])
    return result


def channel_means(model: onnx.ModelProto, names: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """The mean (c,) float64 of every channel of the named tensors over images (n, c, h, w) and pixels.

    Raises:
        ValueError: as of `activations`.
    """
    sums: dict[str, np.ndarray] = {}
    for part in activations(model, names, images):
        for name, values in part.items():
            mean = values.mean(tuple(axis for axis in range(values.ndim) if axis != 1), dtype=np.float64)
            sums[name] = sums.get(name, np.zeros(len(mean))) + mean * len(values)
    return {name: total / len(images) for name, total in sums.items()}


def add_to_bias(model: onnx.ModelProto, node: NodeProto, change: np.ndarray) -> None:
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
