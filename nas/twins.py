"""What a network is measured beside: itself with all channels, and itself in one precision throughout.

Channels and bits are taken from a network for the time that this saves.  Whether it does is seen on files of the same
layers, since run-times convert between precisions and have no fast kernels for some layers in the lower ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from latency.compare import is_faster
from nas.objectives import Problem
from quant_search.policy import SUFFIX, bits, uniforms
from quant_search.precision import is_precision
from search_spaces.densities import dense_twin
from search_spaces.space import Architecture

DENSE = "dense"


def twins_of(arch: Architecture, problem: Problem) -> dict[str, Architecture]:
    """The networks that `arch` is measured beside, by what they are throughout: `dense`, or a precision.

    What is thinned has a twin with all channels; what is rounded, one with the most bits; what mixes precisions, one in
    each of them.  None where anything but time is to be made small: fewer channels and bits may serve that.
    """
    if {objective.metric for objective in problem.objectives} != {"val_accuracy", "latency_s"}:
        return {}
    used = {str(v) for name, v in arch.values.items() if name.endswith(SUFFIX) and is_precision(v)}
    most = max(map(bits, used), default=(0, 0))
    uniform = {p: twin for p, twin in uniforms(arch).items() if len(used) > 1 or bits(p) > most}
    return {name: twin for name, twin in {DENSE: dense_twin(arch), **uniform}.items() if twin != arch}


def with_twins(found_by: Mapping[Architecture, str], problem: Problem) -> dict[Architecture, str]:
    """The architectures and, behind them, their twins and those of these: what is verified, with what found each."""
    every = dict(found_by)
    waiting = list(found_by)
    for arch in waiting:  # which grows: a twin may take a place on the front, and has to pay as well
        for twin in twins_of(arch, problem).values():
            if twin not in every:
                every[twin] = every[arch]
                waiting.append(twin)
    return every


def unpaid(seconds: float, twins: Mapping[str, float], policy: Iterable[str]) -> str | None:
    """The name of a twin than which a network has fewer channels or bits without being 3 % faster, by medians.

    A twin with fewer bits than some block has need not be beaten: it is as a rule less accurate.

    Args:
        twins: seconds by name.
        policy: the precisions of the blocks.
    """
    most = max(map(bits, policy), default=(0, 0))
    richer = [name for name in twins if name == DENSE or bits(name) >= most]
    return next((name for name in richer if not is_faster(seconds, twins[name])), None)
