"""A finished run carried to another device, with few timings and without training.

neutral files timed there → latency model, from the old device's ┐
accuracies and weights that the run has ─────────────────────────┴→ inherited accuracies → search → verify → report

What is timed on the new device: three fifths of the timings are of untrained networks that tell most about the
device, the others of what the search asks for.  The files of the front come on top: up to 24, and their twins, measured
carefully.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from latency.device import Device, entry_of, fingerprint, parse_device
from latency.harness import QUICK, measure_models
from latency.store import MeasurementStore
from nas.anatomy import Anatomy
from nas.config import Settings
from nas.covered import check_space_covered
from nas.evaluating import one_by_one
from nas.finetune import FOLDER as FINETUNED
from nas.folder import JOURNAL, RECORD, default_folder, open_folder, read_record, read_settings
from nas.inherit import FILE as INHERITED
from nas.inherit import read_inherited
from nas.journal import Journal
from nas.known import Known, read_known
from nas.loop import run_loop
from nas.measuring import say_busy
from nas.metrics import untold
from nas.objectives import Evaluation
from nas.pipeline import (
    Watched,
    alone_in,
    builder_of,
    check_disk,
    executed_of,
    hypervolumes,
    in_short,
    inherit,
    one_worker,
    pace_of,
    timed,
    verify_best,
)
from nas.predict import Inherited, Predicts
from nas.profiling import neutral_model
from nas.progress import Reporter
from nas.record import Parts, Searched, Setup, make_record
from nas.relaxed import is_relaxed
from nas.report import write_report
from nas.searchers.linas import LINAS
from nas.spec import SpaceLike
from nas.training import PACE_FILE, read_history
from nas.transferred import Carried, Transfer, fit_transferred, prepare_transfer
from nas.verify import RealEvaluator
from nas.weights import run_data
from quant_search.precision import kind_of
from search_spaces.space import INDEX
from supernet.atomic import write_bytes, write_json
from supernet.checkpoint import FILE_NAME
from supernet.data import Dataset
from supernet.pace import using_threads

TIMINGS = 50
MOST_VERIFIED = 24
_LEAST = 10  # timings: six files to fit on, and four evaluations
_NEUTRAL_SHARE = 0.6
_A_GROUP = 3  # files that are timed in turn
_ROUNDS = 6  # of inherited accuracies: they cost the new device nothing
_TIMED_FILE = "timed.json"


def retarget(
    source: Path,
    device: str,
    folder: Path | None,
    reporter: Reporter,
    *,
    timings: int = TIMINGS,
    space: SpaceLike | None = None,
    dataset: Dataset | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Carries the run in `source` to `device` and returns the new run's folder and record; see the module.

    The same call goes on with a run that was interrupted, and reads one that is finished.

    Args:
        folder: of the new run; by default one below `runs/`.
        space, dataset: the class and the data, for a run that was started from Python with them.

    Raises:
        ValueError: no finished search, a device that is not there or is the run's own, or too few timings; nothing
            was written.
        CannotBeDone: no architecture keeps to the bounds on the new device.
    """
    record, was = read_record(source), read_settings(source)
    place = parse_device(device)
    _check(source, was, record, place, timings)
    settings = _settings(was, record, place, timings)
    dataset = run_data(settings, dataset)
    folder = folder or default_folder(settings)
    check_disk(folder)
    known = read_known(source, dataset, space)
    anatomy = known.anatomy
    if settings.precisions != was.precisions:
        anatomy = Anatomy(known.architectures, anatomy.tracer, settings.precisions)
    if not (folder / RECORD).exists():
        check_space_covered(known.network, anatomy, dataset.image_shape, place, settings.seed, reporter)
    open_folder(folder, settings)
    if (folder / RECORD).exists():
        return folder, read_record(folder)
    with alone_in(folder), MeasurementStore(say=reporter.message) as store:
        for name in (FILE_NAME, INHERITED, PACE_FILE):
            if not (folder / name).exists():
                write_bytes(folder / name, (source / name).read_bytes())
        for file in sorted((source / FINETUNED).glob("[!.]*")):  # what was trained serves every device
            if not (folder / FINETUNED / file.name).exists():
                write_bytes(folder / FINETUNED / file.name, file.read_bytes())
        setup = Setup(settings, dataset, known.network, known.architectures, anatomy, place, folder, store, reporter)
        return folder, _Retargeting(setup, known).run()


