"""A search for a device that is not attached: its latencies are predictions of a profile taken there.

profile of the device ─────────────┐
space → supernet → inherited ──────┴→ search → files → report

Nothing is timed here.  Accuracy is that of the exported files, by ONNX Runtime on this machine's CPU.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from latency.store import MeasurementStore
from nas.anatomy import Anatomy
from nas.candidate import Builds, Candidate
from nas.config import Settings
from nas.describe import describe_costs
from nas.device_profile import Profile, fit_profile
from nas.errors import CannotBeDone
from nas.finetune import finetuned
from nas.folder import JOURNAL, PROFILE, RECORD, open_folder, read_record
from nas.journal import Journal
from nas.names import check_names
from nas.objectives import Evaluation, Problem
from nas.pareto import front
from nas.paying import refuse_zeros
from nas.pipeline import (
    Watched,
    alone_in,
    builder_of,
    check_disk,
    inherit,
    keep_record,
    pace_of,
    pick_finalists,
    profiled_space,
    search_with,
    timed,
    train,
    unmet,
)
from nas.predict import Inherited, MetricPredictor, fit_accuracy_seen, fit_hardware
from nas.profile_data import ProfileData, ProfiledSpace, read_profile
from nas.progress import Reporter
from nas.record import Parts, Setup, make_record
from nas.relaxed import check_relaxed, find, is_relaxed, search_found
from nas.spec import SpaceLike, network_for, space_fingerprint
from nas.verify import Point, Verified, still_best
from quant_search.policy import joint_space
from search_spaces.network import find_blocks
from search_spaces.space import Architecture
from supernet.atomic import write_bytes
from supernet.data import Dataset
from supernet.pace import using_threads

_HERE = "cpu"  # where files are run for their accuracy


def with_profile(settings: Settings, file: Path) -> Settings:
    """The settings of a search for the device whose profile is in `file`.

    Raises:
        ValueError: no profile, or settings that name another device.
    """
    data = read_profile(file)
    if settings.device not in (Settings().device, data.device):
        raise ValueError(
            f"{file} is a profile of {data.device!r}, got device {settings.device!r}: leave the device out"
        )
    digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return settings.model_copy(
        update={"device": data.device, "profile": str(file.absolute()), "profile_fingerprint": digest}
    )


def run_absent(
    settings: Settings,
    space: SpaceLike,
    dataset: Dataset,
    folder: Path,
    reporter: Reporter,
    on_space: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """As `nas.pipeline.run`, for settings `with_profile`; nothing is timed.

    Raises:
        ValueError: settings that cannot be met, or a profile of another space; nothing was written.
        CannotBeDone: no architecture keeps to the bounds.
        OSError: the folder cannot be written.
    """
    check_names(settings)
    refuse_zeros(settings.sparsity)
    file = Path(str(settings.profile))
    data = read_profile(file)
    network, architectures = network_for(settings, space, dataset)
    mark = space_fingerprint(space, network, architectures)
    settings = settings.model_copy(update={"space_fingerprint": mark})
    anatomy = Anatomy(
        joint_space(architectures, find_blocks(network), settings.precisions),
        BlockTracer(network, dataset.image_shape),
        settings.precisions,
    )
    if is_relaxed(settings):
        check_relaxed(settings, network, architectures, dataset)
    check_disk(folder)
    with MeasurementStore(say=reporter.message) as store:
        setup = Setup(settings, dataset, network, architectures, anatomy, parse_device(_HERE), folder, store, reporter)
        _check_profile(file, data, profiled_space(setup))
        open_folder(folder, settings)
        if (folder / RECORD).exists():
            record = read_record(folder)
            on_space(record["space"])
            return record
        with alone_in(folder):
            write_bytes(folder / PROFILE, file.read_bytes())
            return _Absent(setup, data, fit_profile(data, anatomy)).run(on_space)


def _check_profile(file: Path, data: ProfileData, wanted: ProfiledSpace) -> None:
    """Refuses a profile of another space, naming the first thing that differs and the command that makes the right one.

    Raises:
        ValueError: it differs.
    """
    got = data.space
    pairs = {
        "images": (got.input_shape, wanted.input_shape),
        "classes": (got.num_classes, wanted.num_classes),
        "precisions": (got.precisions, wanted.precisions),
        "sparsity": (got.sparsity or ("dense",), wanted.sparsity or ("dense",)),
        "space": ((got.name, got.preset, got.fingerprint), (wanted.name, wanted.preset, wanted.fingerprint)),
    }
    if got.fingerprint == wanted.fingerprint:
        del pairs["space"]
    for what, (was, now) in pairs.items():
        if was != now:
            raise ValueError(
                f"{file} is a profile for {what} {_words(was)}, and the search has {_words(now)}: on the device, "
                f"`{profile_command(wanted, data.device)}` makes the right one"
            )


def _words(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, tuple) else str(values)


def profile_command(space: ProfiledSpace, device: str) -> str:
    """The command that profiles `device` for `space`."""
    channels, size, _ = space.input_shape
    preset = f" --preset {space.preset}" if space.preset else ""
    sparsity = f" --sparsity {','.join(space.sparsity)}" if space.sparsity else ""
    return (
        f"nas profile --space {space.name}{preset} --image-size {size} --channels {channels} "
        f"--classes {space.num_classes} --precision {','.join(space.precisions)}{sparsity} --device {device} --out FILE"
    )


@dataclass(frozen=True)
class PredictedPoint(Point):
    """A point whose accuracy was taken on its file, and whose latency is predicted; `ci95_s` is of the prediction."""

    def plain(self, file: str) -> dict[str, Any]:
        """As it stands in `front.json`."""
        entry = super().plain(file)
        del entry["int8_share"]  # the device's run-time decides
        return {
            **entry,
            "latency_s": {"median": self.latency_s, "ci95": list(self.ci95_s)},
            "provenance": {"accuracy": "verified", "latency": "predicted"},
        }


class PredictedEvaluator:
    """Measures accuracy and size of architectures on their files, and predicts latency."""

    def __init__(self, builder: Builds, dataset: Dataset, profile: Profile) -> None:
        self._builder, self._dataset, self._profile = builder, dataset, profile

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Validation accuracy, latency, size and MACs, and the deviation of the latency's prediction.

        Raises:
            ValueError: it cannot be exported or loaded.
        """
        candidate = self._builder.build(arch)
        predicted = self._profile.predict(arch)
        session = open_session(candidate.model, parse_device(_HERE))
        return {
            "val_accuracy": accuracy(session, self._dataset.x_val, self._dataset.y_val),
            "latency_s": float(predicted.mean[0]),
            "latency_std_s": float(predicted.std[0]),
            "size_bytes": float(len(candidate.model)),
            "macs": float(candidate.macs),
            "parameters": float(candidate.parameters),
        }

    def point(self, evaluation: Evaluation, found_by: str) -> PredictedPoint:
        """The file of an evaluation with its accuracies."""
        candidate: Candidate = self._builder.build(evaluation.arch)
        session = open_session(candidate.model, parse_device(_HERE))
        val_accuracy = evaluation.values["val_accuracy"]
        if candidate.tuned is not None:  # another file than the search had
            val_accuracy = accuracy(session, self._dataset.x_val, self._dataset.y_val)
        predicted = self._profile.predict(evaluation.arch)
        mean, half = float(predicted.mean[0]), float(predicted.half_width(0.95)[0])
        return PredictedPoint(
            candidate=candidate,
            accuracy=accuracy(session, self._dataset.x_test, self._dataset.y_test),
            val_accuracy=val_accuracy,
            latency_s=mean,
            ci95_s=(max(0.0, mean - half), mean + half),
            undisturbed=float("nan"),
            quiet_rounds=0,
            int8_share=float("nan"),
            executed={},
            batch=self._profile.data.batch,
            found_by=found_by,
        )


