"""LAMP: magnitudes that may be compared across layers, so that one threshold gives every layer its own density.

Source: "Layer-adaptive sparsity for the magnitude-based pruning" (arXiv:2010.07611), eq. 2: with the weights of a layer
sorted by magnitude, score(u) = W[u]^2 / sum of W[v]^2 over v >= u.  The largest weight of every layer has the score 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.magnitude import magnitude
from quant_search.sparsity.weighted import Layer


def lamp(model: onnx.ModelProto, layers: Sequence[Layer], examples: Examples | None = None) -> dict[str, np.ndarray]:
    """LAMP's score of every weight; examples are not looked at."""
    return {name: relative(squares) for name, squares in magnitude(model, layers).items()}


def relative(squares: np.ndarray) -> np.ndarray:
    """Every square over the sum of it and those that come after it by size, of any shape; 0 where all are 0.

    Of equal squares the last one in the array counts as the smallest, as masks take the first of equals.
    """
    flat = squares.ravel().astype(np.float64)
    order = np.argsort(-flat, kind="stable")  # from the largest on
    sums = np.cumsum(flat[order])
    scores = np.empty(flat.size)
    scores[order] = np.divide(flat[order], sums, out=np.zeros_like(sums), where=sums > 0)
    return scores.reshape(squares.shape)
