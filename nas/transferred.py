"""Metrics on a device that a run was not searched on: its latency model carried over by few timings.

Log latency on the new device is a Gaussian process over what the run's model says of the old one, over counts of what
devices may be bound by, and over the choices (`predictors/transfer.py`).  Accuracy, size and MACs are the run's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.anatomy import Anatomy
from nas.known import Known
from nas.predict import AccuracyPredictor, fit_accuracy
from predictors.ranking import Agreement, agreement
from predictors.transfer import TransferPredictor, choose_samples, fit_transfer
from predictors.transfer_prior import TransferPrior, learn_from_sources
from quant_search.policy import SUFFIX
from search_spaces.space import INDEX

_POPULATION = 600  # random architectures that the prior is learnt on and samples are chosen from
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Transfer:
    """Carries a run's latency model to a new device.

    Args:
        anatomy: of the space that is searched on the new device: the run's, or its architectures alone.
        population: rows (n, d) of it that stand for the space: in one precision or mixed, at random.
    """

    known: Known
    anatomy: Anatomy
    prior: TransferPrior
    population: np.ndarray

    def source_s(self, population: np.ndarray) -> np.ndarray:
        """Seconds (n,) on the run's own device, by its model."""
        seconds: np.ndarray = self.known.hardware.predict(self.known.lifted(population))["latency_s"]
        return seconds

    def chosen(self, count: int, seed: int) -> np.ndarray:
        """The rows (count, d) to time: the corners and the middle in the most bits, then the most telling ones."""
        first = self.landmarks()[:count]
        rows = self.population[choose_samples(self.prior, self.population, min(count, len(self.population)), seed)]
        unique = list(dict.fromkeys(map(tuple, np.concatenate([first, rows]).tolist())))
        return np.array(unique[:count], dtype=INDEX)

    def landmarks(self) -> np.ndarray:
        """The smallest, middle and largest network in the most bits (3, d)."""
        space = self.known.architectures
        rows = np.array([a.indices for a in (space.smallest(), space.scaled(0.5), space.largest())], dtype=INDEX)
        return self.anatomy.in_most_bits(rows) if len(self.anatomy.space) > len(space) else rows

    def scores(self, population: np.ndarray, seconds: np.ndarray) -> dict[str, Agreement]:
        """How well timed networks (k, d) are predicted that the fit has not seen, by cross-validation.

        Beside it, what the old device's model and MACs say, each scaled to the networks that were seen.
        """
        fold = np.random.default_rng(0).permutation(len(seconds)) % min(_FOLDS, len(seconds))
        plain = {"source": self.source_s(population), "macs_only": self.anatomy.counts(population)[:, 0]}
        predicted = {name: np.empty(len(seconds)) for name in ("held_out", *plain)}
        for k in range(fold.max() + 1):
            held, seen = fold == k, fold != k
            fitted = fit_transfer(self.prior, population[seen], seconds[seen])
            predicted["held_out"][held] = fitted.predict(population[held]).mean
            for name, x in plain.items():
                predicted[name][held] = x[held] * np.exp(np.median(np.log(seconds[seen] / x[seen])))
        return {name: agreement(values, seconds) for name, values in predicted.items()}


def prepare_transfer(known: Known, anatomy: Anatomy, seed: int) -> Transfer:
    """What the run's device tells of any other one, before anything is timed there."""
    rows = np.unique(mixed_population(anatomy, _POPULATION, seed), axis=0)

    def sources(population: np.ndarray) -> np.ndarray:
        seconds = known.hardware.predict(known.lifted(population))["latency_s"]
        counts = anatomy.counts(population)
        return np.column_stack([seconds, counts[:, 0] + 1, counts[:, 4] + 1])

    return Transfer(known, anatomy, learn_from_sources(anatomy.features, sources, rows), rows)


def mixed_population(anatomy: Anatomy, n: int, seed: int) -> np.ndarray:
    """n random rows (n, d): in mixed precisions, and as many in each single one."""
    space = anatomy.space
    rows = space.sample(n, np.random.default_rng(seed))
    of_policy = np.array([choice.name.endswith(SUFFIX) for choice in space.choices])
    options = int(space.cardinalities[of_policy].max(initial=0))
    for index in range(options):
        part = np.flatnonzero(np.arange(n) % (options + 1) == index)
        rows[np.ix_(part, np.flatnonzero(of_policy))] = index
    return space.canonical(rows)


@dataclass(frozen=True, eq=False)
class TransferredMetrics:
    """Predicts all metrics of rows (n, d) of the space that is searched."""

    known: Known
    accuracy: AccuracyPredictor
    latency: TransferPredictor

    def predict(self, population: np.ndarray, optimism: float = 0.0) -> Mapping[str, np.ndarray]:
        """Metric name to values (n,); `optimism` as of the accuracy."""
        return {
            **self.known.hardware.predict(self.known.lifted(population)),
            "val_accuracy": self.accuracy.predict(population, optimism),
            "latency_s": self.latency.predict(population).mean,
        }


def fit_transferred(
    transfer: Transfer,
    timed: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
    metrics: Sequence[Mapping[str, float]],
) -> TransferredMetrics:
    """Fits everything known.

    Args:
        timed: neutral networks (k, d) with their seconds (k,) on the new device.
        rows: of evaluations (n, d) on the new device, which have these metrics.
    """
    known, space = transfer.known, transfer.anatomy.space
    inherited, told = known.inherited_in(space), known.seen_in(space)
    before = np.array([arch.indices for arch, _ in told], dtype=INDEX).reshape(-1, len(space))
    population = [inherited.population, before, rows]
    accuracies = [
        inherited.val_accuracy,
        np.array([e.values["val_accuracy"] for _, e in told]),
        np.array([m["val_accuracy"] for m in metrics]),
    ]
    seconds = np.concatenate([timed[1], [m["latency_s"] for m in metrics]])
    return TransferredMetrics(
        known=known,
        accuracy=fit_accuracy(transfer.anatomy, np.concatenate(population), np.concatenate(accuracies)),
        latency=fit_transfer(transfer.prior, np.concatenate([timed[0], rows]), seconds),
    )


@dataclass(frozen=True)
class Carried:
    """A latency model that was carried over, as the record of a run shows it.

    Args:
        scores: of `held_out`, `source` and `macs_only`.
    """

    networks: int
    scores: Mapping[str, Agreement]

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of a run."""
        return {"networks": self.networks, **{name: score.plain() for name, score in self.scores.items()}}
