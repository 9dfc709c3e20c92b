"""How near the closed form comes to fused blocks: `python -m experiments.fused_estimate [--blocks 60] [--seed N]`.

Random inverted residuals are timed in one thread and held against what `latency.fused_roofline` makes of their shapes.
A block's time is that of a program in which it occurs several times, all reading one image of codes and with weights of
their own, less that of a program in which it occurs once.  All take turns.  The prices are those of the store, or
measured first; the blocks have no part in them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from latency.fused_prices import cpu_samples, difference_s, prices_of
from latency.fused_programs import Layers, Pair, repeated
from latency.fused_roofline import FusedPrices, block_s, floor_s
from latency.fused_work import TERMS
from latency.kernels.native import instruction_sets
from predictors.ranking import agreement

_NEAR = 0.15
_WORST = 10
_MACS = 3e6  # of all links of a pair, so that the clock sees small blocks
_MOST_LINKS = 24
_WEIGHTS = 3  # blocks with weights of their own


@dataclass(frozen=True)
class Shape:
    """An inverted residual on codes (height, height, inputs); without expansion where `expanded` equals `inputs`."""

    height: int
    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int
    residual: bool

    def __str__(self) -> str:
        added = " + residual" if self.residual else ""
        channels = f"{self.inputs:3} -> {self.expanded:3} -> {self.outputs:3}"
        return f"{self.height:3}x{self.height:<3} {channels} k{self.kernel} s{self.stride}{added}"

    def estimate_s(self, prices: FusedPrices) -> float:
        """By the closed form."""
        sizes = (self.height, self.height, self.inputs, self.expanded, self.outputs)
        return block_s(*sizes, self.kernel, self.stride, prices)

    @property
    def links(self) -> int:
        """How many blocks the long program has more than the short one."""
        return int(np.clip(_MACS / (self.height**2 * self.expanded * self.inputs), 1, _MOST_LINKS))

    def pair(self, make: Layers) -> Pair:
        """A program with one such block, and one with more."""
        channels = (self.inputs, self.expanded, self.outputs)
        blocks = [make.block(*channels, self.kernel, self.stride, self.residual) for _ in range(_WEIGHTS)]
        return repeated(blocks, self.links, (self.inputs, self.height, self.height))


def drawn(rng: np.random.Generator, evenly: bool) -> Shape:
    """A random block.

    Args:
        evenly: heights and channels evenly from least to most, rather than their logarithms.
    """

    def number(least: int, most: int) -> int:
        if evenly:
            return int(rng.integers(least, most + 1))
        return round(float(np.exp(rng.uniform(np.log(least), np.log(most)))))

    height, inputs = number(4, 112), number(8, 160)
    expanded = max(inputs, round(inputs * rng.uniform(1, 6))) if rng.random() < 0.9 else inputs
    kernel, stride = int(rng.choice((3, 5, 7))), int(rng.choice((1, 2)))
    residual = bool(stride == 1 and rng.random() < 0.5)
    return Shape(height, inputs, expanded, inputs if residual else number(8, 160), kernel, stride, residual)


def main() -> None:
    """Prints prices, how near the estimate comes, what it is furthest from, and what measurements are of the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evenly", action="store_true", help="draw sizes evenly, not their logarithms: larger blocks")
    parser.add_argument("--instruction-set", choices=instruction_sets(), default=instruction_sets()[0])
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    shapes = [drawn(rng, given.evenly) for _ in range(given.blocks)]
    prices = prices_of(given.instruction_set)
    for term, what in TERMS.items():
        print(f"{prices.seconds[term] * 1e9:9.2f} ns  {what}")
    pairs = [shape.pair(Layers(rng)) for shape in shapes]
    samples = cpu_samples([program for pair in pairs for program in (pair.short, pair.long)], given.instruction_set)
    links = np.array([shape.links for shape in shapes])
    measured = np.array([difference_s(a, b) for a, b in zip(samples[::2], samples[1::2], strict=True)]) / links
    estimated = np.array([shape.estimate_s(prices) for shape in shapes])
    error = estimated / measured - 1
    for i in np.argsort(-np.abs(error))[:_WORST]:
        print(f"{shapes[i]!s:44} measured {measured[i] * 1e6:8.2f} us  estimate {error[i]:+7.1%}")
    found, near = agreement(estimated, measured), np.mean(np.abs(error) <= _NEAR)
    print(f"{found.items} blocks: {near:.1%} within {_NEAR:.0%}, mean error {found.mape:.1%}", end=", ")
    print(f"median {np.median(error):+.1%}, Kendall tau {found.kendall:.4f}")
    shares = [floor_s(pair.long, prices) / long.min() for pair, long in zip(pairs, samples[1::2], strict=True)]
    print(f"floors are {np.median(shares):.1%} of the fastest samples, {max(shares):.1%} at most")


if __name__ == "__main__":
    main()
