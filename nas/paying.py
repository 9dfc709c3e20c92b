"""What a device does not turn into time is refused with the factor measured on it, unless size is what counts."""

from __future__ import annotations

from collections.abc import Sequence

from latency.device import Device
from latency.store import MeasurementStore
from nas.config import Settings
from nas.progress import Reporter
from quant_search.policy import PRECISIONS, densities
from quant_search.precision import kind_of
from quant_search.sparsity.factor import check_pays, check_precision_pays
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense


def check_sparsity(
    text: str, device: Device, precision: str, for_size: bool, store: MeasurementStore | None, reporter: Reporter
) -> None:
    """Refuses zeros that do not pay; a network with fewer channels is measured beside its twin with all of them.

    Args:
        for_size: whether size is what counts.

    Raises:
        ValueError: an unknown pattern, or one that does not pay.
    """
    pattern = parse_pattern(text)
    if isinstance(pattern, Dense | Channels) or for_size:
        return
    with reporter.stage("factor") as stage:
        factor = check_pays(pattern, device, precision, store=store, on_round=stage.advance)
        stage.say(f"{text} is {factor} times as fast on {device.name} in {precision}")


def check_precisions_pay(
    precisions: Sequence[str], device: Device, for_size: bool, store: MeasurementStore | None, reporter: Reporter
) -> None:
    """Refuses precisions that only make files smaller.

    Args:
        for_size: whether size is what counts.

    Raises:
        ValueError: for the first that does not pay.
    """
    for precision in () if for_size else [p for p in precisions if p not in PRECISIONS]:
        with reporter.stage("factor") as stage:
            factor = check_precision_pays(precision, device, store=store, on_round=stage.advance)
            stage.say(f"{precision} is {factor} times as fast on {device.name} as {kind_of(precision)}")


def check_wishes(settings: Settings, device: Device, reporter: Reporter) -> None:
    """Refuses what a search cannot turn into time.

    Fewer channels are another matter: each network is measured beside its twin with all of them.

    Raises:
        ValueError: a precision that only makes files smaller, where size is no objective, or zeros in weights.
    """
    for_size = "size" in settings.objectives
    if set(settings.precisions) <= set(PRECISIONS) and all(densities([name]) for name in settings.sparsity):
        return
    with MeasurementStore(say=reporter.message) as store:
        check_precisions_pay(settings.precisions, device, for_size, store, reporter)
        for name in settings.sparsity:
            if densities([name]):
                continue
            check_sparsity(name, device, kind_of(settings.precisions[0]), for_size, store, reporter)
            refuse_zeros((name,), "objective size" if for_size else f"device {device.name}")


def refuse_zeros(patterns: Sequence[str], wish: str = "objective size") -> None:
    """Refuses patterns of zeros, which are put into the weights of one network, not of a space.

    Args:
        wish: the option and its value with which they are not refused there.

    Raises:
        ValueError: with the command that does.
    """
    for name in patterns:
        if not densities([name]):
            raise ValueError(
                f"sparsity {name!r} is put into the weights of one network: search without it, and then "
                f"`nas quantize FILE --sparsity {name} --{wish}`"
            )
