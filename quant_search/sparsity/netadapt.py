"""NetAdapt: channels are trimmed, one group at a time, until the network is as fast as it must be on the device.

Source: "NetAdapt: platform-aware neural network adaptation for mobile applications" (arXiv:1804.03230), algorithm 1:
in every iteration each group makes a proposal, itself trimmed just so far that the whole network meets the next
latency, and the best proposal is taken.  Here the best is the one with the least damage per second that it saves,
since proposals in steps of channels overshoot by different amounts; and latencies are measured on whole networks, not
summed from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from quant_search.sparsity.channel_flow import channel_flow
from quant_search.sparsity.channels import ChannelGroup, channel_groups, prune_channels
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.deployed import Latency
from quant_search.sparsity.selection import best_units, counts_of, score_units

Damage = Callable[[onnx.ModelProto], float]  # of an fp32 model: lower is better, such as a loss or 1 - accuracy
FineTune = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True, eq=False)
class Step:
    """A network on the way.

    Args:
        group: the one that was trimmed last; "" of the network that it began with.
        units: how many it has left.
    """

    model: onnx.ModelProto
    latency_s: float
    damage: float
    group: str = ""
    units: int = 0


@dataclass(frozen=True, eq=False)
class Trimming:
    """How proposals are made.

    Args:
        latency: seconds of fp32 models as they are deployed, all together so that they can be timed interleaved:
            `deployed.measured_latency`, for int8 too, or a predictor.
        damage: of an fp32 model, however deployed.
        first_decrement: the share of the first latency by which the first iteration makes it less.
        decay: of that share, from iteration to iteration.
        round_to: channels are trimmed to multiples of this, as of `width_step`.
        criterion: which channels go first; `examples` where it needs them.
        fine_tune: a short one, of every proposal.

    Raises:
        ValueError: a decrement or decay out of range.
    """

    latency: Latency
    damage: Damage
    first_decrement: float = 0.05
    decay: float = 0.98
    round_to: int = 8
    criterion: str = "magnitude"
    examples: Examples | None = None
    fine_tune: FineTune | None = None

    def __post_init__(self) -> None:
        if not (0 < self.first_decrement < 1 and 0 < self.decay <= 1):
            got = f"{self.first_decrement} and {self.decay}"
            raise ValueError(f"first_decrement must be above 0 and below 1, decay above 0 and at most 1, got {got}")


def netadapt(
    model: onnx.ModelProto,
    budget_s: float,
    how: Trimming,
    on_step: Callable[[Step], object] = lambda _: None,
) -> list[Step]:
    """The networks on the way from `model` to one of at most `budget_s`, the first being `model` itself.

    Each iteration measures about log2(counts) networks for each group and evaluates one; there are some tens of
    iterations.  It ends early, above the budget, when no group can be trimmed to be faster.

    Args:
        on_step: told each network as it is chosen.

    Raises:
        ValueError: a budget that is not positive, or as of `channel_groups` and what `how` calls.
    """
    if not budget_s > 0:
        raise ValueError(f"the budget must be seconds above 0, got {budget_s}")
    now = Step(model, how.latency([model])[0], how.damage(model))
    steps = [now]
    on_step(now)
    decrement_s = how.first_decrement * now.latency_s
    while now.latency_s > budget_s:
        proposals = propose(now, max(budget_s, now.latency_s - decrement_s), how)
        if not proposals:
            break
        now = min(proposals, key=lambda step: _price(step, steps[-1]))
        steps.append(now)
        on_step(now)
        decrement_s *= how.decay
    return steps


def propose(now: Step, target_s: float, how: Trimming) -> list[Step]:
    """`now` with each group trimmed until the network takes `target_s` at most, or as far as the group goes.

    Groups whose trimming does not make it faster propose nothing.
    """
    flow = channel_flow(now.model)
    groups = channel_groups(now.model, flow)
    scores = score_units(now.model, groups, how.criterion, how.examples)

    def trimmed(group: ChannelGroup, count: int) -> onnx.ModelProto:
        return prune_channels(now.model, {group.name: best_units(scores[group.name], count)}, flow)

    found = _counts(groups, trimmed, target_s, how)
    steps = []
    for group, count, smaller, latency_s in found:
        if latency_s < now.latency_s:
            tuned = how.fine_tune(smaller) if how.fine_tune else smaller
            steps.append(Step(tuned, latency_s, how.damage(tuned), group.name, count))
    return steps


_Found = tuple[ChannelGroup, int, onnx.ModelProto, float]


def _counts(
    groups: Sequence[ChannelGroup],
    trimmed: Callable[[ChannelGroup, int], onnx.ModelProto],
    target_s: float,
    how: Trimming,
) -> list[_Found]:
    """For each group the largest number of units that meets the target, by bisection, all groups in step."""
    searches = [_Bisection(group, counts_of(group, how.round_to)[:-1]) for group in groups]
    while open_ := [search for search in searches if search.open]:
        models = [trimmed(search.group, search.middle) for search in open_]
        for search, model, latency_s in zip(open_, models, how.latency(models), strict=True):
            search.tell(model, latency_s, target_s)
    return [search.best for search in searches if search.best]


class _Bisection:
    """Looks for the largest count of units that meets a latency, which is taken to grow with the count."""

    def __init__(self, group: ChannelGroup, counts: Sequence[int]) -> None:
        self.group, self._counts = group, list(counts)
        self._low, self._high = 0, len(self._counts)  # places of the least count not tried, and past the largest
        self.best: _Found | None = None
        self._met = False

    @property
    def open(self) -> bool:
        """Whether there is a count to be tried."""
        return self._low < self._high

    @property
    def middle(self) -> int:
        """The count that is tried next."""
        return self._counts[(self._low + self._high) // 2]

    def tell(self, model: onnx.ModelProto, latency_s: float, target_s: float) -> None:
        """What the count that was tried gives: more is tried where it meets the target, less where it does not."""
        place, met = (self._low + self._high) // 2, latency_s <= target_s
        found = (self.group, self._counts[place], model, latency_s)
        if met:
            self._low, self.best, self._met = place + 1, found, True
        else:
            self._high = place
            if not self._met and (self.best is None or latency_s < self.best[3]):
                self.best = found  # as far as it goes, unless less will do


def _price(proposal: Step, before: Step) -> float:
    """Damage for each second that is saved."""
    return (proposal.damage - before.damage) / (before.latency_s - proposal.latency_s)
