"""Predicted metrics of any architecture of the joint space: what the inner search looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit, logit

from nas.anatomy import Anatomy
from nas.device_profile import Profile
from nas.objectives import Evaluation
from predictors.block_table import BlockTable
from predictors.held import LinearPrior, fit_held
from predictors.quantized import AroundDrop, fit_around_drop
from search_spaces.space import INDEX

_FLOOR = 0.002  # by which error rates are kept from 0 and 1: perfect on some hundred images is not zero error
# A file holds a graph of some hundred bytes a layer, and parameters whose scales and zero points int8 adds.
_SIZE_PRIOR = LinearPrior(
    mean=np.array([2e3, 500.0, 1.0, 1.2]),
    width=np.array([2e3, 500.0, 0.05, 0.3]),
    free=np.array([True, False, False, False]),
)

_PICO = 1e-12
_EXECUTED_PRIORS = {
    # Fused activations are written once where the counts have them twice; in the block with most, a part is alive at
    # once.
    "memory_bytes": LinearPrior(np.array([0.0, 0.5]), np.array([2e4, 0.5]), np.array([True, False])),
    "traffic_bytes": LinearPrior(
        np.array([0.0, 1.5, 2.0, 3.0]), np.array([2e4, 1.0, 1.0, 2.0]), np.array([True, False, False, False])
    ),
    # Watts, joules a MAC in fp32 and in int8, and joules a byte: the energy roofline of Choi et al., "A roofline model
    # of energy" (IPDPS 2013).
    "energy_joules": LinearPrior(
        np.array([50.0, 0.0, 0.0, 0.0]), np.array([200.0, 50 * _PICO, 20 * _PICO, 500 * _PICO]), np.zeros(4, dtype=bool)
    ),
    # A share of the latency; seconds a call, a layer, a MAC in fp32 and in int8, and a byte.
    "roofline_s": LinearPrior(
        np.zeros(6), np.array([1.0, 1e-5, 1e-5, 100 * _PICO, 100 * _PICO, 1000 * _PICO]), np.zeros(6, dtype=bool)
    ),
}


class Predicts(Protocol):
    """Predicts all metrics of populations."""

    def predict(self, population: np.ndarray, optimism: float = 0.0) -> Mapping[str, np.ndarray]:
        """Metric name to values (n,) for a population (n, d)."""
        ...


class PredictsHardware(Protocol):
    """Predicts what populations cost on a device."""

    def predict(self, population: np.ndarray) -> Mapping[str, np.ndarray]:
        """Metric name to values (n,), of all metrics but accuracy, for a population (n, d)."""
        ...


@dataclass(frozen=True, eq=False)
class Inherited:
    """Accuracies (n,) of subnets (n, d) with the supernet's weights, in the most bits, before any export."""

    population: np.ndarray
    val_accuracy: np.ndarray


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """A Gaussian process over choices, MACs and parameters around the drop by precisions, on the error rate's logit.

    Damages of blocks add up there, and it has a ceiling: on the logarithm, a few quantized networks teach error rates
    far above one (`experiments/quantized_accuracy`).
    """

    anatomy: Anatomy
    process: AroundDrop

    def predict(self, population: np.ndarray, optimism: float = 0.0) -> np.ndarray:
        """The accuracy of each row of a population (n, d): the median of the prediction.

        Args:
            optimism: deviations by which the error rate is taken to be lower, noise left out, so that a search
                looks where little is known (upper confidence bound, Srinivas et al., arXiv:0912.3995).
        """
        found = self.process.predict_off(population, -optimism, self.anatomy.cost_logs(population))
        return accuracies_of(found)


def logits_of(accuracy: np.ndarray) -> np.ndarray:
    """Logits (n,) of error rates, from accuracies (n,)."""
    found: np.ndarray = logit((1 - np.asarray(accuracy) + _FLOOR) / (1 + 2 * _FLOOR))
    return found


def accuracies_of(logits: np.ndarray) -> np.ndarray:
    """Accuracies (n,) from logits of error rates (n,): the way back of `logits_of`."""
    found: np.ndarray = 1 + _FLOOR - (1 + 2 * _FLOOR) * expit(logits)
    return found


def fit_accuracy(anatomy: Anatomy, population: np.ndarray, accuracy: np.ndarray) -> AccuracyPredictor:
    """Fits the accuracies (n,) of a population (n, d), over its choices and the logarithms of MACs and parameters.

    Rows in the most bits tell what the others would reach without their policy: from many inherited accuracies and few
    of quantized files, as in APQ (Wang et al., arXiv:2006.08509, section 3.2), but without a network to train on.

    Raises:
        ValueError: fewer than two, or not as many accuracies.
    """
    targets, costs = logits_of(accuracy), anatomy.cost_logs(population)
    process = fit_around_drop(anatomy.space, anatomy.policy_columns, population, targets, costs)
    return AccuracyPredictor(anatomy, process)


