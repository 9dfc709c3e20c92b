"""Magnitude: what is small matters little.

Source: "Pruning filters for efficient ConvNets" (arXiv:1608.08710), with squares in the place of magnitudes, as norms
of filters are compared; of single weights the order is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.weighted import Layer, weights_of


def magnitude(
    model: onnx.ModelProto, layers: Sequence[Layer], examples: Examples | None = None
) -> dict[str, np.ndarray]:
    """w^2 for every weight; examples are not looked at."""
    stored = weights_of(model, (layer.weight for layer in layers))
    return {layer.weight: np.square(layer.read(stored[layer.weight]), dtype=np.float64) for layer in layers}