def _check(source: Path, was: Settings, record: dict[str, Any], device: Device, timings: int) -> None:
    if was.source is not None:
        raise ValueError(f"{source} was itself retargeted: retarget the run that it came from")
    if is_relaxed(was):
        raise ValueError(
            f"the weights in {source} are those of the networks that strategy {was.strategy!r} found here, and "
            f"serve no other device: search there anew, with --device {device.name}"
        )
    if timings < _LEAST:
        raise ValueError(f"retargeting needs at least {_LEAST} timings, got {timings}")
    if fingerprint(device) == record["device"]["fingerprint"]:
        raise ValueError(f"{source} is a run of {device.name} on this machine already: name another device")
    same_batch = device.batch == record["device"].get("batch", 1)
    if unknown := untold(was.problem.metrics, graph=same_batch):
        raise ValueError(
            f"{' and '.join(unknown)} on {device.name} cannot be told from {source}, which asks for it: search there "
            f"anew, with --device {device.name}"
        )
    kept = [p for p in was.precisions if kind_of(p) in entry_of(device).precisions]
    if 1 < len(kept) < len(was.precisions):
        raise ValueError(
            f"the run in {source} has {', '.join(was.precisions)} files, of which {device.name} runs "
            f"{', '.join(kept)}: search there anew, with --device {device.name} --precision {','.join(kept)}"
        )
    if not kept:
        raise ValueError(
            f"the run in {source} has {', '.join(was.precisions)} files only, and {device.name} runs "
            f"{', '.join(entry_of(device).precisions)}: search with --precision "
            f"{','.join(entry_of(device).precisions)} there"
        )


def _settings(was: Settings, record: dict[str, Any], device: Device, timings: int) -> Settings:
    runs = entry_of(device).precisions
    return was.model_copy(
        update={
            "device": device.name,
            "precisions": tuple(p for p in was.precisions if kind_of(p) in runs),
            "searcher": "linas",
            "evaluations": timings - _neutral(timings),
            "baselines": False,
            "profile": None,
            "profile_fingerprint": None,
            "source": f"{was.digest}-{record['device']['fingerprint']}",
            "timings": timings,
        }
    )


def _neutral(timings: int) -> int:
    return round(_NEUTRAL_SHARE * timings)


