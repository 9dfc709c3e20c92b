"""Latency of whole networks from block times: a table, a model for blocks not in it, and a correction.

The block table of ProxylessNAS and FBNet (arXiv:1812.00332, 1812.03443) sums isolated block times, which is
wrong by what a block costs only on its own (a call, a conversion at each end).  A correction with few
parameters, fitted on whole networks, removes that:

    t = t0 + Σ_p (α_p Σ_{blocks in p} t_block + β_p · blocks in p) + γ · boundaries + δ · boundary elements

with precisions p; a boundary is where two consecutive blocks differ in precision.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import lsq_linear
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from latency.blocks import TracedBlock
from predictors.held import LinearPrior, fit_held
from predictors.protocol import Prediction

Placed = tuple[TracedBlock, str]
"""A block and the precision it runs in."""

_PRECISIONS = ("fp32", "int8")  # in the order of the terms
# Prior of the correction: block times add up as they are, and nothing else costs; blocks and boundaries cost
# microseconds, and a block may cost less than on its own.
_PRIOR = LinearPrior(
    mean=np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
    width=np.array([5e-6, 0.15, 2e-6, 0.15, 2e-6, 3e-6, 3e-9]),
    free=np.array([False, False, True, False, True, False, False]),
)
_LEAST_PRICE = 1e-3  # of what costs about one: a block that has only what was never seen to cost still costs a little


@dataclass(frozen=True, eq=False)
class _BlockModel:
    """Times of unmeasured blocks in one precision: non-negative prices times a smooth ratio.

    Pricing first keeps extrapolation positive and sane; the ratio is a Gaussian process in logarithms.
    """

    prices: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    ratio: GaussianProcessRegressor

    def seconds(self, blocks: Sequence[TracedBlock]) -> np.ndarray:
        """The isolated time of each block (n,)."""
        priced = _amounts(blocks) @ self.prices
        return priced * np.exp(self.ratio.predict((_logs(blocks) - self.center) / self.scale))


def _fit_block_model(blocks: Sequence[TracedBlock], seconds: np.ndarray) -> _BlockModel:
    amounts, logs = _amounts(blocks), _logs(blocks)
    prices = lsq_linear(amounts / seconds[:, None], np.ones(len(seconds)), bounds=(_LEAST_PRICE, np.inf)).x
    center, scale = logs.mean(axis=0), logs.std(axis=0) + 1e-6
    kernel = (
        ConstantKernel(0.01, (1e-5, 1.0)) * DotProduct(1.0, (1e-2, 1e2))
        + ConstantKernel(0.05, (1e-5, 1.0)) * RBF(3.0, (0.5, 50.0))
        + WhiteKernel(0.01, (1e-6, 0.5))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound is no failure here
        ratio = GaussianProcessRegressor(kernel).fit((logs - center) / scale, np.log(seconds / (amounts @ prices)))
    return _BlockModel(prices, center, scale, ratio)


@dataclass(frozen=True, eq=False)
class BlockTable:
    """A fitted latency model of one device.

    Args:
        seconds: measured times of isolated blocks by (structure, precision).
        models: for blocks that were not measured, by precision.
        correction: the seven coefficients (t0, α and β per precision, γ, δ).
        relative_std: of the network predictions, each network left out of the fit in turn.
        fitted_terms, fitted_seconds: of the networks (n, 7) and (n,) that the correction was fitted on.
    """

    seconds: Mapping[tuple[str, str], float]
    models: Mapping[str, _BlockModel]
    correction: np.ndarray = field(default_factory=_PRIOR.mean.copy)
    relative_std: float = float("nan")
    fitted_terms: np.ndarray = field(default_factory=lambda: np.zeros((0, len(_PRIOR.mean))))
    fitted_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def block_seconds(self, blocks: Sequence[Placed]) -> np.ndarray:
        """The isolated time of each block (n,): measured where it was, else modelled."""
        result = np.array([self.seconds.get((b.structure, p), np.nan) for b, p in blocks])
        for precision in {p for (_, p), t in zip(blocks, result, strict=True) if np.isnan(t)}:
            missing = [i for i, (_, p) in enumerate(blocks) if p == precision and np.isnan(result[i])]
            result[missing] = self.models[precision].seconds([blocks[i][0] for i in missing])
        return result

    def summarise(self, networks: Sequence[Sequence[Placed]]) -> np.ndarray:
        """The terms of the formula above for each network (n, 7)."""
        if not networks:
            return np.zeros((0, len(_PRIOR.mean)))
        unique = {(b.structure, p): (b, p) for network in networks for b, p in network}
        times = dict(zip(unique, self.block_seconds(list(unique.values())), strict=True))
        return np.array([_terms(network, times) for network in networks])

    def predict_terms(self, terms: np.ndarray) -> Prediction:
        """Latency in seconds from the terms of n networks (n, 7)."""
        mean = terms @ self.correction
        return Prediction(mean, self.relative_std * mean)

    def predict(self, networks: Sequence[Sequence[Placed]]) -> Prediction:
        """Latency in seconds of n networks, each a row of placed blocks."""
        return self.predict_terms(self.summarise(networks))

    def corrected(self, networks: Sequence[Sequence[Placed]], seconds: np.ndarray) -> BlockTable:
        """The same table with its correction fitted on measured networks (n of them, seconds (n,)).

        Networks of earlier corrections stay part of the fit.

        Raises:
            ValueError: no networks, not as many times, or one that is not positive.
        """
        terms = np.concatenate([self.fitted_terms, self.summarise(networks)])
        seconds = np.concatenate([self.fitted_seconds, np.asarray(seconds, dtype=float)])
        fit = fit_held(terms, seconds, _PRIOR)
        return replace(
            self,
            correction=fit.coefficients,
            relative_std=float(np.sqrt(np.mean(fit.left_out**2))),
            fitted_terms=terms,
            fitted_seconds=seconds,
        )


def fit_block_table(measured: Sequence[tuple[TracedBlock, str, float]]) -> BlockTable:
    """The table of isolated blocks measured in seconds, with a model for the others; not yet corrected.

    A block measured several times stands with its median.

    Raises:
        ValueError: nothing was measured, or a time that is not positive.
    """
    if not measured:
        raise ValueError("a block table needs measured blocks")
    times: dict[tuple[str, str], list[float]] = {}
    for block, precision, t in measured:
        if not 0 < t < math.inf:
            raise ValueError(f"block {block.name!r} in {precision} must have a positive time in seconds, got {t}")
        times.setdefault((block.structure, precision), []).append(t)
    models = {}
    for precision in dict.fromkeys(p for _, p, _ in measured):
        rows = [(b, t) for b, p, t in measured if p == precision]
        rows.sort(key=lambda row: (row[0].structure, row[1]))  # likelihood is flat: its maximum shifts with the order
        models[precision] = _fit_block_model([b for b, _ in rows], np.array([t for _, t in rows]))
    medians = {key: statistics.median(found) for key, found in times.items()}
    return BlockTable(medians, models)


def _amounts(blocks: Sequence[TracedBlock]) -> np.ndarray:
    """What blocks compute and move (n, 9), in units that cost about a microsecond each."""
    rows = []
    for block in blocks:
        c = block.counts
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
            )
        )
    return np.array(rows, dtype=float) * 1e-6


def _logs(blocks: Sequence[TracedBlock]) -> np.ndarray:
    """Logarithms of the amounts, the side lengths and channels at both ends, and the depthwise taps (n, 13)."""
    ends = [
        (
            *(shape[0] for shape in (block.input_shape, block.output_shape)),
            *(math.prod(shape[1:]) for shape in (block.input_shape, block.output_shape)),
            block.counts.depthwise_macs / max(1, block.counts.activation_elements),
        )
        for block in blocks
    ]
    return np.column_stack([np.log(_amounts(blocks)[:, 1:] * 1e6 + 1e-2), np.log1p(np.array(ends, dtype=float))])


def _terms(network: Sequence[Placed], times: Mapping[tuple[str, str], float]) -> list[float]:
    """(1, Σt and blocks in fp32, Σt and blocks in int8, boundaries, boundary elements)."""
    sums = dict.fromkeys(_PRECISIONS, 0.0)
    blocks = dict.fromkeys(_PRECISIONS, 0)
    boundaries, elements, before = 0, 0, "fp32"
    for block, precision in network:
        sums[precision] += times[block.structure, precision]
        blocks[precision] += 1
        if precision != before:
            boundaries += 1
            elements += block.counts.input_elements
        before = precision
    boundaries += before != "fp32"  # the logits leave in fp32
    return [1.0, sums["fp32"], blocks["fp32"], sums["int8"], blocks["int8"], boundaries, elements]
