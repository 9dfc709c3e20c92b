"""Times of blocks that were not measured: non-negative prices times a smooth ratio.

Pricing first keeps extrapolation positive and sane; the ratio is a Gaussian process in logarithms.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Kernel, WhiteKernel

from latency.blocks import TracedBlock

_LEAST_PRICE = 1e-3  # of what costs about one: a block that has only what was never seen to cost still costs a little
_SCALES_FROM = 200  # blocks that the process's scales are learnt on; all of them are then its data


@dataclass(frozen=True)
class Sited:
    """A block where it stands in a network.

    Args:
        entry, exit: whether the precision changes before it, and after it.
    """

    block: TracedBlock
    entry: bool = False
    exit: bool = False


@dataclass(frozen=True, eq=False)
class BlockModel:
    """The times of blocks in one precision."""

    prices: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    ratio: GaussianProcessRegressor

    @property
    def kernel(self) -> Kernel:
        """The process's kernel with the scales that were learnt."""
        return self.ratio.kernel_

    def seconds(self, blocks: Sequence[Sited]) -> np.ndarray:
        """The time of each block (n,)."""
        priced = _amounts(blocks) @ self.prices
        return priced * np.exp(self.ratio.predict((_logs(blocks) - self.center) / self.scale))


def fit_block_model(blocks: Sequence[Sited], seconds: np.ndarray, kernel: Kernel | None = None) -> BlockModel:
    """Fits the times (n,) of blocks (n of them); O(n³).

    Args:
        kernel: of an earlier fit to much the same blocks, whose scales are kept.
    """
    amounts, logs = _amounts(blocks), _logs(blocks)
    prices = lsq_linear(amounts / seconds[:, None], np.ones(len(seconds)), bounds=(_LEAST_PRICE, np.inf)).x
    center, spread = logs.mean(axis=0), logs.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1.0)
    x, y = (logs - center) / scale, np.log(seconds / (amounts @ prices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is no failure here
        if kernel is None:
            some = np.random.default_rng(0).permutation(len(x))[:_SCALES_FROM]
            kernel = GaussianProcessRegressor(_prior()).fit(x[np.sort(some)], y[np.sort(some)]).kernel_
        ratio = GaussianProcessRegressor(kernel, optimizer=None).fit(x, y)
    return BlockModel(prices, center, scale, ratio)


def _prior() -> Kernel:
    return (
        ConstantKernel(0.01, (1e-5, 1.0)) * DotProduct(1.0, (1e-2, 1e2))
        + ConstantKernel(0.05, (1e-5, 1.0)) * RBF(3.0, (0.5, 50.0))
        + WhiteKernel(0.01, (1e-6, 0.5))
    )


def _amounts(blocks: Sequence[Sited]) -> np.ndarray:
    """What blocks compute and move (n, 10), in units that cost about a microsecond each."""
    rows = []
    for sited in blocks:
        c = sited.block.counts
        converted = sited.entry * c.input_elements + sited.exit * c.output_elements
        rows.append(
            (
                1.0,
                c.layers,
                c.pointwise_macs / 1e5,
                c.depthwise_macs / 1e4,
                (c.dense_macs + c.linear_macs) / 1e5,
                c.activation_elements / 1e4,
                c.hswish_elements / 1e4,
                c.weight_elements / 1e4,
                (c.input_elements + c.output_elements) / 1e4,
                converted / 1e4,
            )
        )
    return np.array(rows, dtype=float) * 1e-6


def _logs(blocks: Sequence[Sited]) -> np.ndarray:
    """Logarithms of the amounts, the side lengths and channels at both ends, depthwise taps, and both sides (n, 16)."""
    ends = [
        (
            *(shape[0] for shape in (block.input_shape, block.output_shape)),
            *(math.prod(shape[1:]) for shape in (block.input_shape, block.output_shape)),
            block.counts.depthwise_macs / max(1, block.counts.activation_elements),
        )
        for block in (sited.block for sited in blocks)
    ]
    sides = np.array([(sited.entry, sited.exit) for sited in blocks], dtype=float)
    logs = np.log(_amounts(blocks)[:, 1:] * 1e6 + 1e-2)
    return np.column_stack([logs, np.log1p(np.array(ends, dtype=float)), sides])
