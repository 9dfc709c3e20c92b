"""The record of a run: everything that its report, its tables and `front.json` show, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from latency.device import Device, environment, fingerprint
from latency.store import MeasurementStore
from nas.advantage import advantages
from nas.anatomy import Anatomy
from nas.candidate import Tuned
from nas.config import Settings
from nas.objectives import Evaluation
from nas.predict import Inherited, fit_accuracy
from nas.progress import Reporter
from nas.verify import Verified, missed
from predictors.ranking import agreement
from search_spaces.space import SearchSpace
from supernet.atomic import write_bytes, write_json
from supernet.data import Dataset
from supernet.history import History

FRONT = "front.json"
_LEAST_VALIDATED = 10  # subnets, for five folds


@dataclass(frozen=True)
class Setup:
    """What all stages of a run share."""

    settings: Settings
    dataset: Dataset
    network: nn.Module
    architectures: SearchSpace
    anatomy: Anatomy
    device: Device
    folder: Path
    store: MeasurementStore
    reporter: Reporter

    @property
    def space(self) -> SearchSpace:
        """Architectures joined with policies."""
        return self.anatomy.space


@dataclass(frozen=True)
class Searched:
    """The outcome of the search stage.

    Args:
        groups: `search`, and the baselines `random` and `uniform`, each with its evaluations in order asked.
        predictions: what was predicted of each architecture before it was verified.
    """

    groups: dict[str, list[Evaluation]]
    predictions: list[dict[str, dict[str, float]]]
    hypervolume: dict[str, float]


class Described(Protocol):
    """A latency model that says what it was fitted on and how good it is."""

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of a run."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the stages of a run found.

    Args:
        inherited: None where nobody asked for inherited accuracies.
        seconds: of the stages `profile` and `train` and of `all`, in this session.
        relaxed: as JSON, how a differentiable search went; None of other searches.
    """

    space: dict[str, Any]
    profile: Described
    history: History
    inherited: Inherited | None
    searched: Searched
    verified: Verified
    seconds: dict[str, float]
    relaxed: dict[str, Any] | None = None


def make_record(setup: Setup, parts: Parts) -> dict[str, Any]:
    """Writes the files of the front and returns the record of the whole run."""
    history = parts.history
    return {
        "settings": setup.settings.model_dump(),
        "space": parts.space,
        "data": _data_record(setup.dataset),
        "device": _device_record(setup.device),
        "training": {
            "total_steps": history.total_steps,
            "seconds": parts.seconds["train"],
            "entries": history.plain(),
        },
        "profile": {"seconds": parts.seconds["profile"], **parts.profile.plain()},
        **({"accuracy_predictor": _accuracy_record(setup.anatomy, parts.inherited)} if parts.inherited else {}),
        **({"relaxed": parts.relaxed} if parts.relaxed else {}),
        "search": _search_record(setup, parts.searched),
        "verify": _verify_record(setup, parts.searched, parts.verified),
        "front": _write_front(setup.folder, parts.verified),
        "seconds": parts.seconds["all"],
    }


def _data_record(dataset: Dataset) -> dict[str, Any]:
    sizes = {split: len(dataset.split(split)[1]) for split in ("train", "val", "test")}
    return {
        "name": dataset.name,
        **sizes,
        "classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
        "fingerprint": dataset.fingerprint,
    }


def _device_record(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "threads": device.threads,
        "batch": device.batch,
        "fingerprint": fingerprint(device),
        "environment": environment(device).plain(),
    }


def _accuracy_record(anatomy: Anatomy, inherited: Inherited) -> dict[str, Any]:
    """How well the accuracy predictor does on subnets it was not fitted on, by five-fold cross-validation.

    Left out where there are too few of them.
    """
    truth, predicted = inherited.val_accuracy, np.empty(len(inherited.val_accuracy))
    if len(truth) < _LEAST_VALIDATED or not truth.all():
        return {"inherited": len(truth), "cross_validated": None}
    for fold in range(5):
        held = np.arange(len(truth)) % 5 == fold
        fitted = fit_accuracy(anatomy, inherited.population[~held], truth[~held])
        predicted[held] = fitted.predict(inherited.population[held])
    return {"inherited": len(truth), "cross_validated": agreement(predicted, truth).plain()}


def _search_record(setup: Setup, searched: Searched) -> dict[str, Any]:
    return {
        "evaluations": len(searched.groups["search"]),
        "groups": {
            name: [[e.values[metric] for metric in setup.settings.problem.names] for e in found]
            for name, found in searched.groups.items()
        },
        "hypervolume": searched.hypervolume,
        "advantage": advantages(searched.groups),
        "predictions": searched.predictions,
        "importance": importance(
            setup.space, [e for found in searched.groups.values() for e in found], setup.settings.problem.names
        ),
    }


def importance(space: SearchSpace, evaluations: Sequence[Evaluation], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """How much each choice mattered: the share of variance between its options, per metric, over all evaluations.

    Of costs, the variance of the logarithm.
    """
    rows = np.array([e.arch.indices for e in evaluations])
    active = space.active(rows)
    found = []
    for j, choice in enumerate(space.choices):
        label = np.where(active[:, j], rows[:, j], -1)
        entry: dict[str, Any] = {"choice": choice.name}
        for metric in metrics:
            values = np.array([e.values[metric] for e in evaluations])
            values = values if metric == "val_accuracy" else np.log(values)
            between = sum((label == k).mean() * (values[label == k].mean() - values.mean()) ** 2 for k in set(label))
            entry[metric] = float(between / max(values.var(), 1e-12))
        found.append(entry)
    return sorted(found, key=lambda e: -sum(e[metric] for metric in metrics))


def _verify_record(setup: Setup, searched: Searched, verified: Verified) -> dict[str, Any]:
    record: dict[str, Any] = {
        "candidates": verified.candidates,
        "dropped": [{"arch": arch, "why": why} for arch, why in verified.dropped],
    }
    if verified.tuned:
        record["finetuned"] = _finetuned_record(setup.settings.finetune, verified.tuned)
    return record | missed(searched.predictions)


def _finetuned_record(steps: int, tuned: Sequence[Tuned]) -> dict[str, Any]:
    """What fine-tuning came to, over all candidates that were verified; what became worse gained nothing."""
    return {
        "steps": steps,
        "trained": len(tuned),
        "kept": sum(t.kept for t in tuned),
        "failed": sum(t.finetuned is None for t in tuned),
        "median_gain": float(np.median([t.gain for t in tuned])),
    }


def _write_front(folder: Path, verified: Verified) -> list[dict[str, Any]]:
    """Writes `front/*.onnx` and `front.json`, the latter last; what an earlier, killed attempt left goes."""
    entries = []
    (folder / "front").mkdir(exist_ok=True)
    for i, point in enumerate(verified.points):
        file = f"front/point-{i:02d}.onnx"
        model = point.candidate.model
        write_bytes(folder / file, model)
        entries.append(point.plain(file))
    current = {folder / entry["file"] for entry in entries}
    for stale in set((folder / "front").iterdir()) - current:
        stale.unlink()
    write_json(folder / FRONT, entries)
    return entries
