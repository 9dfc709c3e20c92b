"""The loss of an ONNX model as a function of its weights, in torch, and what options do to these weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.layers import layers_of, values_of
from quant_search.precision import parse_precision
from quant_search.realise import rounded_weights
from quant_search.sensitivity.subject import Subject


class WeightLoss:
    """The mean cross-entropy of a subject's images, by the weights that any of its groups would round.

    Attributes:
        weights: name in the file to a tensor that requires gradients.
        group_of: name to the group that reads it.

    Raises:
        ValueError: no labels, classes that the model does not have, or a model that torch cannot run.
    """

    def __init__(self, subject: Subject, measure: str) -> None:
        labels = subject.classes(measure)
        self._module = to_torch(subject.model)
        self._x, self._y = torch.from_numpy(subject.images), torch.from_numpy(labels.astype(np.int64))
        self._subject = subject
        group_of = {node: group for group, nodes in subject.groups.items() for node in nodes}
        found = layers_of(subject.model, group_of)
        self._layers = [layer for layer in found if layer.weight in self._module.buffer_of]  # others make constants
        self.group_of = {layer.weight: group_of[layer.name] for layer in self._layers}
        self._values = {name: value for name, value in values_of(subject.model).items() if name in self.group_of}
        self.weights = {name: torch.from_numpy(v.copy()).requires_grad_() for name, v in self._values.items()}
        self._check_classes(measure)

    def _check_classes(self, measure: str) -> None:
        with torch.no_grad():
            logits = self._logits(self._x[:1])
        if logits.dim() != 2 or not 0 <= int(self._y.min()) <= int(self._y.max()) < logits.shape[1]:
            got = f"outputs {tuple(logits.shape)} of one image and labels {self._y.min()} to {self._y.max()}"
            raise ValueError(f"{measure} needs logits (b, classes) and labels from 0 below their number, got {got}")

    def _logits(self, x: Tensor) -> Tensor:
        given = {self._module.buffer_of[name]: weight for name, weight in self.weights.items()}
        logits: Tensor = torch.func.functional_call(self._module, given, (x,))
        return logits

    def parts(self, batch: int) -> Iterator[Tensor]:
        """Losses of batches in order that add up to the mean loss of all images; one graph at a time is held."""
        n = len(self._x)
        for i in range(0, n, batch):
            yield F.cross_entropy(self._logits(self._x[i : i + batch]), self._y[i : i + batch], reduction="sum") / n

    def changes(self, group: str, option: str) -> dict[str, np.ndarray]:
        """Q(W) - W of each weight of a group, float64 of its shape; zeros in fp32."""
        bits, nodes = parse_precision(option).weight_bits, self._subject.groups[group]
        codes = rounded_weights(self._subject.model, nodes, bits) if bits else {}
        after = {
            layer.weight: codes[layer.name].weight(layer.out_axis) for layer in self._layers if layer.name in codes
        }
        names = [name for name, of in self.group_of.items() if of == group]
        return {name: (after.get(name, self._values[name]) - self._values[name].astype(np.float64)) for name in names}
