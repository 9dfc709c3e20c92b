"""The journal of a run: every real evaluation, in an Optuna storage.

One Optuna study per journal; one complete trial per verified architecture, one failed trial per architecture
whose evaluation failed.  So optuna-dashboard and Optuna's plots and importances read a run as it is.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.objectives import Evaluation, Problem
from nas.quiet import quiet
from search_spaces.space import Architecture, SearchSpace

_GRACE_S = 5  # after which the lock of a killed writer is taken over
_logger = logging.getLogger(__name__)


class Journal:
    """Evaluations that survive the process.

    Args:
        storage: any Optuna storage, or the path of a journal file.
        problem: whose metrics are stored and whose costs are rebuilt on reading.
        provenance: of all its evaluations, that of their least certain metric.

    Raises:
        ValueError: the stored study is of another space or problem, or the file is not a journal.
    """

    def __init__(
        self,
        storage: BaseStorage | Path,
        name: str,
        space: SearchSpace,
        problem: Problem,
        provenance: str = "verified",
    ) -> None:
        self._space, self._problem, self._name = space, problem, name
        self.provenance = provenance
        self._distributions: dict[str, BaseDistribution] = {
            c.name: CategoricalDistribution(c.options) for c in space.choices
        }
        self.study = _open_study(storage, name, problem)
        self._known: dict[Architecture, Evaluation | None] = {}
        self._taken = 0
        self.refresh()

    def refresh(self) -> None:
        """Takes in what other processes have recorded since; of an architecture recorded twice the first counts.

        Raises:
            ValueError: a record of another space or problem.
        """
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials[self._taken :]:
            if trial.state in (TrialState.COMPLETE, TrialState.FAIL):
                try:
                    arch, outcome = self._read(trial)
                except ValueError as error:
                    raise ValueError(
                        f"the journal's study {self._name!r} is of another space or problem ({error}): "
                        "use another folder or study"
                    ) from error
                self._known.setdefault(arch, outcome)
        self._taken = len(trials)

    def _read(self, trial: FrozenTrial) -> tuple[Architecture, Evaluation | None]:
        for name, found in trial.distributions.items():
            expected = self._distributions.get(name, found)
            if found != expected:
                raise ValueError(f"choice {name!r} has options {expected.choices}, in the journal {found.choices}")
        arch = self._space.architecture(trial.params)
        if trial.state is TrialState.FAIL:
            return arch, None
        return arch, self._problem.evaluation(arch, trial.user_attrs.get("metrics", {}), self.provenance)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, arch: Architecture) -> bool:
        return arch in self._known

    @property
    def evaluations(self) -> list[Evaluation]:
        """All that succeeded, in the order recorded."""
        return [evaluation for evaluation in self._known.values() if evaluation is not None]

    @property
    def failures(self) -> dict[Architecture, str]:
        """The architectures that failed, with the reason, in the order recorded."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        failed = {self._space.architecture(trial.params): trial.user_attrs.get("reason", "") for trial in trials}
        return {arch: reason for arch, reason in failed.items() if self._known.get(arch) is None}

    def find(self, arch: Architecture) -> Evaluation | None:
        """The evaluation of `arch`, or None where there is none or it failed."""
        return self._known.get(arch)

    def record(self, evaluation: Evaluation) -> None:
        """Adds an evaluation of files; on return it is on disk.

        Where another process was first to record the architecture, that record stays the one that counts.

        Raises:
            ValueError: the evaluation is of another provenance.
        """
        if evaluation.provenance != self.provenance:
            raise ValueError(f"a journal holds {self.provenance} evaluations, got an {evaluation.provenance} one")
        values = [evaluation.values[o.metric] for o in self._problem.objectives]
        self._add(evaluation.arch, TrialState.COMPLETE, values, {"metrics": dict(evaluation.values)})

    def record_failure(self, arch: Architecture, reason: str) -> None:
        """Adds an architecture whose evaluation failed, so that it is not tried again."""
        self._add(arch, TrialState.FAIL, None, {"reason": reason})

    def _add(
        self, arch: Architecture, state: TrialState, values: list[float] | None, attributes: Mapping[str, object]
    ) -> None:
        self.refresh()
        if arch in self._known:
            return
        self.study.add_trial(
            create_trial(
                state=state,
                values=values,
                params=dict(arch.values),
                distributions={name: self._distributions[name] for name in arch.values},
                user_attrs=dict(attributes),
            )
        )
        self.refresh()


def _open_study(storage: BaseStorage | Path, name: str, problem: Problem) -> optuna.Study:
    """The study `name` of a storage, made where it is missing.

    Raises:
        ValueError: it has other objectives, or the file is not a journal.
    """
    directions = ["maximize" if o.maximise else "minimize" for o in problem.objectives]
    metrics = [o.metric for o in problem.objectives]
    try:
        backend = _file_storage(storage) if isinstance(storage, Path) else storage
        if name in optuna.get_all_study_names(backend):  # reading alone writes nothing
            study = optuna.load_study(storage=backend, study_name=name)
        else:
            with quiet():
                study = optuna.create_study(
                    storage=backend, study_name=name, directions=directions, load_if_exists=True
                )
    except (ValueError, KeyError, TypeError) as error:  # of lines that are not Optuna's
        raise ValueError(f"{storage} is not a journal ({error}): use another folder") from error
    found = ([d.name.lower() for d in study.directions], study.metric_names or metrics)
    if found != (directions, metrics):
        raise ValueError(
            f"the journal's study {name!r} has other objectives: {_listed(*found)} instead of "
            f"{_listed(directions, metrics)}; use another folder or study"
        )
    if study.metric_names is None:
        _set_metric_names(study, metrics)
    return study


def _listed(directions: list[str], metrics: list[str]) -> str:
    return ", ".join(map(" ".join, zip(directions, metrics, strict=False)))


def _set_metric_names(study: optuna.Study, metrics: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(metrics)


class _MendingLock(JournalFileOpenLock):
    """A lock whose holder first cuts off what a killed or disk-full writer left of a record.

    Such a record was never committed, and the next one written behind it would be lost with it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), grace_period=_GRACE_S)
        self._path = path

    def acquire(self) -> bool:
        """Takes the lock and leaves the file with whole lines only."""
        super().acquire()
        try:
            _drop_partial_line(self._path)
        except OSError:
            self.release()
            raise
        return True


def _file_storage(path: Path) -> JournalStorage:
    """A journal-file storage that survives the death of its writers."""
    path = path.resolve()  # the process may change its folder
    if path.exists():
        with path.open("rb") as file:
            if file.read(1) not in (b"", b"{"):
                raise ValueError("its first line is no JSON object")
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(path)))


def _drop_partial_line(path: Path) -> None:
    """Cuts off a last line without its end."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() in (b"", b"\n"):
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    _logger.warning("%s ended within a record; the unfinished record was dropped", path.name)
