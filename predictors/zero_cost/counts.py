"""The baselines that a proxy has to beat: parameters and MACs."""

from __future__ import annotations

from torch import Tensor, nn

from latency.count import count
from predictors.zero_cost.proxy import proxy


@proxy("the number of parameters")
def parameters(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The number of parameters, those of norms too."""
    return sum(p.numel() for p in network.parameters())


@proxy("the number of MACs")
def macs(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Multiply-accumulate operations of convolutions and linear layers for one image."""
    return count(network, tuple(images.shape[1:])).macs
