"""Cross-layer equalization: channels of one layer are scaled so that their weights spread alike, and scaled back after.

Source: Data-free quantization (arXiv:1906.04721): with f(s x) = s f(x) between two layers,
W2 f(W1 x + b1) = W2 S f(S^-1 W1 x + S^-1 b1) (eq. 6 and 7), and s_i = sqrt(r1_i r2_i) / r2_i makes the ranges r1_i of
rows of W1 and r2_i of columns of W2 equal (eq. 10 and 11), over all pairs in turn until nothing changes.

A ReLU6 cuts at 6 whatever the scale, so that f(s x) != s f(x) for what it cuts.  The paper puts a ReLU in its place.
One Clip node cannot cut every channel elsewhere, so here a Clip becomes a ReLU where the outputs on calibration images
change by less than a stated share; at the others no scale moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx

from latency.device import Device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import Pair, attributes_of, pairs, values_of, with_values
from quant_search.ptq.fold import with_biases
from quant_search.ptq.walk import Walk

LIMIT = 0.01
_ROUNDS = 100
_STILL = 1e-3
_FACTORS = ("alpha", "beta")  # of matrix products
_LARGEST_SCALE = 1e4  # channels that hardly count are not blown up beyond it


def equalize(model: onnx.ModelProto, rounds: int = _ROUNDS) -> onnx.ModelProto:
    """A copy of `model` with equal outputs whose paired layers have channels of equal ranges.

    Pairs with a Clip between them are left as they are: see `without_clips`.

    Args:
        rounds: times that all pairs are gone through at most.

    Raises:
        ValueError: as `layers.pairs`.
    """
    values = {name: value.astype(np.float64) for name, value in values_of(model).items()}
    found = [pair for pair in pairs(model) if not pair.clips and _has_plain_bias(pair, values)]
    for _ in range(rounds):
        if max((_balance(pair, values) for pair in found), default=0.0) < _STILL:
            break
    touched = {name for pair in found for name in (pair.first.weight, pair.first.bias, pair.second.weight) if name}
    return with_values(model, {name: values[name].astype(np.float32) for name in touched})


def _has_plain_bias(pair: Pair, values: Mapping[str, np.ndarray]) -> bool:
    return not pair.first.bias or values[pair.first.bias].shape == (pair.first.out_channels,)


def _balance(pair: Pair, values: dict[str, np.ndarray]) -> float:
    """Scales one pair; how far from 1 the scales were, as a logarithm."""
    first, second = pair.first, pair.second
    r1 = _largest(values[first.weight], first.out_axis, first.out_channels)
    r2 = _columns(np.abs(values[second.weight]), pair)
    used = (r1 > 0) & (r2 > 0)
    ratio = np.divide(r1, r2, out=np.ones_like(r1), where=used)
    s = np.clip(np.sqrt(ratio), 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    values[first.weight] = values[first.weight] / first.by_channel(s)
    if first.bias:
        values[first.bias] = values[first.bias] / s
    values[second.weight] = values[second.weight] * second.by_input(np.repeat(s, pair.repeats))
    return float(np.abs(np.log(s)).max())


def _largest(weight: np.ndarray, axis: int, channels: int) -> np.ndarray:
    result: np.ndarray = np.abs(np.moveaxis(weight, axis, 0)).reshape(channels, -1).max(axis=1)
    return result


def _columns(weight: np.ndarray, pair: Pair) -> np.ndarray:
    """The largest absolute weight (channels,) with which the second layer reads each channel of the first."""
    second = pair.second
    if second.op_type != "Conv":
        by_input = _largest(weight, 1 - second.out_axis, second.in_channels)
    else:  # (out, in / groups, ...), whose rows belong to groups one after the other
        grouped = weight.reshape(second.groups, -1, second.in_channels // second.groups, int(np.prod(second.shape[2:])))
        by_input = grouped.max(axis=(1, 3)).reshape(-1)
    result: np.ndarray = by_input.reshape(-1, pair.repeats).max(axis=1)
    return result


def without_clips(
    model: onnx.ModelProto, images: np.ndarray, limit: float = LIMIT, threads: int = 1
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of `model` with a ReLU for each Clip between paired layers that can do without, and the names of those.

    Clips that change least when they go alone go first, as many as leave the outputs on `images` (n, c, h, w) float32
    within `limit`: root mean square of the change over that of the outputs.

    Raises:
        ValueError: as `layers.pairs`, no images, or a limit below 0.
    """
    if limit < 0 or not len(images):
        raise ValueError(f"clips go by the change on images: got {len(images)} images and the limit {limit}")
    names = list(dict.fromkeys(name for pair in pairs(model) for name in pair.clips))
    y = _outputs(model, images, threads)
    change = {name: _off(_outputs(_relu_for(model, [name]), images, threads), y) for name in names}
    order = sorted((name for name in names if change[name] <= limit), key=lambda name: change[name])
    least, most = 0, len(order)  # so many can go; the change grows with their number
    while least < most:
        count = (least + most + 1) // 2
        if _off(_outputs(_relu_for(model, order[:count]), images, threads), y) <= limit:
            least = count
        else:
            most = count - 1
    return _relu_for(model, order[:least]), tuple(order[:least])


