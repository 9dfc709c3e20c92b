"""Latency of whole networks from block times: a table, a model for blocks not in it, and a correction.

The block table of ProxylessNAS and FBNet (arXiv:1812.00332, 1812.03443) sums isolated block times, which is
wrong by what a block costs only on its own (a call, a conversion at each end).  A correction with few
parameters, fitted on whole networks, removes that:

    t = t0 + Σ_p (α_p Σ_{blocks in p} t_block + β_p · blocks in p) + γ · boundaries + δ · boundary elements

with precisions p; a boundary is where two consecutive blocks differ in precision.  Where a run-time tells the time of
each block inside a network, t_block is that, boundaries are part of it, and there is little left to correct.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from latency.blocks import TracedBlock
from predictors.block_model import BlockModel, Estimate, Sited, fit_block_model
from predictors.held import LinearPrior, fit_held
from predictors.protocol import Prediction

Placed = tuple[TracedBlock, str]
"""A block and the precision it runs in."""

Key = tuple[str, str, bool, bool]
"""Structure and precision of a block, and whether the precision changes before and after it."""

_PRECISIONS = ("fp32", "int8")  # in the order of the terms
# Prior of the correction: block times add up as they are, and nothing else costs; blocks and boundaries cost
# microseconds, and a block may cost less than on its own.
_PRIOR = LinearPrior(
    mean=np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
    width=np.array([5e-6, 0.15, 2e-6, 0.15, 2e-6, 3e-6, 3e-9]),
    free=np.array([False, False, True, False, True, False, False]),
)
_LEAST_S = 1e-7  # of a network: it never takes less than nothing
_NOMINAL = 0.9  # of the interval that the stated deviation is chosen for
_LEAST_DEVIATION = 1e-6  # usual residuals of times without noise
_DEVIATIONS = 1.6449  # of a normal distribution, which hold that share


@dataclass(frozen=True)
class BlockTime:
    """A measured block: on its own, or (with `entry` and `exit`, as `Sited` has them) where it stood in a network.

    Args:
        layers_s: the times of its layers, where these are known.
    """

    block: TracedBlock
    precision: str
    seconds: float
    entry: bool = False
    exit: bool = False
    layers_s: tuple[float, ...] = ()

    @property
    def sited(self) -> Sited:
        """The block and its place."""
        return Sited(self.block, self.entry, self.exit)

    @property
    def key(self) -> Key:
        """What it is looked up by."""
        return self.block.structure, self.precision, self.entry, self.exit


@dataclass(frozen=True, eq=False)
class BlockTable:
    """A fitted latency model of one device.

    Args:
        seconds: measured times of blocks.
        models: for blocks that were not measured, by precision.
        sited: whether blocks were measured where they stand, so that what a boundary costs is in their times.
        correction: the seven coefficients (t0, α and β per precision, γ, δ).
        relative_std: of the network predictions, for networks in fp32, in int8, and in both: nine tenths of networks
            that the fit has not seen are within 1.64 of it.
        fitted_terms, fitted_seconds: of the networks (n, 7) and (n,) that the correction was fitted on.
        batch: images in the calls that were measured.
    """

    seconds: Mapping[Key, float]
    models: Mapping[str, BlockModel]
    sited: bool = False
    correction: np.ndarray = field(default_factory=_PRIOR.mean.copy)
    relative_std: np.ndarray = field(default_factory=lambda: np.full(3, np.nan))
    fitted_terms: np.ndarray = field(default_factory=lambda: np.zeros((0, len(_PRIOR.mean))))
    fitted_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    batch: int = 1
    _modelled: dict[Key, float] = field(default_factory=dict)  # by `models`, so that each is asked once

    def block_seconds(self, network: Sequence[Placed]) -> np.ndarray:
        """The time of each block (n,) of a network: measured where it was, else modelled."""
        placed = _sited(network, self.sited)
        times = self._times(placed)
        return np.array([times[time.key] for time in placed])

    def summarise(self, networks: Sequence[Sequence[Placed]]) -> np.ndarray:
        """The terms of the formula above for each network (n, 7)."""
        if not networks:
            return np.zeros((0, len(_PRIOR.mean)))
        rows = [_sited(network, self.sited) for network in networks]
        times = self._times([block for row in rows for block in row])
        return np.array([_terms(row, times, self.batch) for row in rows])

    def _times(self, blocks: Sequence[BlockTime]) -> Mapping[Key, float]:
        """The time of each block by its key."""
        found = {b.key: self.seconds.get(b.key, self._modelled.get(b.key, math.nan)) for b in blocks}
        missing = {b.key: b for b in blocks if math.isnan(found[b.key])}
        for precision in {b.precision for b in missing.values()}:
            these = [b for b in missing.values() if b.precision == precision]
            times = self.models[precision].seconds([b.sited for b in these]).tolist()
            self._modelled.update(zip((b.key for b in these), times, strict=True))
        return found | {key: self._modelled[key] for key in missing}

    def predict_terms(self, terms: np.ndarray) -> Prediction:
        """Latency in seconds from the terms of n networks (n, 7)."""
        mean = np.maximum(terms @ self.correction, _LEAST_S)
        return Prediction(mean, self.relative_std[_kinds(terms)] * mean)

    def predict(self, networks: Sequence[Sequence[Placed]]) -> Prediction:
        """Latency in seconds of n networks, each a row of placed blocks."""
        return self.predict_terms(self.summarise(networks))

    def corrected(self, networks: Sequence[Sequence[Placed]], seconds: np.ndarray) -> BlockTable:
        """The same table with its correction fitted on measured networks (n of them, seconds (n,)).

        Networks of earlier corrections stay part of the fit.

        Raises:
            ValueError: no networks, not as many times, or one that is not positive.
        """
        return self.corrected_on(self.summarise(networks), seconds)

    def corrected_on(self, terms: np.ndarray, seconds: np.ndarray) -> BlockTable:
        """As `corrected`, from the terms (n, 7) of networks, which may come from tables that had not seen them."""
        terms = np.concatenate([self.fitted_terms, terms])
        seconds = np.concatenate([self.fitted_seconds, np.asarray(seconds, dtype=float)])
        fit = fit_held(terms, seconds, _PRIOR)
        return replace(
            self,
            correction=fit.coefficients,
            relative_std=_deviations(fit.left_out, _kinds(terms)),
            fitted_terms=terms,
            fitted_seconds=seconds,
        )


def fit_block_table(
    measured: Sequence[BlockTime],
    *,
    sited: bool = False,
    tuned: Mapping[str, BlockModel] | None = None,
    batch: int = 1,
    estimate: Estimate | None = None,
) -> BlockTable:
    """The table of measured blocks, with a model for the others; not yet corrected.

    A block measured several times stands with its median.

    Args:
        sited: whether the blocks were measured inside networks.
        tuned: models of an earlier fit to much the same blocks, by precision.
        batch: images in the calls that were measured.
        estimate: of blocks in closed form, up to a factor; those that were not measured are modelled from it.

    Raises:
        ValueError: nothing was measured, or a time that is not positive.
    """
    if not measured:
        raise ValueError("a block table needs measured blocks")
    times: dict[Key, list[tuple[float, ...]]] = {}
    first: dict[Key, BlockTime] = {}
    for m in measured:
        if not 0 < m.seconds < math.inf:
            raise ValueError(
                f"block {m.block.name!r} in {m.precision} must have a positive time in seconds, got {m.seconds}"
            )
        times.setdefault(m.key, []).append(m.layers_s or (m.seconds,))
        first.setdefault(m.key, m)
    medians = {key: _median(found) for key, found in times.items()}
    models = {}
    for precision in dict.fromkeys(m.precision for m in measured):
        # Sorted: the likelihood is flat, and its maximum shifts with the order.
        keys = sorted(key for key in medians if key[1] == precision)
        models[precision] = fit_block_model(
            [first[k].sited for k in keys],
            [medians[k] for k in keys],
            tuned.get(precision) if tuned else None,
            estimate,
        )
    return BlockTable({key: sum(found) for key, found in medians.items()}, models, sited, batch=batch)


def _median(times: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Of each layer's times; of the whole block's, where the layers are not known each time."""
    if len(set(map(len, times))) > 1:
        times = [(sum(found),) for found in times]
    return tuple(map(statistics.median, zip(*times, strict=True)))


