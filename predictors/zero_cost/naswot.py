"""NASWOT: Mellor et al., "Neural architecture search without training", arXiv:2006.04647v3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, proxy

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)  # pieces that are told apart by the sign


@proxy("NASWOT")
def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of |det K|, with K (b, b) how many rectifiers agree on being on or off for two images.

    Raises:
        CannotScore: no rectifier is run, or two images that all rectifiers agree on (the determinant is 0).
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        on = (inputs[0].detach().flatten(1) > 0).float()
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    for module in network.modules():
        if isinstance(module, _RECTIFIERS):
            module.register_forward_pre_hook(add)
    with torch.no_grad():
        network(images)
    if not kernel.any():
        raise CannotScore("NASWOT counts rectifiers that agree, got none: it sees those that are modules (nn.ReLU)")
    return torch.linalg.slogdet(kernel).logabsdet
