"""What a criterion of pruning is: a score for every weight of the layers of an ONNX model, not negative.

Scores are those of single weights, so that a pattern adds up those of weights that go together: a channel's, a block's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from quant_search.sparsity.weighted import Layer

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Examples:
    """Images (n, c, h, w) float32 with their classes (n,) int64, looked at `batch` at a time.

    Raises:
        ValueError: none, not as many classes as images, or an empty batch.
    """

    images: np.ndarray
    labels: np.ndarray
    batch: int = 32

    def __post_init__(self) -> None:
        if len(self.images) == 0 or len(self.images) != len(self.labels) or self.batch < 1:
            got = f"{len(self.images)} images, {len(self.labels)} classes and a batch of {self.batch}"
            raise ValueError(f"examples are images with as many classes, one at least, got {got}")


class Criterion(Protocol):
    """A function that scores weights."""

    def __call__(
        self, model: onnx.ModelProto, layers: Sequence[Layer], examples: Examples | None = None
    ) -> dict[str, np.ndarray]:
        """The scores of each weight by its name, float64, of the shape (o, i, *k) of its layer.

        Raises:
            ValueError: it needs examples and there are none.
        """
        ...
