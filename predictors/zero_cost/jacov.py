"""Jacobian covariance: Mellor et al., "Neural architecture search without training", arXiv:2006.04647v1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, proxy

_K = 1e-5  # the authors' constant, which keeps the logarithm of a singular matrix finite


@proxy("the Jacobian covariance")
def jacov(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """-Σ (log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlations (b, b) between images' Jacobians.

    The Jacobian of an image is the gradient of the sum of its outputs.

    Raises:
        CannotScore: the outputs do not depend on some image.
    """
    x = images.clone().requires_grad_(True)
    (jacobian,) = torch.autograd.grad(network(x).sum(), x, allow_unused=True)
    rows = torch.zeros_like(x) if jacobian is None else jacobian
    rows = rows.flatten(1).double()
    if not (rows.var(dim=1) > 0).all():
        raise CannotScore("the Jacobian covariance needs outputs that depend on every image, got a constant one")
    v = torch.linalg.eigvalsh(torch.corrcoef(rows)).clamp(min=0)
    return -(torch.log(v + _K) + 1 / (v + _K)).sum()