def fit_sited_table(
    networks: Sequence[Sequence[Placed]],
    layer_seconds: Sequence[Sequence[np.ndarray]],
    seconds: np.ndarray,
    *,
    tuned: Mapping[str, BlockModel] | None = None,
    folds: int = 5,
    batch: int = 1,
    estimate: Estimate | None = None,
) -> BlockTable:
    """The table of networks whose blocks were timed inside them, corrected, with a deviation for unseen networks.

    The correction and the deviation come from cross-fitting: each network's blocks are summed by a table that has not
    seen this network, nor the others of its fold.  Consecutive networks of one architecture share a fold.

    Args:
        layer_seconds: of each block of each network the times of its layers, or a single one of the whole.
        seconds: of whole networks (n,).
        tuned: models of an earlier fit to much the same networks, by precision.
        batch: images in the calls that were measured.
        estimate: as of `fit_block_table`.

    Raises:
        ValueError: nothing was measured, numbers that do not fit, or a time that is not positive.
    """
    measured = [
        [
            replace(time, seconds=float(np.sum(t)), layers_s=tuple(map(float, t)))
            for time, t in zip(_sited(network, True), times, strict=True)
        ]
        for network, times in zip(networks, layer_seconds, strict=True)
    ]
    fitted = functools.partial(fit_block_table, sited=True, batch=batch, estimate=estimate)
    table = fitted([time for row in measured for time in row], tuned=tuned)
    fold = _folds(networks, folds)
    if fold.max() == 0:  # nothing to leave out
        return table.corrected(networks, seconds)
    terms = np.empty((len(networks), len(_PRIOR.mean)))
    for k in range(fold.max() + 1):
        seen = [time for row, f in zip(measured, fold, strict=True) if f != k for time in row]
        # A precision that is in no other fold has its model from all of them.
        partial = fitted(seen, tuned=table.models)
        partial = replace(partial, models={**table.models, **partial.models})
        terms[fold == k] = partial.summarise([network for network, f in zip(networks, fold, strict=True) if f == k])
    return table.corrected_on(terms, seconds)