@dataclass(frozen=True)
class _Retargeting:
    """One run being carried over."""

    setup: Setup
    known: Known

    def run(self) -> dict[str, Any]:
        """All stages; the record."""
        s, started_s = self.setup, time.perf_counter()
        history = read_history(s.folder)
        with using_threads(pace_of(s).threads), threadpool_limits(1, user_api="blas"):
            (transfer, rows, seconds), timing_s = timed(self._time)
            scores = transfer.scores(rows, seconds)
            inherited = self._inherit(transfer, rows, seconds)
            transfer = replace(transfer, known=replace(self.known, inherited=inherited))
            searched, known = self._search(transfer, rows, seconds)
            verified = verify_best(s, {**searched.groups, "source": known}, MOST_VERIFIED)
        parts = Parts(
            space=self._space(transfer, rows, seconds),
            profile=Carried(len(rows), scores),
            history=history,
            inherited=transfer.known.inherited_in(s.space),
            searched=searched,
            verified=verified,
            seconds={"profile": timing_s, "train": 0.0, "all": time.perf_counter() - started_s},
        )
        record = make_record(s, parts) | {"retarget": self._account(len(rows), searched, verified.candidates)}
        with s.reporter.stage("report", 1):
            write_report(record, s.folder)
            write_json(s.folder / RECORD, record)
        return record

    def _time(self) -> tuple[Transfer, np.ndarray, np.ndarray]:
        """What carries the model over, and neutral networks (k, d) with their seconds (k,) on the new device."""
        s, file = self.setup, self.setup.folder / _TIMED_FILE
        with s.reporter.stage("time") as stage:
            transfer = prepare_transfer(self.known, s.anatomy, s.settings.seed)
            rows = transfer.chosen(_neutral(self._timings), s.settings.seed)
            found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
            stage.expect(len(rows))
            contentions = []
            missing = [row for row in rows if _key(row) not in found]
            stage.advance(len(rows) - len(missing))
            for i in range(0, len(missing), _A_GROUP):
                group = missing[i : i + _A_GROUP]
                measured = measure_models([self._file(row) for row in group], s.device, QUICK, s.store)
                contentions += [m.contention for m in measured]
                found |= {_key(row): m.median_s for row, m in zip(group, measured, strict=True)}
                write_json(file, found)
                stage.advance(len(group))
        say_busy(s.reporter, "time", contentions)
        return transfer, rows, np.array([found[_key(row)] for row in rows])

    @property
    def _timings(self) -> int:
        return self.setup.settings.timings or TIMINGS

    def _file(self, row: np.ndarray) -> bytes:
        s = self.setup
        model = neutral_model(
            s.network, s.anatomy.tracer, s.space.row(row), s.settings.precisions, s.dataset.image_shape
        )
        return bytes(model.SerializeToString())

    def _search(self, transfer: Transfer, rows: np.ndarray, seconds: np.ndarray) -> tuple[Searched, list[Evaluation]]:
        """The search on the new device; and what the run had found, with latencies predicted for it."""
        s, problem = self.setup, self.setup.settings.problem

        def fit(evaluations: Sequence[Evaluation]) -> Predicts:
            own = [e for e in evaluations if e.provenance == "verified"]
            told = np.array([e.arch.indices for e in own], dtype=INDEX).reshape(-1, len(s.space))
            return fit_transferred(transfer, (rows, seconds), told, [e.values for e in own])

        watched = Watched(fit, problem)
        candidates, objectives = transfer.known.inherited_in(s.space).population, len(problem.objectives)
        searcher = LINAS(s.space, watched.cost_model, objectives, s.settings.seed, 0, known=candidates)
        searcher.tell(self._carried(fit(())))
        measure = RealEvaluator(builder_of(s), s.dataset, s.device, s.store, executed_of(s))
        with s.reporter.stage("search", s.settings.evaluations) as stage, one_worker() as executor:

            def told(evaluation: Evaluation | None) -> None:
                stage.advance()
                if evaluation is not None:
                    watched.note(evaluation, "search")
                    stage.say(in_short(evaluation, s.settings.costs))

            found = run_loop(
                searcher,
                s.space,
                problem,
                one_by_one(measure, executor),
                budget=s.settings.evaluations,
                batch=max(4, s.settings.evaluations // 4),
                journal=Journal(s.folder / JOURNAL, "search", s.space, problem),
                on_evaluation=told,
            )
        groups = {"search": found}
        return Searched(groups, watched.predictions, hypervolumes(groups)), self._carried(fit(found))

    def _carried(self, predictor: Predicts) -> list[Evaluation]:
        """The run's own evaluations on the new device: accuracies as verified, latencies predicted."""
        seen = self.known.seen_in(self.setup.space)
        if not seen:
            return []
        latency = predictor.predict(np.array([arch.indices for arch, _ in seen], dtype=INDEX))["latency_s"]
        problem = self.setup.settings.problem
        return [
            problem.evaluation(arch, {**before.values, "latency_s": float(t)}, "predicted")
            for (arch, before), t in zip(seen, latency, strict=True)
        ]

    def _inherit(self, transfer: Transfer, rows: np.ndarray, seconds: np.ndarray) -> Inherited:
        """The run's inherited accuracies, and others of subnets near the front that is predicted for the new device.

        What is best there may look like nothing that the run looked at: torch likes few wide layers.
        """
        s = self.setup
        hardware = fit_transferred(transfer, (rows, seconds), rows[:0], [])
        inherit(s, hardware, _ROUNDS)  # its file holds all of them
        return read_inherited(json.loads((s.folder / INHERITED).read_text()), self.known.anatomy)

    def _space(self, transfer: Transfer, rows: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
        """What the run's record says of its space, with latencies of the new device."""
        known = {_key(row): t for row, t in zip(rows, seconds, strict=True)}
        landmarks = [float(known[_key(row)]) for row in transfer.landmarks()]
        space = self.known.record["space"]
        shown = [{**row, "latency_s": t} for row, t in zip(space["rows"], landmarks, strict=True)]
        return {**space, "policies_included": self.setup.space.size, "choices": len(self.setup.space), "rows": shown}

    def _account(self, neutral: int, searched: Searched, verified: int) -> dict[str, Any]:
        """What the new device was asked for, and where the rest is from."""
        evaluations = len(searched.groups["search"])
        return {
            "from": {"run": str(self.known.folder), "device": self.known.device, "fingerprint": self.known.fingerprint},
            "timings": {"neutral": neutral, "evaluations": evaluations, "all": neutral + evaluations},
            "verified_files": verified,
            "known_evaluations": len(self.known.evaluations),
        }


def _key(row: np.ndarray) -> str:
    return " ".join(map(str, row.tolist()))
