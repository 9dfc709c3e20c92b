"""A network with fewer channels or with zeros, before its precisions are chosen."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from quant_search.sparsity.channels import Keep, channel_groups, prune_channels
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.masking import Masks, apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense
from quant_search.sparsity.rate_distortion import channel_curves, choose, macs_of
from quant_search.sparsity.refit import refit
from quant_search.sparsity.selection import UnitScores, adaptive_keep, best_units, score_units, uniform_keep

_ROUND_TO = 8  # channels: what kernels' vectors hold
_DENSITIES = tuple(i / 8 for i in range(1, 9))  # of single layers, by rate and distortion
_DISTORTING = 64  # images: the network runs on them for each number of channels of each layer


def puts_zeros(text: str) -> bool:
    """Whether a sparsity leaves tensors as they are and zeros in them.

    Raises:
        ValueError: an unknown pattern.
    """
    return not isinstance(parse_pattern(text), Dense | Channels)


def zeros_to_keep(model: onnx.ModelProto, text: str) -> Masks:
    """The masks of the zeros that `sparsified` puts into `model`; none for a pattern that puts none.

    Raises:
        ValueError: an unknown pattern.
    """
    return masks_of(model, parse_pattern(text)) if puts_zeros(text) else {}


def sparsified(
    model: onnx.ModelProto, text: str, examples: Examples, judge: Callable[[onnx.ModelProto], float]
) -> onnx.ModelProto:
    """`model` with the sparsity of a pattern; of channels, those kept that the loss misses most.

    Channels are scored by Taylor's first order (arXiv:1906.10771).  Three choices are compared: one density in all
    layers; each layer at its own, by LAMP; and each at its own by rate and distortion (arXiv:2308.10438), of no more
    MACs than the dearer of these two.  That stays which leaves outputs closest to what they were; the layers behind are
    fitted to give what they gave.  Zeros are put where weights are smallest.

    Raises:
        ValueError: an unknown pattern, or a network none of whose channels can be taken out.
    """
    pattern = parse_pattern(text)
    if isinstance(pattern, Dense):
        return model
    if not isinstance(pattern, Channels):
        return apply_masks(model, zeros_to_keep(model, text))
    groups = channel_groups(model)
    if not groups:
        raise ValueError("the network has no channels that can be taken out: leave --sparsity out")
    scores = score_units(model, groups, "taylor", examples)
    keeps: list[Keep] = [keep(groups, scores, pattern.share, _ROUND_TO) for keep in (uniform_keep, adaptive_keep)]
    macs = max(macs_of(prune_channels(model, keep)) for keep in keeps)
    keeps.append(by_rate_and_distortion(model, scores, examples, macs, pattern.share))
    return min((refit(model, keep, examples.images) for keep in keeps), key=judge)


def by_rate_and_distortion(
    model: onnx.ModelProto, scores: UnitScores, examples: Examples, macs: float, share: float
) -> Keep:
    """The units to keep that change outputs least, of no more MACs than are given (arXiv:2308.10438).

    Args:
        share: that layers may keep, beside eighths.

    Raises:
        ValueError: fewer MACs than any choice has.
    """
    images = examples.images[:_DISTORTING]
    curves = channel_curves(model, scores, (*_DENSITIES, share), images, macs_of, _ROUND_TO)
    return {group: best_units(scores[group], int(count)) for group, count in choose(curves, macs).items()}
