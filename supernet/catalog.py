"""Names a user may give for data sets, optimizers and strategies, each in one visible table; loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from supernet.images import Source
from supernet.sources.digits import load_digits
from supernet.sources.published import load_cifar10, load_cifar100, load_fashion_mnist

if TYPE_CHECKING:
    from supernet.strategy import Strategy

DATASETS: Final[Mapping[str, Source]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
}

PICKLED_FILES: Final = (".pt", ".pth", ".bin", ".th")
WEIGHT_FILES: Final = (".safetensors", *PICKLED_FILES)  # of pretrained weights

OPTIMIZERS: Final[Mapping[str, str]] = {
    "sgd": "stochastic gradient descent with Nesterov momentum",
    "adamw": "Adam with decoupled weight decay",
    "lamb": "Adam with layer-wise step sizes, for large batches",
    "lion": "sign of the momentum; wants a learning rate ten times smaller than adamw",
}


@dataclass(frozen=True)
class StrategyEntry:
    """A way to train shared weights.

    Args:
        value: `module:Class` of the strategy.
        options: what the class is called with.
        relaxed: whether it searches as it trains, and ends with a list of architectures.
    """

    summary: str
    value: str
    options: Mapping[str, Any] = field(default_factory=dict)
    relaxed: bool = False

    def make(self) -> Strategy:
        """The strategy itself; loads torch."""
        module, _, name = self.value.partition(":")
        made: Strategy = getattr(importlib.import_module(module), name)(**self.options)
        return made


STRATEGIES: Final[Mapping[str, StrategyEntry]] = {
    "sandwich": StrategyEntry(
        "largest, smallest and random architectures, which imitate the largest (BigNAS)",
        "supernet.strategies.sandwich:Sandwich",
    ),
    "single-path": StrategyEntry(
        "one random architecture a step (SPOS)",
        "supernet.strategies.single_path:SinglePath",
    ),
    "fair": StrategyEntry(
        "as many architectures a step as there are options, each option once (FairNAS)",
        "supernet.strategies.fair:Fair",
    ),
    "best-up": StrategyEntry(
        "sandwich with the best of several architectures of like cost (AttentiveNAS)",
        "supernet.strategies.attentive:Attentive",
        {"pick": "best"},
    ),
    "worst-up": StrategyEntry(
        "sandwich with the worst of several architectures of like cost (AttentiveNAS)",
        "supernet.strategies.attentive:Attentive",
        {"pick": "worst"},
    ),
    "alphanet": StrategyEntry(
        "sandwich that distils with the adaptive alpha-divergence (AlphaNet)",
        "supernet.strategies.alphanet:AlphaNet",
    ),
    "once-for-all": StrategyEntry(
        "the largest alone, then smaller kernels, depths and widths join (once-for-all)",
        "supernet.strategies.once_for_all:OnceForAll",
    ),
    "darts": StrategyEntry(
        "mixtures of all options by their learnt probabilities (DARTS)",
        "supernet.relaxed.darts:Darts",
        relaxed=True,
    ),
    "fbnet": StrategyEntry(
        "mixtures by Gumbel softmax, with expected latency in the loss (FBNet)",
        "supernet.relaxed.fbnet:FBNet",
        relaxed=True,
    ),
    "proxyless": StrategyEntry(
        "binary gates, one or two paths at a time (ProxylessNAS)",
        "supernet.relaxed.proxyless:ProxylessNAS",
        relaxed=True,
    ),
    "superkernel": StrategyEntry(
        "kernel sizes and expansions by thresholds on one kernel's weights (Single-Path NAS)",
        "supernet.relaxed.superkernel:SuperKernel",
        relaxed=True,
    ),
    "dropnas": StrategyEntry(
        "mixtures with options dropped at random by group (DropNAS)",
        "supernet.relaxed.dropnas:DropNAS",
        relaxed=True,
    ),
    "small-temperature": StrategyEntry(
        "mixtures that sharpen to single options as they train (small temperature)",
        "supernet.relaxed.small_temperature:SmallTemperature",
        relaxed=True,
    ),
}
