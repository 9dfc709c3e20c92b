"""Taylor: what the loss would change by, to first order, if a weight were zero.

Source: "Importance estimation for neural network pruning" (arXiv:1906.10771), eq. 8: the score of a set S of weights is
the sum of (g_s w_s)^2 over s in S, with the gradient g of the loss of a batch; scores of batches are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
import torch.nn.functional as F

from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.trainable import Trainable, batches
from quant_search.sparsity.weighted import Layer


def taylor(model: onnx.ModelProto, layers: Sequence[Layer], examples: Examples | None = None) -> dict[str, np.ndarray]:
    """(g w)^2 of every weight, averaged over batches, with the gradient g of cross entropy.

    Raises:
        ValueError: no examples, or a model that has no form in torch.
    """
    if examples is None:
        raise ValueError("the criterion 'taylor' needs images with their classes, got none: give examples")
    trainable = Trainable(model, dict.fromkeys(layer.weight for layer in layers))
    leaves = list(trainable.weights.values())
    sums = [torch.zeros(leaf.shape, dtype=torch.float64) for leaf in leaves]
    parts = list(batches(examples))
    for images, labels in parts:
        gradients = torch.autograd.grad(F.cross_entropy(trainable(images), labels), leaves)
        for total, leaf, gradient in zip(sums, leaves, gradients, strict=True):
            total += (leaf.detach().double() * gradient.double()).square()
    scores = {name: (total / len(parts)).numpy() for name, total in zip(trainable.weights, sums, strict=True)}
    return {layer.weight: layer.read(scores[layer.weight]) for layer in layers}
