"""SNIP, connection sensitivity: Lee, Ajanthan and Torr, arXiv:1810.02340, section 4; summed as in arXiv:2101.08134."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import loss_gradients, proxy


@proxy("SNIP")
def snip(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over weights of |w · dL/dw|, which is |dL/dm| of a mask m of ones."""
    pairs = loss_gradients(network, images, labels)
    return torch.stack([(weight * gradient).abs().sum() for weight, gradient in pairs]).sum()
