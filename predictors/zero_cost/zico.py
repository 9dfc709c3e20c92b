"""ZiCo, inverse coefficient of variation on gradients: Li et al., arXiv:2301.11300.

As in the paper: the authors' code takes the deviation of signed gradients, and adds the first batch's to the second's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, loss_gradients, proxy

_PARTS = 2  # into which the images are split, as the authors take two batches


@proxy("ZiCo")
def zico(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over layers of log Σ over weights of E|g| / √Var|g|, over the gradients g of parts of the batch.

    Weights whose gradient does not vary are left out, and layers that have no others.

    Raises:
        CannotScore: fewer than 4 images, or no gradient varies.
    """
    if len(images) < 2 * _PARTS:
        raise CannotScore(f"ZiCo compares {_PARTS} parts of at least 2 images, got {len(images)} images")
    parts = zip(images.tensor_split(_PARTS), labels.tensor_split(_PARTS), strict=True)
    found = [[g.abs() for _, g in loss_gradients(network, x, y)] for x, y in parts]
    terms = []
    for layer in zip(*found, strict=True):
        sizes = torch.stack(layer)
        std = sizes.std(dim=0, unbiased=False)
        ratios = (sizes.mean(0) / std)[std > 0]
        if len(ratios):
            terms.append(ratios.sum().log())
    if not terms:
        raise CannotScore("ZiCo needs gradients that vary between parts of the batch, got the same everywhere")
    return torch.stack(terms).sum()
