"""The journal of a run: every real evaluation, in an Optuna storage.

One Optuna study per journal; one complete trial per verified architecture, one failed trial per architecture
whose evaluation failed.  So optuna-dashboard and Optuna's plots and importances read a run as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.objectives import Evaluation, Problem
from search_spaces.space import Architecture, SearchSpace

_GRACE_S = 5  # after which the lock of a killed writer is taken over
_logger = logging.getLogger(__name__)


class Journal:
    """Evaluations that survive the process.

    Args:
        storage: any Optuna storage, or the path of a journal file.
        problem: whose metrics are stored and whose costs are rebuilt on reading.

    Raises:
        ValueError: the stored study has other objectives or the file is not a journal.
    """

    def __init__(self, storage: BaseStorage | Path, name: str, space: SearchSpace, problem: Problem) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._problem = space, problem
        self._distributions: dict[str, BaseDistribution] = {
            c.name: CategoricalDistribution(c.options) for c in space.choices
        }
        backend = _file_storage(storage) if isinstance(storage, Path) else storage
        directions = ["maximize" if o.maximise else "minimize" for o in problem.objectives]
        self.study = optuna.create_study(storage=backend, study_name=name, directions=directions, load_if_exists=True)
        if [d.name.lower() for d in self.study.directions] != directions:
            raise ValueError(f"the journal's study {name!r} has other objectives: use another folder")
        self._known = dict(self._read(trial) for trial in self.study.get_trials(deepcopy=False))

    def _read(self, trial: FrozenTrial) -> tuple[Architecture, Evaluation | None]:
        arch = self._space.architecture(trial.params)
        if trial.state is not TrialState.COMPLETE:
            return arch, None
        metrics = trial.user_attrs["metrics"]
        return arch, self._problem.evaluation(arch, metrics, "verified")

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, arch: Architecture) -> bool:
        return arch in self._known

    def find(self, arch: Architecture) -> Evaluation | None:
        """The evaluation of `arch`, or None where there is none or it failed."""
        return self._known.get(arch)

    def record(self, evaluation: Evaluation) -> None:
        """Adds a verified evaluation; on return it is on disk."""
        values = [evaluation.metrics[o.metric] for o in self._problem.objectives]
        self._add(evaluation.arch, TrialState.COMPLETE, values, {"metrics": dict(evaluation.metrics)})
        self._known[evaluation.arch] = evaluation

    def record_failure(self, arch: Architecture, reason: str) -> None:
        """Adds an architecture whose evaluation failed, so that it is not tried again."""
        self._add(arch, TrialState.FAIL, None, {"reason": reason})
        self._known[arch] = None

    def _add(
        self, arch: Architecture, state: TrialState, values: list[float] | None, attributes: Mapping[str, object]
    ) -> None:
        self.study.add_trial(
            create_trial(
                state=state,
                values=values,
                params=dict(arch.values),
                distributions={name: self._distributions[name] for name in arch.values},
                user_attrs=dict(attributes),
            )
        )


def _file_storage(path: Path) -> JournalStorage:
    """A journal-file storage that also opens after its writer was killed."""
    lock = JournalFileSymlinkLock(str(path), grace_period=_GRACE_S)
    if path.exists():
        _drop_partial_line(path, lock)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _drop_partial_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Cuts off a last line without its end: what a killed or disk-full writer leaves, never committed."""
    lock.acquire()
    try:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            _logger.warning("%s ended within a record; the unfinished record was dropped", path.name)
            with path.open("r+b") as file:
                file.truncate(whole)
    finally:
        lock.release()
