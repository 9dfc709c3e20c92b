"""A network with fewer channels or with zeros, before its precisions are chosen."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from quant_search.sparsity.channels import channel_groups
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.masking import Masks, apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense
from quant_search.sparsity.refit import refit
from quant_search.sparsity.selection import adaptive_keep, score_units, uniform_keep

_ROUND_TO = 8  # channels: what kernels' vectors hold


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

    Channels are scored by Taylor's first order (arXiv:1906.10771) and taken at one density in all layers or each layer
    at its own, whichever leaves outputs closer to what they were; the layers behind are fitted to give what they gave.
    Zeros are put where weights are smallest.

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
    keeps = [choose(groups, scores, pattern.share, _ROUND_TO) for choose in (uniform_keep, adaptive_keep)]
    return min((refit(model, keep, examples.images) for keep in keeps), key=judge)
