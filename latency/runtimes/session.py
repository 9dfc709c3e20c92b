"""What every run-time gives: an opened model, and what can be done with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np


class Session(ABC):
    """An opened model with one input (b, ...) float32; its first output is taken for logits (b, classes).

    Attributes:
        fixed_batch: the one batch that the model takes, where it does not take any.
    """

    fixed_batch: int | None = None

    @abstractmethod
    def run(self, x: np.ndarray) -> np.ndarray:
        """Logits (b, classes) of `x` (b, *input_shape) float32, for any b."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch.

        Raises:
            ValueError: a size besides the batch that the model leaves open.
        """

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of an input of so many images.

        Raises:
            ValueError: the model takes another number of them, or leaves a size besides the batch open.
        """
        if self.fixed_batch not in (None, batch):
            shape = (self.fixed_batch, *self.input_shape)
            raise ValueError(f"the model's input has the fixed shape {list(shape)}: a batch of {batch} does not fit")
        return (batch, *self.input_shape)

    def call(self, x: np.ndarray) -> Callable[[], object]:
        """What is timed: one call for the images `x` (b, *input_shape), from NumPy array to NumPy array.

        Made for this shape where the run-time can be; meant for a process that does nothing else.
        """
        return lambda: self.run(x)

    def predict_labels(self, x: np.ndarray, batch: int = 256) -> np.ndarray:
        """The class with the largest logit, int64 (n,), of images `x` (n, *input_shape) float32."""
        parts = [self.run(x[i : i + batch]).argmax(axis=1) for i in range(0, len(x), batch)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def accuracy(session: Session, x: np.ndarray, y: np.ndarray, batch: int = 256) -> float:
    """The share of images `x` (n, *input_shape) float32 whose label `y` (n,) is predicted.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"accuracy needs as many labels as images, and one at least: got {len(y)} and {len(x)}")
    return float(np.mean(session.predict_labels(x, batch) == y))


def read(model: bytes | Path) -> bytes:
    """The bytes of a model.

    Raises:
        FileNotFoundError: no such file.
    """
    if isinstance(model, bytes):
        return model
    if not model.is_file():
        raise FileNotFoundError(f"no model file {model}")
    return model.read_bytes()


def called(model: bytes | Path) -> str:
    """What a model is called in errors."""
    return f"the model {model}" if isinstance(model, Path) else f"the model of {len(model)} bytes"


def fixed_shape(sizes: tuple[object, ...]) -> tuple[int, ...]:
    """The sizes of an input besides the batch.

    Raises:
        ValueError: one that is left open.
    """
    if not all(isinstance(size, int) for size in sizes):
        raise ValueError(f"the model's input must have fixed sizes besides the batch, got {list(sizes)}")
    return tuple(int(str(size)) for size in sizes)
