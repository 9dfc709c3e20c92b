"""Fisher: Turner et al., "BlockSwap", arXiv:1906.04113, section 3; over weights as in arXiv:2101.08134."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, loss_of, proxy, weighted_layers


@proxy("Fisher")
def fisher(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over channels of ½ · mean over images of (Σ over positions of a · dL/da)², each times its weights.

    a are the outputs of convolutions and linear layers, L the mean cross-entropy; a channel counts once for each of its
    weights, as in the authors' sum over parameters.

    Raises:
        CannotScore: the loss depends on no convolution or linear layer.
    """
    outputs: list[tuple[int, int, Tensor]] = []  # weights of a channel, axis of channels, activations
    for layer in weighted_layers(network):
        axis = -1 if isinstance(layer, nn.Linear) else 1
        per_channel = layer.weight[0].numel()

        def keep(_: nn.Module, __: object, out: Tensor, axis: int = axis, weights: int = per_channel) -> None:
            outputs.append((weights, axis, out))

        layer.register_forward_hook(keep)
    loss = loss_of(network, images, labels)
    gradients = torch.autograd.grad(loss, [out for *_, out in outputs], allow_unused=True) if outputs else ()
    terms = [
        weights * _channels(out * g, axis).square().mean(0).sum() / 2
        for (weights, axis, out), g in zip(outputs, gradients, strict=True)
        if g is not None
    ]
    if not terms:
        raise CannotScore("the loss depends on no convolution or linear layer: Fisher has nothing to score")
    return torch.stack(terms).sum()


def _channels(products: Tensor, axis: int) -> Tensor:
    """The sums over all axes but images and channels (b, c)."""
    return products.movedim(axis, 1).flatten(2).sum(2) if products.dim() > 2 else products
