"""The loss of an ONNX model as a function of its weights, in torch, and what options do to these weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.precision import parse_precision, rounded, weights_of
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
        self._axes: dict[str, int | None] = {}
        self.group_of: dict[str, str] = {}
        for group, nodes in subject.groups.items():
            for name, axis in weights_of(subject.model, nodes).items():
                if name in self._module.buffer_of:  # others take part in constants alone
                    self._axes[name], self.group_of[name] = axis, group
        values = {t.name: t for t in subject.model.graph.initializer if t.name in self._axes}
        self._values = {name: numpy_helper.to_array(values[name]) for name in self._axes}
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
        bits, names = parse_precision(option).weight_bits, [name for name, of in self.group_of.items() if of == group]
        if bits is None:
            return {name: np.zeros(self._values[name].shape) for name in names}
        values = {name: self._values[name] for name in names}
        return {name: rounded(v, self._axes[name], bits).astype(np.float64) - v for name, v in values.items()}