def _folds(networks: Sequence[Sequence[Placed]], folds: int) -> np.ndarray:
    """The fold of each network (n,): networks of the same blocks, in whatever precision, share one."""
    architectures: dict[tuple[str, ...], int] = {}
    for network in networks:
        architectures.setdefault(tuple(block.structure for block, _ in network), len(architectures))
    n = len(architectures)
    return np.array(
        [architectures[tuple(b.structure for b, _ in network)] * min(folds, n) // n for network in networks]
    )


def _sited(network: Sequence[Placed], sited: bool) -> Sequence[BlockTime]:
    """The blocks of a network in their places, still without times; the network begins and ends in fp32."""
    precisions = ["fp32", *(p for _, p in network), "fp32"]
    return [
        BlockTime(block, p, math.nan, sited and p != precisions[i], sited and p != precisions[i + 2])
        for i, (block, p) in enumerate(network)
    ]


def _kinds(terms: np.ndarray) -> np.ndarray:
    """0 for networks all in fp32, 1 for those in int8 but for a tenth of the blocks, which may lack weights, else 2."""
    fp32, int8 = terms[:, 2], terms[:, 4]
    return np.where(int8 == 0, 0, np.where(fp32 <= 0.1 * int8, 1, 2))


def _deviations(left_out: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The relative deviation of each kind of network (3,), from residuals (n,) of networks that were left out.

    The conformal quantile (Vovk et al., "Algorithmic Learning in a Random World", 2005) of all residuals, each in units
    of what is usual of its kind: of a kind alone there are often too few to know a quantile of.
    """
    usual = np.median(np.abs(left_out))
    scales = np.array([_usual(left_out[kinds == kind], usual) for kind in range(3)])
    ordered = np.sort(np.abs(left_out) / scales[kinds])
    rank = math.ceil(_NOMINAL * (len(ordered) + 1)) - 1
    return scales * float(ordered[min(rank, len(ordered) - 1)]) / _DEVIATIONS


def _usual(residuals: np.ndarray, of_all: float) -> float:
    """The usual size of residuals (n,), a few of which say little: they are held near that of all kinds."""
    own = np.median(np.abs(residuals)) if len(residuals) else of_all
    few = 6  # that say as much as all the others
    return max((len(residuals) * float(own) + few * of_all) / (len(residuals) + few), _LEAST_DEVIATION)


def _terms(network: Sequence[BlockTime], times: Mapping[Key, float], batch: int) -> list[float]:
    """(1, Σt and blocks in fp32, Σt and blocks in int8, boundaries, boundary elements)."""
    sums = dict.fromkeys(_PRECISIONS, 0.0)
    blocks = dict.fromkeys(_PRECISIONS, 0)
    boundaries, elements, before = 0, 0, "fp32"
    for placed in network:
        sums[placed.precision] += times[placed.key]
        blocks[placed.precision] += 1
        if placed.precision != before:
            boundaries += 1
            elements += batch * placed.block.counts.input_elements
        before = placed.precision
    boundaries += before != "fp32"  # the logits leave in fp32
    return [1.0, sums["fp32"], blocks["fp32"], sums["int8"], blocks["int8"], boundaries, elements]
