"""Verification: the numbers of the final front, all taken on its files.

Validation accuracy decides what stays on the front; test accuracy is only reported.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from latency.contention import Contention
from latency.device import Device
from latency.harness import CAREFUL, QUICK, measure_models
from latency.measurement import Measurement
from latency.runtimes.opening import int8_share, open_session
from latency.runtimes.session import accuracy
from latency.store import MeasurementStore
from nas.baseline import Baseline, measure_both
from nas.candidate import Builds, Candidate, Tuned
from nas.executed import OF_GRAPH, Executed
from nas.measuring import count_rounds
from nas.objectives import Evaluation, Problem, cost_array
from nas.pareto import front, non_dominated
from nas.progress import Stage
from nas.twins import DENSE, twins_of, unpaid, with_twins
from search_spaces.space import Architecture
from supernet.data import Dataset


class RealEvaluator:
    """Measures architectures for the search: each is built as a file, and the file is measured.

    Args:
        executed: finds the metrics that the problem needs besides.
    """

    def __init__(
        self, builder: Builds, dataset: Dataset, device: Device, store: MeasurementStore, executed: Executed
    ) -> None:
        self._builder, self._dataset, self._device, self._store = builder, dataset, device, store
        self._executed = executed

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Validation accuracy, latency, size, MACs and parameters of the file of `arch`, and what it executes.

        Raises:
            ValueError: it cannot be exported or loaded.
        """
        candidate = self._builder.build(arch)
        session = open_session(candidate.model, self._device)
        measured = measure_models([candidate.model], self._device, QUICK, self._store)[0]
        return {
            "val_accuracy": accuracy(session, self._dataset.x_val, self._dataset.y_val),
            "latency_s": measured.median_s,
            "size_bytes": float(len(candidate.model)),
            "macs": float(candidate.macs),
            "parameters": float(candidate.parameters),
            **self._executed.of(candidate.model),
        }


@dataclass(frozen=True)
class Point:
    """One point of the front: a file and what was measured on it.

    Args:
        accuracy: on the test split; NaN of what is not on the front.
        latency_s, ci95_s: the median over undisturbed samples, and its 95 % interval.
        undisturbed: the share of samples that were.
        quiet_rounds: sessions in which the core was left to the file; with few, the latency may be too high.
        int8_share: of convolutions and matrix products, after the run-time's own optimisation.
        executed: metrics of `nas.executed`, by name: memory and traffic, and others where they count.
        found_by: the search or a baseline.
        contention: who else used the machine meanwhile.
        batch: images in the call that the latency is of.
        twins: the latencies of what it was measured beside (`nas.twins`), of all that keep to the bounds.
        baseline: what its very file takes on the baseline of the device, where there is one.
    """

    candidate: Candidate
    accuracy: float
    val_accuracy: float
    latency_s: float
    ci95_s: tuple[float, float]
    undisturbed: float
    quiet_rounds: int
    int8_share: float
    executed: Mapping[str, float]
    found_by: str
    contention: Contention | None = None
    batch: int = 1
    twins: Mapping[str, float] = field(default_factory=dict)
    baseline: Baseline | None = None

    @property
    def no_gain(self) -> bool:
        """Whether the device is not 3 % faster than its baseline on the file."""
        return self.baseline is not None and not self.baseline.beaten_by(self.latency_s)

    @property
    def unpaid(self) -> str | None:
        """The twin than which it has fewer channels or bits without being 3 % faster; None where it pays."""
        return unpaid(self.latency_s, self.twins, self.candidate.policy.values())

    def plain(self, file: str) -> dict[str, Any]:
        """As it stands in `front.json`."""
        return {
            "file": file,
            "arch": {k: v for k, v in self.candidate.arch.values.items() if not k.endswith(".precision")},
            "policy": dict(self.candidate.policy),
            "accuracy": self.accuracy,
            "val_accuracy": self.val_accuracy,
            "latency_s": {
                "median": self.latency_s,
                "ci95": list(self.ci95_s),
                "undisturbed": self.undisturbed,
                "quiet_rounds": self.quiet_rounds,
                "contention": self.contention and self.contention.plain(),
            },
            **({"twins": {name: {"latency_s": s} for name, s in self.twins.items()}} if self.twins else {}),
            **({"baseline": self.baseline.plain(self.latency_s)} if self.baseline else {}),
            "images_per_s": self.batch / self.latency_s,
            "size_bytes": len(self.candidate.model),
            "macs": self.candidate.macs,
            "parameters": self.candidate.parameters,
            **{name: int(value) if name.endswith("_bytes") else value for name, value in self.executed.items()},
            "int8_share": self.int8_share,
            **_training(self.candidate.tuned),
            "provenance": "verified",
            "found_by": self.found_by,
        }