def _as_verified(evaluation: Evaluation, point: Point, problem: Problem) -> Evaluation:
    """The evaluation of a finalist with what its file has, which may have been trained on since."""
    found = {"val_accuracy": point.val_accuracy, "size_bytes": float(len(point.candidate.model))}
    return problem.evaluation(evaluation.arch, {**evaluation.values, **found}, evaluation.provenance)


@dataclass(frozen=True)
class _Absent:
    """One run for a device that is not attached."""

    setup: Setup
    data: ProfileData
    profile: Profile

    def run(self, on_space: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """All stages; the record."""
        s, started_s = self.setup, time.perf_counter()
        space = self._describe()
        on_space(space)
        evaluator = PredictedEvaluator(builder_of(s), s.dataset, self.profile)
        journal = Journal(s.folder / JOURNAL, "search", s.space, s.settings.problem, "predicted")
        search = self._search_relaxed if is_relaxed(s.settings) else self._search
        with using_threads(pace_of(s).threads), threadpool_limits(1, user_api="blas"):
            parts = search(space, evaluator, journal)
        seconds = {**parts.seconds, "all": time.perf_counter() - started_s}
        searched = replace(parts.searched, predictions=[])  # of latencies, against themselves
        record = make_record(s, replace(parts, searched=searched, seconds=seconds))
        return keep_record(s, record | {"device": self._device(), "predicted": self._origin()})

    def _search(self, space: dict[str, Any], evaluator: PredictedEvaluator, journal: Journal) -> Parts:
        """The stages of a search in a supernet."""
        s = self.setup
        history, training_s = timed(lambda: train(s))
        inherited = inherit(s, fit_hardware(s.anatomy, self.profile))
        watched = Watched(lambda told: self._fit(inherited, told), s.settings.problem)
        searched = search_with(s, self.profile, inherited, watched, evaluator, journal)
        verified = self._verify(searched.groups)
        seconds = {"profile": 0.0, "train": training_s}
        return Parts(space, self.profile, history, inherited, searched, verified, seconds)

    def _search_relaxed(self, space: dict[str, Any], evaluator: PredictedEvaluator, journal: Journal) -> Parts:
        """The stages of a search that is the training."""
        s = self.setup
        found = find(s, self.profile, lambda arch: float(self.profile.predict(arch).mean[0]))
        searched = search_found(s, self.profile, found, evaluator, journal)
        verified = self._verify(searched.groups)
        seconds = {"profile": 0.0, "train": found.history.final.seconds}
        return Parts(space, self.profile, found.history, None, searched, verified, seconds, found.plain())

    def _describe(self) -> dict[str, Any]:
        s = self.setup

        def seconds(arch: Architecture, _: bytes) -> float:
            return float(self.profile.predict(arch, "fp32" if "fp32" in s.settings.precisions else None).mean[0])

        with s.reporter.stage("space") as stage:
            return describe_costs(s.network, s.architectures, s.space, s.dataset.image_shape, stage, seconds)

    def _fit(self, inherited: Inherited, told: Sequence[Evaluation]) -> MetricPredictor:
        """Accuracy learns from evaluations; latency does not, since theirs are its own predictions."""
        accuracy_of = fit_accuracy_seen(self.setup.anatomy, inherited, told)
        return MetricPredictor(accuracy_of, fit_hardware(self.setup.anatomy, self.profile))

    def _verify(self, groups: dict[str, list[Evaluation]]) -> Verified:
        """The files of the best, with their accuracies."""
        s = self.setup
        finalists = pick_finalists(s, groups)
        evaluator = PredictedEvaluator(
            finetuned(s, builder_of(s), [e.arch for e, _ in finalists]), s.dataset, self.profile
        )
        with s.reporter.stage("verify", len(finalists)) as stage:
            points = []
            for evaluation, found_by in finalists:
                points.append(evaluator.point(evaluation, found_by))
                stage.advance()
        expected = len(front([evaluation for evaluation, _ in finalists]))
        evaluations = [_as_verified(e, p, s.settings.problem) for (e, _), p in zip(finalists, points, strict=True)]
        kept, dropped = still_best(points, evaluations, expected)
        if not kept:
            raise CannotBeDone(unmet(evaluations, s.settings))
        tuned = tuple(p.candidate.tuned for p in points if p.candidate.tuned is not None)
        best = tuple(sorted(kept, key=lambda p: p.latency_s))
        return Verified(best, len(points), tuple(dropped), tuple(evaluations), tuned=tuned)

    def _device(self) -> dict[str, Any]:
        data = self.data
        return {
            "name": data.device,
            "threads": data.threads,
            "batch": data.batch,
            "fingerprint": data.fingerprint,
            "environment": data.environment,
        }

    def _origin(self) -> dict[str, Any]:
        """Where the latencies come from, for the report."""
        return {"profile": self.setup.settings.profile, "device": self.data.device, "run": str(self.setup.folder)}
