"""The zero-cost proxies by name; torch is loaded when one is asked for a score.

None is used unless it is asked for.  NASWOT beats both baselines on the cells of NAS-Bench-201, on all three data sets;
on other published spaces another one does, or none (Jacobian covariance on TransNAS-Bench-101 micro, NASWOT on
NAS-Bench-301, none on NAS-Bench-101): `python -m experiments.proxy_study --parts tables`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from predictors.zero_cost.proxy import Score


@dataclass(frozen=True)
class ProxyEntry:
    """A zero-cost proxy.

    Args:
        source: where it was proposed.
        maker: `module:function` of a `Score`.
        baseline: whether it is one that the others have to beat.
    """

    summary: str
    source: str
    maker: str
    baseline: bool = False

    def score(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> float:
        """The score of an untrained network on images (b, c, h, w) and labels (b,); higher is better.

        Raises:
            CannotScore: the proxy has no meaning for this network or these images.
            ValueError: images or labels of another shape or type or on another device than the network takes, or images
                that are not finite.
            TypeError: images, labels or outputs of the network that are no tensors.
        """
        module, _, function = self.maker.partition(":")
        found: Score = getattr(importlib.import_module(module), function)
        return found(network, images, labels, seed)


PROXIES = {
    "params": ProxyEntry(
        summary="the number of parameters",
        source="baseline",
        maker="predictors.zero_cost.counts:parameters",
        baseline=True,
    ),
    "macs": ProxyEntry(
        summary="multiply-accumulate operations for one image",
        source="baseline",
        maker="predictors.zero_cost.counts:macs",
        baseline=True,
    ),
    "grad_norm": ProxyEntry(
        summary="norms of the loss' gradients, layer by layer",
        source="arXiv:2101.08134",
        maker="predictors.zero_cost.grad_norm:grad_norm",
    ),
    "snip": ProxyEntry(
        summary="how much the loss depends on each weight being there",
        source="arXiv:1810.02340",
        maker="predictors.zero_cost.snip:snip",
    ),
    "grasp": ProxyEntry(
        summary="how far removing weights would keep the gradient's flow",
        source="arXiv:2002.07376",
        maker="predictors.zero_cost.grasp:grasp",
    ),
    "synflow": ProxyEntry(
        summary="flow through absolute weights from an image of ones",
        source="arXiv:2006.05467",
        maker="predictors.zero_cost.synflow:synflow",
    ),
    "fisher": ProxyEntry(
        summary="what the loss would lose with each channel",
        source="arXiv:1906.04113",
        maker="predictors.zero_cost.fisher:fisher",
    ),
    "naswot": ProxyEntry(
        summary="how well rectifiers' on-off codes tell images apart",
        source="arXiv:2006.04647v3",
        maker="predictors.zero_cost.naswot:naswot",
    ),
    "jacov": ProxyEntry(
        summary="how little the Jacobians of different images correlate",
        source="arXiv:2006.04647v1",
        maker="predictors.zero_cost.jacov:jacov",
    ),
    "zen": ProxyEntry(
        summary="how much Gaussian networks answer to a small change of the input",
        source="arXiv:2102.01063",
        maker="predictors.zero_cost.zen:zen",
    ),
    "zico": ProxyEntry(
        summary="mean over deviation of gradients' sizes between batches",
        source="arXiv:2301.11300",
        maker="predictors.zero_cost.zico:zico",
    ),
    "gradsign": ProxyEntry(
        summary="on how many weights the images' gradients agree in sign",
        source="arXiv:2110.08616",
        maker="predictors.zero_cost.gradsign:gradsign",
    ),
    "meco": ProxyEntry(
        summary="least eigenvalues of the correlations between channels",
        source="MeCo, NeurIPS 2023",
        maker="predictors.zero_cost.meco:meco",
    ),
}
