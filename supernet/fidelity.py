"""Whether inherited accuracies rank architectures as training each of them alone does, and what to do if not.

Yu et al., "Evaluating the search phase of neural architecture search" (arXiv:1902.08142), ask this of weight sharing,
and rank by Kendall's tau.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.space import Architecture, SearchSpace
from supernet.calibrate import INHERITED_IMAGES, calibrate_, inherited_accuracy
from supernet.data import Dataset
from supernet.rank_correlation import Correlation, correlations
from supernet.recipe import Recipe
from supernet.strategies.only import Only

ENOUGH_TAU = 0.6
"""Of two architectures, (1 + tau) / 2 are in the right order: four of five here."""
_FAR_STDS, _FAR_RATIO, _FAR_SHARE = 1.0, 4.0, 0.25
_MOST_NAMES = 3


@dataclass(frozen=True)
class Fidelity:
    """Rank correlations of inherited with stand-alone accuracies over `n` architectures."""

    n: int
    kendall_tau: Correlation
    spearman: Correlation


def fidelity(inherited: np.ndarray, stand_alone: np.ndarray, seed: int = 0) -> Fidelity:
    """How well `inherited` (n,) ranks as `stand_alone` (n,) does; a course is this for each snapshot of a training.

    Where one of them is constant, both correlations are 0 in [-1, 1].

    Raises:
        ValueError: lengths that differ, fewer than 3 architectures, or an accuracy that is not finite.
    """
    return Fidelity(len(inherited), *correlations(inherited, stand_alone, seed))


# -- stand-alone training ----------------------------------------------------------------------------


def stand_alone(
    network: nn.Module, arch: Architecture, dataset: Dataset, recipe: Recipe, folder: Path | None = None
) -> float:
    """Validation accuracy of `arch` trained alone, from the weights that `network` has, calibrated as inherited ones.

    The rest of the network learns nothing, so that a training is that of the supernet, but for what it shares. It is
    done on the device of the network's parameters.

    Args:
        network: a supernet, freshly initialised from another seed than the one it is compared with.
        recipe: the supernet's settings; its strategy does not count.
        folder: keeps the training, which goes on there.

    Raises:
        TrainingDiverged: a loss or gradient is not finite.
    """
    from supernet.train import train_supernet  # here, since timm takes seconds to load

    train_supernet(network, dataset, replace(recipe, strategy=Only(arch.indices)), folder)
    return inherited_accuracy(network, arch, dataset)


# -- gaps --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gaps:
    """Stand-alone minus inherited accuracy of three architectures, in percentage points."""

    smallest: float
    middle: float
    largest: float


def extremes(space: SearchSpace) -> tuple[Architecture, Architecture, Architecture]:
    """The smallest, the evenly half scaled and the largest architecture, whose gaps say where training falls short."""
    return space.smallest(), space.scaled(0.5), space.largest()


def gaps(inherited: Sequence[float], stand_alone: Sequence[float]) -> Gaps:
    """The gaps of the accuracies, 0 to 1, of the three `extremes`.

    Raises:
        ValueError: not three of each, or one that is not finite.
    """
    if len(inherited) != 3 or len(stand_alone) != 3 or not np.isfinite([inherited, stand_alone]).all():
        raise ValueError(
            f"gaps need the finite accuracies of the smallest, middle and largest architecture, got inherited "
            f"{tuple(inherited)} and stand-alone {tuple(stand_alone)}"
        )
    return Gaps(*(100 * (alone - own) for own, alone in zip(inherited, stand_alone, strict=True)))


# -- batch norms -------------------------------------------------------------------------------------


def uncalibrated(network: nn.Module, x: np.ndarray | Tensor) -> tuple[str, ...]:
    """Names of the batch norms of a plain network whose statistics are far from what images `x` (n, c, h, w) give.

    A channel is far where its mean is off by more than one deviation or its variance by more than a factor of 4, a
    norm where more than a quarter of its channels are.  Sampling alone moves a mean over n images by about 1 / √n
    deviations at most: of mbconv subnets calibrated on other images, 1 % of a norm's channels were far at n = 32, but
    of one just extracted most channels of some norms.  A norm that is right by chance does no harm.  Each is compared
    behind calibrated ones, so that one that is far does not make others look so.  `network` is not changed.

    Raises:
        ValueError: fewer than two images.
    """
    right = copy.deepcopy(network)
    calibrate_(right, x)
    own = dict(network.named_modules())
    with torch.no_grad():
        return tuple(
            name
            for name, norm in right.named_modules()
            if isinstance(norm, _BatchNorm) and norm.track_running_stats and _far(own[name], norm)
        )


def _far(norm: nn.Module, right: _BatchNorm) -> bool:
    mean, var = (getattr(norm, name).double() for name in ("running_mean", "running_var"))
    right_mean, right_var = (getattr(right, name).double() for name in ("running_mean", "running_var"))
    ratio = (var + right.eps) / (right_var + right.eps)  # a channel that is always 0 has no variance
    near = (mean - right_mean).abs() <= _FAR_STDS * (right_var + right.eps).sqrt()
    near &= (ratio <= _FAR_RATIO) & (ratio >= 1 / _FAR_RATIO)  # NaN is not near
    return float(near.double().mean()) < 1 - _FAR_SHARE


# -- advice ------------------------------------------------------------------------------------------


def advice(
    found: Fidelity, gaps: Gaps | None, uncalibrated: Sequence[str] = (), images: int = INHERITED_IMAGES
) -> str | None:
    """What to do about inherited accuracies that rank poorly, None where nothing is wrong.

    Batch norms out of date are a fault at any tau.  Otherwise tau itself must be below `ENOUGH_TAU`, not its whole
    interval: with few architectures the interval is wide, and heeding the advice in vain costs a longer training,
    while ignoring it costs the search its sense.  A gap counts beyond two deviations of a difference of
    two accuracies on `images` validation images each, 2 · √(2 · 0.25 / images) at worst.

    Args:
        gaps: None where not all three of the `extremes` were compared.
    """
    if uncalibrated:
        names = ", ".join(uncalibrated[:_MOST_NAMES])
        rest = f" and {len(uncalibrated) - _MOST_NAMES} more" if len(uncalibrated) > _MOST_NAMES else ""
        return f"The statistics of batch norms are out of date ({names}{rest}): calibrate each extracted network."
    tau = found.kendall_tau
    if tau.value >= ENOUGH_TAU:
        return None
    low = (
        f"Inherited accuracies rank {found.n} architectures with tau {tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f}),"
    )
    return f"{low} below {ENOUGH_TAU}. {_remedy(gaps, images)}"


def _remedy(gaps: Gaps | None, images: int) -> str:
    if gaps is None:
        return (
            "What is missing shows in the gaps of the smallest, the middle and the largest architecture, which are not "
            "all among them: add these."
        )
    noise = 100 * 2 * math.sqrt(2 * 0.25 / images)
    behind = {"smallest": gaps.smallest, "middle": gaps.middle, "largest": gaps.largest}
    behind = {name: gap for name, gap in behind.items() if gap > noise}
    if not behind:
        return (
            f"No gap exceeds the {noise:.1f} points that {images} validation images leave open, so the differences may "
            "be noise: compare more and more different architectures, and train them longer alone."
        )
    worst = max(behind, key=behind.__getitem__)
    remedies = {
        "smallest": "train the smallest in every step (sandwich rule)",
        "middle": "train more random architectures per step",
        "largest": "train longer, or distil the largest from a trained teacher",
    }
    if len(behind) == len(remedies):
        return f"All gaps are large, up to {behind[worst]:.1f} points: train the supernet longer."
    return f"The {worst} is {behind[worst]:.1f} points behind its stand-alone training: {remedies[worst]}."
