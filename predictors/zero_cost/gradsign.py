"""GradSign: Zhang and Jia, "GradSign: model performance inference with theoretical insights", arXiv:2110.08616."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import loss_gradients, proxy


@proxy("GradSign")
def gradsign(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over weights of |Σ over images of sign(dL/dw)|, with L the cross-entropy of one image alone.

    Batch norm sees one image at a time.

    Raises:
        CannotScore: batch norm gets a feature map of one position.
    """
    signs: list[Tensor] = []
    for i in range(len(images)):
        found = [g.sign() for _, g in loss_gradients(network, images[i : i + 1], labels[i : i + 1])]
        signs = [total + sign for total, sign in zip(signs, found, strict=True)] if signs else found
    return torch.stack([total.abs().sum() for total in signs]).sum()
