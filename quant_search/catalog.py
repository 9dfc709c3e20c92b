"""What quantization is made of, by name: number formats and ways to find the ranges of activations."""

from __future__ import annotations

from quant_search.formats.catalog import FORMATS
from quant_search.observers import Entropy, MeanSquare, Observer, Percentile, min_max

__all__ = ["FORMATS", "OBSERVERS"]

OBSERVERS: dict[str, Observer] = {
    "min-max": min_max,
    "percentile": Percentile(),
    "mse": MeanSquare(),
    "entropy": Entropy(),
}
