"""Zeros in the weights of an ONNX model by a pattern, and densities that differ from layer to layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from quant_search.sparsity.criterion import Scores
from quant_search.sparsity.patterns import Pattern, mask
from quant_search.sparsity.weighted import Layer, layers_of, weights_of, with_weights

Masks = Mapping[str, np.ndarray]  # weight name to what is kept, bool, of the shape in which it is stored


def masks_of(
    model: onnx.ModelProto,
    patterns: Pattern | Mapping[str, Pattern],
    scores: Scores | None = None,
    nodes: Iterable[str] | None = None,
) -> dict[str, np.ndarray]:
    """The masks of a pattern for every layer that it fits; depthwise layers stay dense.

    Depthwise layers hold few of the weights and lose most by it ("Fast sparse ConvNets", arXiv:1911.09723).

    Args:
        patterns: one for all, or one by the name of a node; nodes without one stay dense.
        scores: of weights (o, i, *k) by name; by default their squares.
        nodes: the layers that may be pruned; by default all.

    Raises:
        ValueError: a name that is none of a layer, or as of `mask`.
    """
    named = list(patterns) if isinstance(patterns, Mapping) else None
    layers = layers_of(model, named if nodes is None else nodes)
    stored = weights_of(model, (layer.weight for layer in layers))
    masks = {}
    for layer in layers:
        pattern = patterns.get(layer.node) if isinstance(patterns, Mapping) else patterns
        if pattern is not None and maskable(layer, pattern):
            weight = layer.read(stored[layer.weight])
            own = mask(weight, pattern, None if scores is None else scores[layer.weight])
            masks[layer.weight] = np.ascontiguousarray(layer.read(own))
    return masks


def maskable(layer: Layer, pattern: Pattern) -> bool:
    """Whether a pattern puts zeros into a layer: none into depthwise ones, nor where it does not fit."""
    return not layer.depthwise and pattern.fits(layer.shape)


def apply_masks(model: onnx.ModelProto, masks: Masks) -> onnx.ModelProto:
    """A copy of `model` with zeros where masks keep nothing.

    Raises:
        ValueError: a weight that is not there, or of another shape.
    """
    stored = weights_of(model, masks)
    for name, kept in masks.items():
        if kept.shape != stored[name].shape:
            raise ValueError(f"the mask of {name!r} has the shape {kept.shape}, the weight {stored[name].shape}")
    return with_weights(model, {name: np.where(masks[name], array, 0) for name, array in stored.items()})
