"""GraSP, gradient signal preservation: Wang, Zhang and Grosse, arXiv:2002.07376, S(-θ), at temperature 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, loss_gradients, proxy


@proxy("GraSP")
def grasp(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over weights of -w · (H g), with g the gradient and H the Hessian of the mean cross-entropy.

    The sign is that of the paper and of arXiv:2101.08134, section 3.2.

    Raises:
        CannotScore: the gradient depends on no weight.
    """
    pairs = loss_gradients(network, images, labels, create_graph=True)
    weights = [weight for weight, _ in pairs]
    # The derivative of g · stop(g) is H g.
    product = torch.stack([(gradient.detach() * gradient).sum() for _, gradient in pairs]).sum()
    if not product.requires_grad:
        raise CannotScore("GraSP needs a gradient that depends on the weights, got a loss that is linear in them")
    curvature = torch.autograd.grad(product, weights, allow_unused=True)
    terms = [(weight * h).sum() for weight, h in zip(weights, curvature, strict=True) if h is not None]
    return -torch.stack(terms).sum()
