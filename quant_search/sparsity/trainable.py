"""The weights of an ONNX model under torch's gradients, and back into the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.func import functional_call

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.weighted import with_weights


class Trainable:
    """A model whose named constants are leaves of torch's graph; everything else stays as it is.

    Args:
        weights: the names of float32 constants.

    Raises:
        ValueError: as of `to_torch`, or a name that no node reads.
    """

    def __init__(self, model: onnx.ModelProto, weights: Iterable[str]) -> None:
        self._model, self._module = model, to_torch(model)
        buffers = self._module.buffer_of
        self.weights: dict[str, Tensor] = {}
        for name in weights:
            if name not in buffers:
                raise ValueError(f"no node computes with a weight {name!r} in this model")
            self.weights[name] = self._module.get_buffer(buffers[name]).clone().requires_grad_()
        self._buffers = {name: buffers[name] for name in self.weights}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, c, h, w)."""
        changed = {self._buffers[name]: tensor for name, tensor in self.weights.items()}
        logits: Tensor = functional_call(self._module, changed, (images,))
        return logits

    def model(self) -> onnx.ModelProto:
        """A copy of the model with the weights as they are now."""
        arrays: Mapping[str, np.ndarray] = {name: t.detach().numpy() for name, t in self.weights.items()}
        return with_weights(self._model, arrays)


def batches(examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (b, c, h, w) and classes (b,), in order."""
    for start in range(0, len(examples.images), examples.batch):
        part = slice(start, start + examples.batch)
        yield torch.from_numpy(examples.images[part]), torch.from_numpy(np.asarray(examples.labels[part], np.int64))
