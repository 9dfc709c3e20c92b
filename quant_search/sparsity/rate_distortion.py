"""Densities of layers by rate and distortion: what each layer alone changes in the output, the best of all together.

Source: "Efficient joint optimization of layer-adaptive weight pruning in deep neural networks" (arXiv:2308.10438): to
first order the distortions E |f(x) - f'(x)|^2 of layers pruned alone add up (its eq. 3); they are measured for several
densities of each layer, and dynamic programming chooses one for each under a limit of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from latency.graph import kernels_of, totals
from quant_search.allocate import allocate, problem_of
from quant_search.allocation.problem import Pairs, Rows
from quant_search.sparsity.activations import activations
from quant_search.sparsity.channel_flow import channel_flow
from quant_search.sparsity.channels import ChannelGroup, channel_groups, prune_channels
from quant_search.sparsity.criterion import Scores
from quant_search.sparsity.masking import apply_masks, maskable, masks_of
from quant_search.sparsity.patterns import Pattern
from quant_search.sparsity.selection import UnitScores, best_units, nearest_count
from quant_search.sparsity.weighted import layers_of

_STEPS = 2000


@dataclass(frozen=True)
class Curves:
    """What options of sites (layers, or groups of channels) cost and damage, each alone.

    Args:
        distortion: site to option to mean |y' - y|^2 over mean |y|^2 of the outputs.
        rate: site to option to what it adds to the rate.
        base: the rate besides.
        overlaps: two sites to their options to what these add to the rate together, beyond the sum of both.
    """

    distortion: Rows
    rate: Rows
    base: float = 0.0
    overlaps: Pairs = field(default_factory=dict)


def pattern_curves(
    model: onnx.ModelProto, patterns: Sequence[Pattern], images: np.ndarray, scores: Scores | None = None
) -> Curves:
    """The curves of every layer with those of the patterns that fit it; the rate is the number of weights kept.

    Layers that no pattern fits have no curve, and their weights are the base.  Sites are names of nodes, options
    those of patterns; give `Dense` among them, if layers may stay whole.

    Args:
        images: (n, c, h, w) float32.

    Raises:
        ValueError: no images, or as of `masks_of`.
    """
    wanted = distortion_of(model, images)
    distortion: dict[str, dict[str, float]] = {}
    rate: dict[str, dict[str, float]] = {}
    base = 0.0
    for layer in layers_of(model):
        options = [pattern for pattern in patterns if maskable(layer, pattern)]
        base += 0 if options else float(np.prod(layer.shape))
        for pattern in options:
            masks = masks_of(model, {layer.node: pattern}, scores)
            kept = int(masks[layer.weight].sum())
            changed = kept < masks[layer.weight].size
            distortion.setdefault(layer.node, {})[pattern.name] = wanted(apply_masks(model, masks)) if changed else 0.0
            rate.setdefault(layer.node, {})[pattern.name] = float(kept)
    return Curves(distortion, rate, base)


def channel_curves(
    model: onnx.ModelProto,
    scores: UnitScores,
    densities: Iterable[float],
    images: np.ndarray,
    rate: Callable[[onnx.ModelProto], float],
    round_to: int = 1,
    overlaps: bool = True,
) -> Curves:
    """The curves of every group of channels over the numbers of units that are nearest to the densities.

    Sites are names of groups, options numbers of units as text.

    Args:
        rate: of a model: MACs (`macs_of`), bytes, seconds.
        round_to: as of `counts_of`.
        overlaps: whether to take the rate of neighbouring groups pruned together, too: a layer between two groups costs
            the product of both, so that what each saves alone adds up to too much.  MACs and bytes are exact with them;
            the rate of options^2 models for each two neighbours is taken.

    Raises:
        ValueError: no images, densities out of range, or as of `prune_channels`.
    """
    wanted, densities, flow = distortion_of(model, images), list(densities), channel_flow(model)
    groups = channel_groups(model, flow)
    counts = {g.name: sorted({g.size, *(nearest_count(g, d, round_to) for d in densities)}) for g in groups}

    def pruned(*choice: tuple[ChannelGroup, int]) -> onnx.ModelProto:
        return prune_channels(model, {g.name: best_units(scores[g.name], count) for g, count in choice}, flow)

    alone = {g.name: {count: pruned((g, count)) for count in counts[g.name][:-1]} for g in groups}
    base = rate(model)

    def rows(of: Callable[[onnx.ModelProto], float]) -> dict[str, dict[str, float]]:
        return {g: {str(n): of(m) for n, m in row.items()} | {str(counts[g][-1]): 0.0} for g, row in alone.items()}

    distortion, rates = rows(wanted), rows(lambda one: rate(one) - base)
    pairs = {
        (a.name, b.name): {
            (str(n), str(m)): rate(pruned((a, n), (b, m))) - base - rates[a.name][str(n)] - rates[b.name][str(m)]
            for n in counts[a.name][:-1]
            for m in counts[b.name][:-1]
        }
        for a, b in (neighbours(groups) if overlaps else ())
    }
    return Curves(distortion, rates, base, pairs)


def neighbours(groups: Sequence[ChannelGroup]) -> list[tuple[ChannelGroup, ChannelGroup]]:
    """Groups of which one makes channels in a layer that reads those of the other, in order."""
    made = {g.name: set(g.layers) for g in groups}
    read = {g.name: {part.node for part in g.parts if part.role == "read"} for g in groups}
    return [
        (a, b)
        for i, a in enumerate(groups)
        for b in groups[i + 1 :]
        if made[a.name] & read[b.name] or made[b.name] & read[a.name]
    ]


def choose(
    curves: Curves, budget: float, method: str = "dynamic-programming", *, steps: int | None = _STEPS
) -> dict[str, str]:
    """The option of each site with the least sum of distortions whose rates, overlaps included, keep a budget.

    Args:
        method: of `quant_search.allocate`.
        steps: of dynamic programming, into which the budget is divided.

    Raises:
        ValueError: a budget that cannot be met, with the least that can.
    """
    pairs = {"rate": curves.overlaps}
    problem = problem_of(curves.distortion, {"rate": curves.rate}, {"rate": budget - curves.base}, pairs)
    settings = {"steps": steps} if method == "dynamic-programming" else {}
    return dict(allocate(problem, method, **settings).choice)


def distortion_of(model: onnx.ModelProto, images: np.ndarray) -> Callable[[onnx.ModelProto], float]:
    """How far the first output of another model lies from that of `model` on images: mean |y' - y|^2 over mean |y|^2.

    Raises:
        ValueError: no images, or a model that gives zeros alone.
    """
    name = model.graph.output[0].name
    before = np.concatenate([part[name] for part in activations(model, [name], images)])
    power = float(np.mean(np.square(before, dtype=np.float64)))
    if power == 0:
        raise ValueError(f"the output {name!r} is 0 for all images: there is nothing to distort")

    def distortion(other: onnx.ModelProto) -> float:
        after = np.concatenate([part[name] for part in activations(other, [name], images)])
        return float(np.mean(np.square(after.astype(np.float64) - before))) / power

    return distortion


def macs_of(model: onnx.ModelProto) -> float:
    """The MACs of a model for one image.

    Raises:
        ValueError: as of `kernels_of`.
    """
    return float(totals(kernels_of(model)).macs)
