"""Times of blocks that were not measured: of each layer, or of the whole block, a price times a smooth ratio.

Where a run-time tells the times of the nodes of a network, those of the layers of its blocks are known: there are many
more of these than blocks, each is a simpler function of its shape, and much the same ones occur in different blocks.
Where there is an estimate of a block in closed form, that is its price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency.blocks import TracedBlock
from latency.count import Layer
from predictors.kernel_ratio import HARD_TO_TELL_S, RatioModel, fit_ratio
from predictors.kernel_work import Work

_ANY = "any"  # of the model for layers of kinds that were hardly seen
_WHOLE = "block"
_LEAST_SAMPLES = 12  # of a kind, for a model of its own
_POOLED = 300  # samples of the model for any kind
_KNOWN_TO_S = 0.3e-6  # times of blocks that have an estimate: differences of calls that are not interpreted

Estimate = Callable[[TracedBlock], float]
"""The positive seconds of a block for one image, in closed form."""


@dataclass(frozen=True)
class Sited:
    """A block where it stands in a network.

    Args:
        entry, exit: whether the precision changes before it, and after it.
    """

    block: TracedBlock
    entry: bool = False
    exit: bool = False

    @property
    def layout(self) -> tuple[str, ...]:
        """The kinds of its layers."""
        return tuple(layer.kind for layer in self.block.layers)


@dataclass(frozen=True, eq=False)
class BlockModel:
    """The times of blocks in one precision.

    Args:
        kinds: models of layers by their kind, and one of whole blocks.
        by_layers: the kinds of the layers of blocks that are the sum of their layers; others are known as wholes.
        estimate: of whole blocks, whose ratio to it is modelled; without it, their ratio to fitted prices.
    """

    kinds: Mapping[str, RatioModel]
    by_layers: frozenset[tuple[str, ...]]
    estimate: Estimate | None = None

    def seconds(self, blocks: Sequence[Sited]) -> np.ndarray:
        """The time of each block (n,)."""
        works = [
            _layers(block) if block.layout in self.by_layers else [_whole(block, self.estimate)] for block in blocks
        ]
        owner = np.repeat(np.arange(len(blocks)), list(map(len, works)))
        flat = [work for row in works for work in row]
        names = [work.kind if work.kind in self.kinds else work.family for work in flat]
        found = np.zeros(len(blocks))
        for name in dict.fromkeys(names):
            rows = [i for i, other in enumerate(names) if other == name]
            np.add.at(found, owner[rows], self.kinds[name].seconds([flat[i] for i in rows])[0])
        return found


def fit_block_model(
    blocks: Sequence[Sited],
    seconds: Sequence[Sequence[float]],
    tuned: BlockModel | None = None,
    estimate: Estimate | None = None,
) -> BlockModel:
    """Fits the times of blocks (n of them), each of its layers, or a single one of the whole.

    Blocks are the sums of their layers where the layers of all measured blocks alike are known: in others something is
    computed that no layer stands for, such as the products of attention.

    Args:
        tuned: an earlier fit to much the same blocks, whose parameters are kept.
        estimate: of whole blocks in closed form, up to a factor.
    """
    some = any(len(times) > 1 for times in seconds)
    told: dict[tuple[str, ...], bool] = {}
    for block, times in zip(blocks, seconds, strict=True):
        told[block.layout] = told.get(block.layout, some) and len(times) == len(_layers(block))
    rows = [
        sample
        for block, times in zip(blocks, seconds, strict=True)
        if told[block.layout]
        for sample in zip(_layers(block), times, strict=True)
    ]
    all_known = all(told.values())
    samples = {
        _WHOLE: [
            (_whole(block, estimate), sum(times))
            for block, times in zip(blocks, seconds, strict=True)
            if all_known or not told[block.layout]
        ]
    }
    if rows:
        samples[_ANY] = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:_POOLED]]
    for work, t in rows:
        samples.setdefault(work.kind, []).append((work, t))
    return BlockModel(
        {
            kind: fit_ratio(
                [work for work, _ in found],
                np.array([t for _, t in found]),
                theta=tuned.kinds[kind].theta if tuned and kind in tuned.kinds else None,
                known_to_s=_KNOWN_TO_S if estimate else HARD_TO_TELL_S,
            )
            for kind, found in samples.items()
            if kind in (_WHOLE, _ANY) or len(found) >= _LEAST_SAMPLES
        },
        frozenset(layout for layout, known in told.items() if known),
        estimate,
    )


def _layers(sited: Sited) -> list[Work]:
    counts, layers = sited.block.counts, sited.block.layers or (Layer("none"),)
    converted = [0] * len(layers)
    converted[0] += sited.entry * counts.input_elements
    converted[-1] += sited.exit * counts.output_elements
    return [_layer(layer, elements) for layer, elements in zip(layers, converted, strict=True)]


def _layer(layer: Layer, converted: int) -> Work:
    """The work of a layer, after or before which so many elements change their precision."""
    ins, outs = (channels * size for channels, size in zip(layer.channels, layer.sizes, strict=True))
    amounts = (
        1.0,
        layer.macs / (1e4 if layer.kind == "depthwise" else 1e5),
        ins / 1e4,
        outs / 1e4,
        layer.weight_elements / 1e4,
        layer.activation_elements / 1e4,
        layer.other_elements / 1e4,
        converted / 1e4,
    )
    logs = (
        *(math.log(n) for n in (*layer.channels, *layer.sizes, layer.taps)),
        math.log1p(layer.macs),
        layer.activation_elements / outs,
        math.log1p(layer.other_elements / outs),
        math.log1p(layer.other_elements),
        math.log1p(converted / max(ins, outs)),
    )
    return Work(layer.kind, _ANY, amounts, logs)


def _whole(sited: Sited, estimate: Estimate | None) -> Work:
    """The work of a block: what it computes and moves, its ends, and whether the precision changes there."""
    block, c = sited.block, sited.block.counts
    amounts = (
        1.0,
        c.layers,
        c.pointwise_macs / 1e5,
        c.depthwise_macs / 1e4,
        (c.dense_macs + c.linear_macs) / 1e5,
        c.activation_elements / 1e4,
        c.hswish_elements / 1e4,
        c.weight_elements / 1e4,
        (c.input_elements + c.output_elements) / 1e4,
        (sited.entry * c.input_elements + sited.exit * c.output_elements) / 1e4,
    )
    ends = (
        block.input_shape[0],
        block.output_shape[0],
        *(math.prod(s[1:]) for s in (block.input_shape, block.output_shape)),
    )
    logs = (
        *(math.log(amount + 1e-2) for amount in amounts[1:]),
        *(math.log1p(end) for end in ends),
        math.log1p(c.depthwise_macs / max(1, c.activation_elements)),
        float(sited.entry),
        float(sited.exit),
    )
    return Work(_WHOLE, _WHOLE, amounts if estimate is None else (estimate(block) * 1e6,), logs)
