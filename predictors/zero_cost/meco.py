"""MeCo, minimum eigenvalue of correlation: Jiang, Wang and Bie, NeurIPS 2023.

The authors' code also counts the outputs of modules that hold others, so that its score depends on how they are nested.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from predictors.zero_cost.proxy import CannotScore, proxy

_ENLARGED = 2  # as the authors' 64 pixels for CIFAR: c channels over fewer positions are always singular


@proxy("MeCo")
def meco(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sum over layers of the least eigenvalue of the correlations (c, c) between channels of a feature map.

    One image of standard normal noise, twice as high and wide as `images`, of which only the shape is looked at.
    Layers are modules without children; channels that are constant correlate with nothing.

    Raises:
        CannotScore: no layer has a feature map (b, c, h, w) of more than one position, batch norm gets one of one
            position, or the network takes images of the given size only.
    """
    least: list[Tensor] = []

    def add(_: nn.Module, __: object, out: object) -> None:
        if isinstance(out, Tensor) and out.dim() == 4 and out[0, 0].numel() > 1:
            least.append(torch.linalg.eigvalsh(_correlations(out[0].flatten(1).double()))[0])

    for module in network.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(add)
    _, channels, height, width = images.shape
    noise = torch.randn(1, channels, _ENLARGED * height, _ENLARGED * width).to(images)
    with torch.no_grad():
        try:
            network(noise)
        except CannotScore:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:  # torch's, or the network's own check of sizes
            network(images)  # it says itself what is wrong with these
            raise CannotScore(f"MeCo needs a network that takes images of twice the size: {error}") from error
    if not least:
        raise CannotScore("MeCo looks at feature maps (b, c, h, w), got a network without any")
    return torch.stack(least).sum()


def _correlations(rows: Tensor) -> Tensor:
    """Pearson correlations (c, c) of rows (c, n); those of a constant row are 0, as in the authors' code."""
    return torch.corrcoef(rows).reshape(len(rows), len(rows)).nan_to_num(0.0, 0.0, 0.0)