@dataclass(frozen=True, eq=False)
class HardwarePredictor:
    """Predicts what architectures cost on the device."""

    anatomy: Anatomy
    table: BlockTable
    size: np.ndarray
    executed: Mapping[str, np.ndarray]

    def predict(self, population: np.ndarray) -> Mapping[str, np.ndarray]:
        """Latency, size, MACs, parameters and what was fitted besides (n,) by metric name, for a population (n, d)."""
        counts = self.anatomy.counts(population)
        seconds = self.table.predict(self.anatomy.placed_rows(population)).mean
        return {
            "latency_s": seconds,
            "size_bytes": _size_terms(self.anatomy, population) @ self.size,
            "macs": counts[:, 0],
            "parameters": counts[:, 1],
            **{
                n: _executed_terms(self.anatomy, population, n, seconds, self.table.batch) @ c
                for n, c in self.executed.items()
            },
        }


def fit_hardware(anatomy: Anatomy, profile: Profile, evaluations: Sequence[Evaluation] = ()) -> HardwarePredictor:
    """Fits latency, size and what is executed on the networks of the profile and on real evaluations."""
    rows = _rows(anatomy, evaluations)
    seconds, sizes = _seen(evaluations, "latency_s"), _seen(evaluations, "size_bytes")
    population = np.concatenate([profile.population, rows])
    terms = _size_terms(anatomy, population)
    table = profile.table.corrected(anatomy.placed_rows(rows), seconds)
    predicted = table.predict(anatomy.placed_rows(population)).mean if profile.executed else np.empty(0)
    return HardwarePredictor(
        anatomy=anatomy,
        table=table,
        size=fit_held(terms, np.concatenate([profile.size_bytes, sizes]), _SIZE_PRIOR).coefficients,
        executed={
            name: fit_held(
                _executed_terms(anatomy, population, name, predicted, table.batch),
                np.concatenate([values, _seen(evaluations, name)]),
                _EXECUTED_PRIORS[name],
            ).coefficients
            for name, values in profile.executed.items()
        },
    )


@dataclass(frozen=True, eq=False)
class MetricPredictor:
    """Predicts all metrics of populations."""

    accuracy: AccuracyPredictor
    hardware: PredictsHardware

    def predict(self, population: np.ndarray, optimism: float = 0.0) -> Mapping[str, np.ndarray]:
        """Metric name to values (n,) for a population (n, d); `optimism` as of the accuracy."""
        return {**self.hardware.predict(population), "val_accuracy": self.accuracy.predict(population, optimism)}


def fit_metrics(
    anatomy: Anatomy, profile: Profile, inherited: Inherited, evaluations: Sequence[Evaluation]
) -> MetricPredictor:
    """Fits everything; inherited accuracies count as observations of the all-fp32 policy."""
    return MetricPredictor(
        fit_accuracy_seen(anatomy, inherited, evaluations), fit_hardware(anatomy, profile, evaluations)
    )


def fit_accuracy_seen(anatomy: Anatomy, inherited: Inherited, evaluations: Sequence[Evaluation]) -> AccuracyPredictor:
    """Fits inherited accuracies and those of evaluations."""
    population = np.concatenate([inherited.population, _rows(anatomy, evaluations)])
    return fit_accuracy(
        anatomy, population, np.concatenate([inherited.val_accuracy, _seen(evaluations, "val_accuracy")])
    )


def _rows(anatomy: Anatomy, evaluations: Sequence[Evaluation]) -> np.ndarray:
    return np.array([e.arch.indices for e in evaluations], dtype=INDEX).reshape(-1, len(anatomy.space))


def _seen(evaluations: Sequence[Evaluation], metric: str) -> np.ndarray:
    return np.array([e.values[metric] for e in evaluations])


def _size_terms(anatomy: Anatomy, population: np.ndarray) -> np.ndarray:
    """(1, layers, fp32 bytes, int8 bytes) of each row (n, 4)."""
    counts = anatomy.counts(population)
    return np.column_stack([np.ones(len(counts)), counts[:, 4], counts[:, 2:4]])


def _executed_terms(
    anatomy: Anatomy, population: np.ndarray, metric: str, seconds: np.ndarray, batch: int
) -> np.ndarray:
    """What a metric of `nas.executed` is a sum of, for each row (n, k): see `_EXECUTED_PRIORS`.

    Args:
        seconds: predicted latencies (n,) of calls of `batch` images.
    """
    ones, counts = np.ones(len(population)), anatomy.counts(population)
    bytes_ = batch * anatomy.activations(population)
    if metric == "memory_bytes":
        return np.column_stack([ones, bytes_[:, 3:]])
    if metric == "traffic_bytes":
        return np.column_stack([ones, bytes_[:, :3]])
    macs, moved = batch * anatomy.kinds_of_macs(population), bytes_[:, :3].sum(axis=1) + counts[:, 2:4].sum(axis=1)
    if metric == "energy_joules":
        return np.column_stack([seconds, macs, moved])
    return np.column_stack([seconds, ones, counts[:, 4], macs, moved])
