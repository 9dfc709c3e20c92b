"""Densities of layers by rate and distortion: what each layer alone changes in the output, the best of all together.

Source: "Efficient joint optimization of layer-adaptive weight pruning in deep neural networks" (arXiv:2308.10438): to
first order the distortions E |f(x) - f'(x)|^2 of layers pruned alone add up (its eq. 3); they are measured for several
densities of each layer, and dynamic programming chooses one for each under a limit of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from latency.graph import kernels_of, totals
from quant_search.allocate import allocate, problem_of
from quant_search.sparsity.activations import activations
from quant_search.sparsity.channels import channel_groups, prune_channels
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
    """

    distortion: Mapping[str, Mapping[str, float]]
    rate: Mapping[str, Mapping[str, float]]
    base: float = 0.0


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
) -> Curves:
    """The curves of every group of channels over the numbers of units that are nearest to the densities.

    Sites are names of groups, options numbers of units as text.  What two neighbouring groups save overlaps: the sum of
    what each saves alone is a bound, so look at the rate of what comes out.

    Args:
        rate: of a model: MACs (`macs_of`), bytes, seconds.
        round_to: as of `counts_of`.

    Raises:
        ValueError: no images, densities out of range, or as of `prune_channels`.
    """
    wanted, base = distortion_of(model, images), rate(model)
    distortion: dict[str, dict[str, float]] = {}
    rates: dict[str, dict[str, float]] = {}
    for group in channel_groups(model):
        counts = sorted({group.size, *(nearest_count(group, density, round_to) for density in densities)})
        for count in counts:
            whole = count == group.size
            alone = model if whole else prune_channels(model, {group.name: best_units(scores[group.name], count)})
            distortion.setdefault(group.name, {})[str(count)] = 0.0 if whole else wanted(alone)
            rates.setdefault(group.name, {})[str(count)] = 0.0 if whole else rate(alone) - base
    return Curves(distortion, rates, base)


def choose(
    curves: Curves, budget: float, method: str = "dynamic-programming", *, steps: int | None = _STEPS
) -> dict[str, str]:
    """The option of each site with the least sum of distortions whose rates add up to `budget` at most.

    Args:
        method: of `quant_search.allocate`.
        steps: of dynamic programming, into which the budget is divided.

    Raises:
        ValueError: a budget that cannot be met, with the least that can.
    """
    problem = problem_of(curves.distortion, {"rate": curves.rate}, {"rate": budget - curves.base})
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
