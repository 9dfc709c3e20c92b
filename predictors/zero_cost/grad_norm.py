"""Gradient norm: Abdelfattah et al., "Zero-cost proxies for lightweight NAS", arXiv:2101.08134, section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import loss_gradients, proxy


@proxy("the gradient norm")
def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over layers of ||dL/dw||₂, with L the mean cross-entropy of the batch."""
    return torch.stack([gradient.norm() for _, gradient in loss_gradients(network, images, labels)]).sum()
