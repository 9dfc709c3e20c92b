"""SynFlow, synaptic flow: Tanaka et al., arXiv:2006.05467; without norms as in arXiv:2101.08134."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, proxy, weighted_layers

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@proxy("SynFlow")
def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The logarithm of the sum over weights of |w · dR/dw|, with R the sum of outputs for an image of ones.

    All parameters stand at their absolute values, and norms are left out: they would hide how much flows.  Looks at the
    images' shape alone.

    Raises:
        CannotScore: nothing flows from the input to the outputs.
    """
    _without_norms_(network).double()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    weights = [layer.weight for layer in weighted_layers(network)]
    outputs = network(torch.ones_like(images[:1], dtype=torch.float64))
    gradients = torch.autograd.grad(outputs.sum(), weights, allow_unused=True) if weights else ()
    pairs = zip(weights, gradients, strict=True)
    flow = sum(((weight * g).abs().sum() for weight, g in pairs if g is not None), torch.zeros(()))
    if flow == 0:
        raise CannotScore("SynFlow needs a path of weights from the input to an output, got a network without one")
    return flow.log()


def _without_norms_(network: nn.Module) -> nn.Module:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _NORMS):
                setattr(parent, name, nn.Identity())
    return network