def _training(tuned: Tuned | None) -> dict[str, Any]:
    """How the fine-tuning of a point went, where there was one; `weights` are those that its file has."""
    if tuned is None:
        return {}
    return {
        "weights": "finetuned" if tuned.kept else "inherited",
        "inherited_val_accuracy": tuned.inherited,
        "finetuned_val_accuracy": tuned.finetuned,
        **({"not_finetuned": tuned.why} if tuned.why else {}),
    }


@dataclass(frozen=True)
class Verified:
    """The front and what did not stay on it.

    Args:
        candidates: how many files were verified: the front of the search, reserves behind it, and their twins.
        dropped: architecture and reason of each that the search had on its front and verification took off.
        evaluations: of all candidates, with their careful measurements.
        contentions: who else used the machine while energy was measured.
        tuned: how fine-tuning went of each candidate, where there was one.
        factors: how many times as fast as on the baseline of the device, where there is one, each candidate is that
            keeps to the bounds.
    """

    points: tuple[Point, ...]
    candidates: int
    dropped: tuple[tuple[str, str], ...]
    evaluations: tuple[Evaluation, ...]
    contentions: tuple[Contention, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    factors: tuple[float, ...] = ()


def verify_front(
    finalists: Sequence[tuple[Evaluation, str]],
    builder: Builds,
    dataset: Dataset,
    device: Device,
    store: MeasurementStore,
    problem: Problem,
    stage: Stage,
) -> Verified:
    """Builds the files of the finalists and measures them carefully, all interleaved.

    A network with fewer channels or bits is measured beside its twins with more, which may take its place on the front:
    it must be 3 % faster, unless more than time counts.  On a device with a baseline each file is measured there too,
    interleaved with the others, and must be 3 % faster than that.

    Args:
        finalists: evaluations with what found each, the front first and reserves behind it.
    """
    expected = len(front([evaluation for evaluation, _ in finalists]))
    needed = {evaluation.arch: name for evaluation, name in finalists}
    found_by = with_twins(needed, problem)
    rounds = count_rounds(stage, 2 * len(found_by))
    candidates = built(found_by, needed, builder, stage)
    measured, baselines = measure_both([c.model for c in candidates], device, CAREFUL, store, rounds)
    executed = Executed((*OF_GRAPH, *problem.metrics), device, store, careful=True)
    points = []
    for candidate, measurement, baseline in zip(candidates, measured, baselines, strict=True):
        name = found_by[candidate.arch]
        point = _point(candidate, measurement, executed.of(candidate.model), name, dataset, device)
        points.append(replace(point, baseline=baseline))
        stage.advance()
    measured_again = [problem.evaluation(p.candidate.arch, _metrics(p), "verified") for p in points]
    points = beside_twins(points, measured_again, problem)
    kept, dropped = still_best(points, measured_again, expected)
    kept = [replace(p, accuracy=_test_accuracy(p, dataset, device)) for p in kept]
    stage.say(f"{len(kept)} points on the front, {len(dropped)} dropped")
    front_points = tuple(sorted(kept, key=lambda p: p.latency_s))
    return Verified(
        front_points,
        len(points),
        tuple(dropped),
        tuple(measured_again),
        tuple(executed.contentions),
        tuple(candidate.tuned for candidate in candidates if candidate.tuned is not None),
        tuple(
            p.baseline.factor(p.latency_s)
            for p, e in zip(points, measured_again, strict=True)
            if p.baseline and e.violation == 0
        ),
    )


def built(
    archs: Iterable[Architecture], needed: Container[Architecture], builder: Builds, stage: Stage
) -> list[Candidate]:
    """The files; of those that nobody `needed`, and that cannot be made, none.

    Raises:
        ValueError: one that is needed cannot be made.
    """
    found, failed = [], 0
    for arch in archs:
        try:
            found.append(builder.build(arch))
        except ValueError as error:
            if arch in needed:
                raise
            failed += 1
            stage.say(f"{failed} twin{'s' if failed > 1 else ''} could not be built: {error}")
        stage.advance()
    return found


def beside_twins(points: Sequence[Point], evaluations: Sequence[Evaluation], problem: Problem) -> list[Point]:
    """The points with the latencies of their twins, of those that could be built and keep to the bounds."""
    allowed = {p.candidate.arch: p.latency_s for p, e in zip(points, evaluations, strict=True) if e.violation == 0}
    twins = [twins_of(p.candidate.arch, problem) for p in points]
    return [
        replace(p, twins={name: allowed[twin] for name, twin in its.items() if twin in allowed})
        for p, its in zip(points, twins, strict=True)
    ]


def _point(
    candidate: Candidate,
    measurement: Measurement,
    executed: Mapping[str, float],
    found_by: str,
    dataset: Dataset,
    device: Device,
) -> Point:
    session = open_session(candidate.model, device)
    return Point(
        candidate=candidate,
        accuracy=float("nan"),
        val_accuracy=accuracy(session, dataset.x_val, dataset.y_val),
        latency_s=measurement.median_s,
        ci95_s=measurement.ci95_s,
        undisturbed=measurement.undisturbed_share,
        quiet_rounds=measurement.quiet_rounds,
        int8_share=int8_share(candidate.model, device),
        executed=executed,
        found_by=found_by,
        contention=measurement.contention,
        batch=device.batch,
    )


def _test_accuracy(point: Point, dataset: Dataset, device: Device) -> float:
    return accuracy(open_session(point.candidate.model, device), dataset.x_test, dataset.y_test)


def still_best(
    points: Sequence[Point], evaluations: Sequence[Evaluation], expected: int
) -> tuple[list[Point], list[tuple[str, str]]]:
    """The points that keep to the bounds and that no other one dominates, and why others of the first `expected` go."""
    pays = [p.unpaid is None and not p.no_gain for p in points]
    allowed = [i for i, e in enumerate(evaluations) if e.violation == 0 and pays[i]]
    best = non_dominated(cost_array([evaluations[i] for i in allowed]))
    kept = [i for i, on in zip(allowed, best, strict=True) if on]
    dropped = [
        (str(points[i].candidate.arch), _reason(points[i], i in allowed)) for i in range(expected) if i not in kept
    ]
    return [points[i] for i in kept], dropped


def _reason(point: Point, allowed: bool) -> str:
    """Why a point is not on the front."""
    if allowed:
        return "dominated after re-measuring"
    if point.no_gain and point.baseline is not None:
        factor = point.baseline.factor(point.latency_s)
        return f"not 3 % faster than on {point.baseline.device}: {factor:.2f} times as fast"
    if point.unpaid is None:
        return "over a bound"
    twin = "with all its channels" if point.unpaid == DENSE else f"in {point.unpaid} throughout"
    return f"not 3 % faster than {twin}"


def _metrics(point: Point) -> Mapping[str, float]:
    return {
        "val_accuracy": point.val_accuracy,
        "latency_s": point.latency_s,
        "size_bytes": float(len(point.candidate.model)),
        "macs": float(point.candidate.macs),
        "parameters": float(point.candidate.parameters),
        **point.executed,
    }


def missed(predictions: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """By how much predictions missed: medians of the relative error of latency and the absolute one of accuracy.

    Each is left out where nobody predicted it.
    """
    seconds = [p["latency_s"] for p in predictions if "latency_s" in p]
    shares = [p["val_accuracy"] for p in predictions if "val_accuracy" in p]
    found = {
        "latency_miss": [abs(p["verified"] / p["predicted"] - 1) for p in seconds],
        "accuracy_miss": [abs(p["verified"] - p["predicted"]) for p in shares],
    }
    return {name: float(np.median(misses)) for name, misses in found.items() if misses}
