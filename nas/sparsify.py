"""A network with fewer channels or with zeros, before its precisions are chosen."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from latency.device import Device
from latency.store import MeasurementStore
from nas.config import Settings
from nas.progress import Reporter
from quant_search.precision import kind_of
from quant_search.sparsity.channels import channel_groups
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.factor import check_pays
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense
from quant_search.sparsity.refit import refit
from quant_search.sparsity.selection import adaptive_keep, score_units, uniform_keep

_ROUND_TO = 8  # channels: what kernels' vectors hold


def check_sparsity(
    text: str, device: Device, precision: str, for_size: bool, store: MeasurementStore | None, reporter: Reporter
) -> None:
    """Refuses a sparsity that the device does not turn into time, with the factor measured on it.

    Args:
        for_size: whether size is what counts.

    Raises:
        ValueError: an unknown pattern, or one that does not pay.
    """
    pattern = parse_pattern(text)
    if isinstance(pattern, Dense) or for_size:
        return
    with reporter.stage("factor") as stage:
        factor = check_pays(pattern, device, precision, store=store, on_round=stage.advance)
        stage.say(f"{text} is {factor} times as fast on {device.name} in {precision}")


def puts_zeros(text: str) -> bool:
    """Whether a sparsity leaves tensors as they are and zeros in them.

    Raises:
        ValueError: an unknown pattern.
    """
    return not isinstance(parse_pattern(text), Dense | Channels)


def check_zeros(settings: Settings, device: Device, reporter: Reporter) -> None:
    """Refuses a search for networks with zeros in their weights, with the factor measured on the device.

    Fewer channels are another matter: each network is measured beside its twin with all of them.

    Raises:
        ValueError: a pattern of zeros.
    """
    for name in settings.sparsity:
        if isinstance(parse_pattern(name), Channels):
            continue
        with MeasurementStore(say=reporter.message) as store:
            check_sparsity(name, device, kind_of(settings.precisions[0]), False, store, reporter)
        raise ValueError(
            f"sparsity {name!r} is put into the weights of one network: search without it, and then "
            f"`nas quantize FILE --sparsity {name} --objective size`"
        )


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
        return apply_masks(model, masks_of(model, pattern))
    groups = channel_groups(model)
    if not groups:
        raise ValueError("the network has no channels that can be taken out: leave --sparsity out")
    scores = score_units(model, groups, "taylor", examples)
    keeps = [choose(groups, scores, pattern.share, _ROUND_TO) for choose in (uniform_keep, adaptive_keep)]
    return min((refit(model, keep, examples.images) for keep in keeps), key=judge)