def _outputs(model: onnx.ModelProto, images: np.ndarray, threads: int) -> np.ndarray:
    session = open_session(model.SerializeToString(), Device("cpu", "cpu", threads, "onnxruntime"))
    parts = np.array_split(images, max(1, len(images) // 16))
    return np.concatenate([session.run(part) for part in parts])


def _off(found: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(found - y)) / max(np.mean(np.square(y)), np.finfo(np.float32).tiny)))


def _relu_for(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy with a Relu in place of each named Clip, under the same name."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.name in set(names):
            node.op_type = "Relu"
            del node.input[1:], node.attribute[:]
    return result


def absorb_biases(model: onnx.ModelProto, images: np.ndarray, threads: int = 1) -> onnx.ModelProto:
    """A copy of `model` in which what all images have in common is moved on from one paired layer to the next.

    A ReLU lets c through unchanged where its input is never below c: f(x - c) = f(x) - c with c = max(0, min x), so
    that b1 - c and b2 + W2 c compute the same with smaller activations (arXiv:1906.04721, section 4.1.3, eq. 12 to 15;
    there c is beta - 3 gamma of the norm, here the least value over `images` (n, c, h, w) float32, on which outputs
    stay).  Only into layers that pad with no zeros, of which c would make something else, and through ReLUs alone.

    Raises:
        ValueError: as `layers.pairs`, or no images.
    """
    result = with_biases(model)
    nodes = {node.name: node for node in model.graph.node}
    factors = {node.name for node in model.graph.node for a in node.attribute if a.name in _FACTORS and a.f != 1}
    walk = Walk(model, images, threads=threads)
    for pair in pairs(result):
        first, second = pair.first, pair.second
        cuts = [nodes[name].op_type for name in pair.through if not _shifts(nodes[name])]
        biases = first.bias and second.bias and first.op_type != "MatMul" and factors.isdisjoint(_names(pair))
        if cuts != ["Relu"] or any(second.pads) or not biases:
            continue
        walk.advance(first.name)
        c = np.maximum(0, _least(walk, first.output))
        if c.any():
            values = values_of(result)
            weight, inputs = values[second.weight].astype(np.float64), second.by_input(np.repeat(c, pair.repeats))
            changed = {
                first.bias: values[first.bias] - c,
                second.bias: values[second.bias] + second.summed(weight * inputs),
            }
            result = with_values(result, changed)
    return result


def _shifts(node: onnx.NodeProto) -> bool:
    """Whether f(x - c) = f(x) - c for every c."""
    padded = node.op_type == "AveragePool" and any(attributes_of(node).get("pads", ()))
    return node.op_type not in ("Relu", "LeakyRelu", "Clip") and not padded


def _names(pair: Pair) -> tuple[str, str]:
    return pair.first.name, pair.second.name


def _least(walk: Walk, tensor: str) -> np.ndarray:
    """The least value (c,) of each channel of maps (b, c, ...) or vectors (b, c) over all images."""
    parts: Sequence[np.ndarray] = [y.reshape(*y.shape[:2], -1).min(axis=(0, 2)) for y in walk.each(tensor)]
    result: np.ndarray = np.min(parts, axis=0)
    return result
