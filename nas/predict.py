"""Predicted metrics of any architecture of the joint space: what the inner search looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency.blocks import BlockTracer
from nas.objectives import Evaluation, Problem
from nas.profiling import place
from nas.searchers.protocol import CostModel
from predictors.block_table import BlockTable
from predictors.gp import GaussianProcess, fit_gaussian_process
from search_spaces.encoding import one_hot
from search_spaces.space import Architecture, SearchSpace

_FLOOR = 0.002  # added to an error rate before its logarithm: perfect on some hundred images is not zero error


@dataclass(frozen=True)
class Inherited:
    """Accuracies of subnets with the supernet's weights, in fp32, before any export."""

    population: np.ndarray
    val_accuracy: np.ndarray


class MetricModel:
    """Predicts accuracy, latency, size and MACs; refitted whenever real evaluations come in.

    Accuracy is a Gaussian process on the logarithm of the error rate, over one-hot choices and the logarithms
    of MACs and parameters; inherited accuracies count as observations of the all-fp32 policy.
    """

    def __init__(
        self,
        space: SearchSpace,
        tracer: BlockTracer,
        precisions: Sequence[str],
        table: BlockTable,
        inherited: Inherited,
        problem: Problem,
    ) -> None:
        self._space, self._tracer, self._precisions = space, tracer, tuple(precisions)
        self._table, self._inherited, self._problem = table, inherited, problem
        self._rows: dict[bytes, np.ndarray] = {}

    def fit(self, evaluations: Sequence[Evaluation]) -> CostModel:
        """A cost model fitted on these real evaluations, the inherited accuracies and the device profile."""
        predict = self.metrics_model(evaluations)
        return lambda population: self.costs(predict(population))

    def costs(self, metrics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Costs (n, 2) and violations (n,) of predicted metrics."""
        return self._problem.costs(metrics)

    def metrics_model(self, evaluations: Sequence[Evaluation]) -> MetricPredictor:
        """The fitted predictor of all metrics."""
        measured = [e.arch for e in evaluations]
        rows = np.array([a.indices for a in measured], dtype=self._inherited.population.dtype)
        population = np.concatenate([self._inherited.population, rows.reshape(len(rows), len(self._space))])
        accuracy = np.concatenate([self._inherited.val_accuracy, [e.metrics["val_accuracy"] for e in evaluations]])
        process = fit_gaussian_process(self.features, population, np.log(1 - accuracy + _FLOOR))
        placed = [place(self._tracer, a, self._precisions) for a in measured]
        table = self._table
        if placed:
            table = table.corrected(placed, np.array([e.metrics["latency_s"] for e in evaluations]))
        sizes = self._statistics(rows)[:, 2:] if len(rows) else np.zeros((0, 2))
        size_fit = _fit_sizes(sizes, np.array([e.metrics["size_bytes"] for e in evaluations]))
        return MetricPredictor(self, process, table, size_fit)

    def features(self, population: np.ndarray) -> np.ndarray:
        """One-hot choices beside the standardised logarithms of MACs and parameters (n, f)."""
        logs = np.log(self._statistics(population)[:, :2] + 1)
        # A cost says as much as all options of a few choices together.
        return np.column_stack([one_hot(self._space, population), np.repeat(logs, 4, axis=1)])

    def _statistics(self, population: np.ndarray) -> np.ndarray:
        """MACs, parameters, bytes of fp32 and of int8 parameters (n, 4), each architecture counted once."""
        result = np.empty((len(population), 4))
        for i, row in enumerate(population):
            key = row.tobytes()
            if key not in self._rows:
                self._rows[key] = self._count(Architecture(self._space, tuple(row.tolist())))
            result[i] = self._rows[key]
        return result

    def _count(self, arch: Architecture) -> np.ndarray:
        macs, fp32, int8 = 0, 0, 0
        for block, precision in place(self._tracer, arch, self._precisions):
            macs += block.counts.macs
            fp32 += 4 * block.counts.parameters if precision == "fp32" else 0
            int8 += block.counts.parameters if precision == "int8" else 0
        return np.array([macs, fp32 / 4 + int8, fp32, int8], dtype=float)


@dataclass(frozen=True)
class MetricPredictor:
    """Predicts the metrics of populations."""

    model: MetricModel
    process: GaussianProcess
    table: BlockTable
    size_fit: np.ndarray

    def __call__(self, population: np.ndarray) -> Mapping[str, np.ndarray]:
        """Metric name to values (n,) for a population (n, d)."""
        model = self.model
        archs = [Architecture(model._space, tuple(row)) for row in population.tolist()]
        placed = [place(model._tracer, arch, model._precisions) for arch in archs]
        statistics = model._statistics(population)
        return {
            "val_accuracy": 1 + _FLOOR - np.exp(self.process.predict(population).mean),
            "latency_s": self.table.predict(placed).mean,
            "size_bytes": np.column_stack([np.ones(len(archs)), statistics[:, 2:]]) @ self.size_fit,
            "macs": statistics[:, 0],
        }


def _fit_sizes(parts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """File size from (1, fp32 bytes, int8 bytes): held near the plain sum plus 10 kB of graph."""
    prior = np.array([1e4, 1.0, 1.2])
    if not len(parts):
        return prior
    rows = np.column_stack([np.ones(len(parts)), parts])
    residual = sizes - rows @ prior
    weight = np.diag([1e-8, 10.0, 10.0]) * float(np.mean(parts.sum(axis=1) ** 2) * 1e-3 + 1)
    return prior + np.linalg.solve(rows.T @ rows + weight, rows.T @ residual)
