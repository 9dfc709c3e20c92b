"""A run from settings to a verified front, stage by stage; a stage whose result is there is not done again.

space → supernet → inherited accuracies ┐
      → device profile ─────────────────┴→ search (→ fine-tuning) → verify → report
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits
from torch import nn

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.store import MeasurementStore
from nas.anatomy import Anatomy
from nas.baseline import no_file_pays
from nas.candidate import Builder
from nas.config import Settings
from nas.covered import check_space_covered
from nas.describe import describe_space
from nas.device_profile import Profile, fit_profile
from nas.errors import CannotBeDone
from nas.evaluating import Measure, one_by_one
from nas.executed import Executed
from nas.finetune import finetuned
from nas.folder import JOURNAL, PROFILE, RECORD, alone_in, check_disk, open_folder
from nas.inherit import Inheritance
from nas.journal import Journal
from nas.loop import run_loop
from nas.measuring import say_busy
from nas.metrics import Cost
from nas.names import check_names
from nas.objectives import Evaluation, Problem, cost_array
from nas.pareto import front, relative_hypervolume, shared_box
from nas.paying import check_wishes
from nas.predict import Inherited, Predicts, PredictsHardware, fit_hardware, fit_metrics
from nas.profile_data import ProfiledSpace
from nas.profiling import SEARCHING, Profiler
from nas.progress import Reporter
from nas.record import Parts, Searched, Setup, make_record
from nas.report import write_report
from nas.searchers.catalog import SEARCHERS
from nas.searchers.linas import LINAS
from nas.searchers.make import make_searcher
from nas.searchers.nsga2 import NSGA2
from nas.searchers.protocol import CostModel, Searcher
from nas.searchers.random_search import RandomSearch
from nas.searchers.scaling import UniformScaling
from nas.spec import SpaceLike, network_for, space_fingerprint
from nas.training import in_all_precisions, pace_in, recipe_of, take_weights, train_stage
from nas.twins import with_twins
from nas.verify import RealEvaluator, Verified, verify_front
from quant_search.policy import SUFFIX, bits, joint_space, uniform
from search_spaces.network import find_blocks
from search_spaces.space import INDEX, SearchSpace
from supernet.atomic import write_json
from supernet.data import Dataset
from supernet.history import History
from supernet.pace import Pace, using_threads
from supernet.recipe import Recipe
from supernet.strategies.only import Only

T = TypeVar("T")
OnSpace = Callable[[dict[str, Any]], None]
Stages = Callable[[Setup, OnSpace], dict[str, Any]]
"""From a run whose folder is open to its record."""

TRAINING_SHARE = 0.27  # of the time budget; the rest is profiling, evaluations and verification
OPTIMISM = 0.5  # deviations by which the search trusts what is little known
_LEAST_FINALISTS = 16  # the front and what is next to it: verification may reorder them
_MOST_FINALISTS = 40  # of several costs, most networks may be on the front


def run(
    settings: Settings,
    space: SpaceLike,
    dataset: Dataset,
    folder: Path,
    reporter: Reporter,
    on_space: OnSpace = lambda _: None,
    remeasure: bool = False,
    stages: Stages | None = None,
    check: Callable[[Settings, nn.Module, SearchSpace, Dataset], None] = lambda *_: None,
) -> dict[str, Any]:
    """Does the run, or what is left of it, and returns its record.

    Args:
        on_space: told what the space is, before the long stages.
        remeasure: measures anew what earlier runs measured; what this run has evaluated stays.
        stages: what the run does, by default train a supernet and search in it.
        check: refuses a space with a ValueError, before anything is written.

    Raises:
        ValueError: settings that cannot be met, checked before anything is written.
        CannotBeDone: no architecture keeps to the bounds.
        OSError: the folder cannot be written.
    """
    check_names(settings)
    device = parse_device(settings.device)
    network, architectures = network_for(settings, space, dataset)
    joint = joint_space(architectures, find_blocks(network), settings.precisions)
    if SEARCHERS[settings.searcher].maker is not None:  # what it refuses, it refuses before anything is written
        make_searcher(settings.searcher, joint, len(settings.problem.objectives), settings.seed)
    check_wishes(settings, device, reporter)
    check(settings, network, architectures, dataset)
    anatomy = Anatomy(joint, BlockTracer(network, dataset.image_shape), settings.precisions)
    if not (folder / RECORD).exists():
        check_space_covered(network, anatomy, dataset.image_shape, device, settings.seed, reporter)
    settings = settings.model_copy(update={"space_fingerprint": space_fingerprint(space, network, architectures)})
    check_disk(folder)
    open_folder(folder, settings)
    if (folder / RECORD).exists():
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        on_space(record["space"])
        return record
    with alone_in(folder), MeasurementStore(remeasure=remeasure, say=reporter.message) as store:
        setup = Setup(settings, dataset, network, architectures, anatomy, device, folder, store, reporter)
        return (stages or _stages)(setup, on_space)


def _stages(setup: Setup, on_space: OnSpace) -> dict[str, Any]:
    started_s = time.perf_counter()
    space = describe(setup)
    on_space(space)
    # The predictors' matrices are small: on a busy machine, BLAS threads that wait for each other cost them seconds.
    with using_threads(pace_of(setup).threads), threadpool_limits(1, user_api="blas"):
        profile, profile_s = timed(lambda: profile_device(setup))
        history, training_s = timed(lambda: train(setup))
        inherited = inherit(setup, fit_hardware(setup.anatomy, profile))
        searched = search_measured(setup, profile, inherited)
        verified = verify_best(setup, searched.groups)
    seconds = {"profile": profile_s, "train": training_s, "all": time.perf_counter() - started_s}
    parts = Parts(space, profile, history, inherited, searched, verified, seconds)
    return keep_record(setup, make_record(setup, parts))


def keep_record(setup: Setup, record: dict[str, Any]) -> dict[str, Any]:
    """Writes the report of a run and its record, with which it is finished."""
    with setup.reporter.stage("report", 1):
        write_report(record, setup.folder)
        write_json(setup.folder / RECORD, record)
    return record


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns, and the seconds it took."""
    started_s = time.perf_counter()
    return work(), time.perf_counter() - started_s


# -- stages ------------------------------------------------------------------------------------------


def describe(setup: Setup) -> dict[str, Any]:
    """The stage that says what the space is."""
    s = setup
    with s.reporter.stage("space") as stage:
        return describe_space(s.network, s.architectures, s.space, s.dataset.image_shape, s.device, s.store, stage)


def profile_device(setup: Setup) -> Profile:
    """The stage that measures the device."""
    s = setup
    executed = executed_of(setup)
    executed.prepare(s.reporter)
    profiler = Profiler(s.network, s.anatomy, s.dataset.image_shape, s.device, s.store, executed)
    with setup.reporter.stage("profile") as stage:
        data = profiler.run(SEARCHING, profiled_space(s), s.settings.seed, stage)
        data.write(s.folder / PROFILE)
        profile = fit_profile(data, s.anatomy)
        stage.say(f"held-out error {100 * profile.held_out.mape:.1f} %")
    say_busy(s.reporter, "profile", [*profiler.contentions, *executed.contentions])
    return profile


def profiled_space(setup: Setup) -> ProfiledSpace:
    """The space of a run as a profile names it."""
    s = setup.settings
    shape, classes = setup.dataset.image_shape, setup.dataset.num_classes
    return ProfiledSpace(
        name=s.space,
        preset=s.preset,
        input_shape=shape,
        num_classes=classes,
        precisions=s.precisions,
        sparsity=s.sparsity,
        fingerprint=s.space_fingerprint,
    )


def pace_of(setup: Setup) -> Pace:
    """How the training computes; all other stages have as many threads."""
    s = setup
    recipe = training_recipe(s.settings)
    return pace_in(s.folder, s.network, s.architectures, s.dataset, recipe, s.settings.autocast)


def training_recipe(settings: Settings) -> Recipe:
    """How a run trains; a run that takes its weights trains nothing, whatever strategy they come of."""
    strategy = Only(()) if settings.supernet is not None else None
    return recipe_of(settings, strategy, TRAINING_SHARE)


def train(setup: Setup) -> History:
    """The stage that trains the shared weights, or takes those of another run."""
    s = setup
    if s.settings.supernet is not None:
        return take_weights(s.folder, Path(s.settings.supernet), s.network)
    recipe = replace(training_recipe(s.settings), autocast=pace_of(s).autocast)
    trained, space = in_all_precisions(s.network, s.architectures, s.settings)
    return train_stage(recipe, trained, space, s.dataset, s.folder, s.reporter)


def inherit(setup: Setup, hardware: PredictsHardware, rounds: int | None = None) -> Inherited:
    """The stage that takes inherited accuracies, near the front that is predicted with what `hardware` says."""
    s = setup
    inheritance = Inheritance(s.network, s.architectures, s.anatomy, s.dataset, hardware, s.settings.problem)
    with s.reporter.stage("inherit") as stage:
        return inheritance.run(s.settings.seed, s.folder, stage, rounds)


def search_measured(setup: Setup, profile: Profile, inherited: Inherited) -> Searched:
    """The search, and its baselines, on the attached device."""
    journal = Journal(setup.folder / JOURNAL, "search", setup.space, setup.settings.problem)
    measure = evaluator_of(setup)
    watched = Watched(partial(fit_metrics, setup.anatomy, profile, inherited), setup.settings.problem)
    return search_with(setup, profile, inherited, watched, measure, journal)


def search_with(
    setup: Setup, profile: Profile, inherited: Inherited, watched: Watched, measure: Measure, journal: Journal
) -> Searched:
    """The search, and its baselines; `measure` makes and looks at each file."""
    searchers = _searchers(setup, profile, watched, inherited)
    groups = run_groups(setup, searchers, measure, journal, watched.note)
    return Searched(groups, watched.predictions, hypervolumes(groups))


def run_groups(
    setup: Setup,
    searchers: Mapping[str, Searcher],
    measure: Measure,
    journal: Journal,
    note: Callable[[Evaluation, str], None],
) -> dict[str, list[Evaluation]]:
    """The stage in which the search and its baselines evaluate; `note` is told each evaluation and its group."""
    settings = setup.settings
    groups: dict[str, list[Evaluation]] = {}
    with setup.reporter.stage("search", settings.evaluations * len(searchers)) as stage, one_worker() as executor:
        for name, searcher in searchers.items():

            def told(evaluation: Evaluation | None, name: str = name) -> None:
                stage.advance()
                if evaluation is not None:
                    note(evaluation, name)
                    stage.say(f"{name}: {in_short(evaluation, settings.costs)}")

            groups[name] = run_loop(
                searcher,
                setup.space,
                settings.problem,
                one_by_one(measure, executor),
                budget=settings.evaluations,
                batch=max(4, settings.evaluations // 6),
                journal=journal,
                on_evaluation=told,
            )
    return groups


class Watched:
    """Remembers what the newest fitted predictor says of each architecture that the search measures."""

    def __init__(self, fit: Callable[[Sequence[Evaluation]], Predicts], problem: Problem) -> None:
        self._fit, self._problem = fit, problem
        self._newest: Predicts | None = None
        self.predictions: list[dict[str, dict[str, float]]] = []

    def cost_model(self, evaluations: Sequence[Evaluation]) -> CostModel:
        """Fits, and keeps what was fitted."""
        newest = self._newest = self._fit(evaluations)
        return lambda population: self._problem.costs(newest.predict(population, OPTIMISM))

    def note(self, evaluation: Evaluation, group: str) -> None:
        """Pairs an evaluation of the search with its prediction, if there was one."""
        if group == "search" and self._newest is not None:
            predicted = self._newest.predict(np.array([evaluation.arch.indices], dtype=INDEX))
            self.predictions.append(
                {
                    metric: {"predicted": float(predicted[metric][0]), "verified": evaluation.values[metric]}
                    for metric in dict.fromkeys(("val_accuracy", "latency_s", *self._problem.names))
                }
            )


def _searchers(setup: Setup, profile: Profile, watched: Watched, inherited: Inherited) -> dict[str, Searcher]:
    """The search and, if wanted, its baselines.

    The guided search has the inherited accuracies and the profile to begin with, and needs nothing at random; it
    begins with the corners of the space, since models extrapolate badly.  In a joint space that is SimQ-NAS (arXiv:
    2312.13301): one search of subnets and precisions with a predictor for each objective, and real evaluations between.
    """
    settings, space = setup.settings, setup.space
    objectives = len(settings.problem.objectives)
    most = max(settings.precisions, key=bits)
    corners = np.array([uniform(arch, most).indices for arch in (space.smallest(), space.largest())])
    makers: dict[str, Callable[[], Searcher]] = {
        "linas": lambda: LINAS(
            space, watched.cost_model, objectives, settings.seed, len(corners), corners, inherited.population
        ),
        "nsga2": lambda: NSGA2(space, objectives, settings.seed, population=max(4, settings.evaluations // 3)),
    }
    made = makers.get(settings.searcher, lambda: make_searcher(settings.searcher, space, objectives, settings.seed))
    searchers = {"search": made()}
    if settings.baselines:
        searchers["random"] = RandomSearch(space, settings.seed + 1)  # another one than `--searcher random`
        searchers["uniform"] = UniformScaling(space, settings.evaluations, _faster_policy(setup, profile))
    return searchers


def _uniform_policies(space: SearchSpace) -> list[np.ndarray]:
    """Indices (d,) that set every block to one precision and leave everything else (-1), one row per precision."""
    precision = np.array([choice.name.endswith(SUFFIX) for choice in space.choices])
    options = max((len(c.options) for c, on in zip(space.choices, precision, strict=True) if on), default=1)
    return [np.where(precision, index, -1) for index in range(options)]


def _faster_policy(setup: Setup, profile: Profile) -> np.ndarray:
    """The uniform policy in which the largest network is faster, by the profile: the fairest to scale in."""
    policies, largest = _uniform_policies(setup.space), np.array(setup.space.largest().indices)
    rows = np.array([np.where(policy < 0, largest, policy) for policy in policies], dtype=INDEX)
    seconds = profile.table.predict(setup.anatomy.placed_rows(setup.space.canonical(rows))).mean
    return policies[int(np.argmin(seconds))]


@contextmanager
def one_worker() -> Any:
    """The default executor: one evaluation at a time, since timings must not disturb each other."""
    executor: Executor = ThreadPoolExecutor(max_workers=1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def in_short(evaluation: Evaluation, costs: Sequence[Cost]) -> str:
    """For the line of a stage."""
    metrics = evaluation.values
    return f"{100 * metrics['val_accuracy']:.1f} % at {', '.join(c.show(metrics[c.metric]) for c in costs)}"


def hypervolumes(groups: dict[str, list[Evaluation]]) -> dict[str, float]:
    """The share of one common box that each group dominates; infeasible evaluations count for nothing."""
    feasible = {name: [e for e in found if e.violation == 0] for name, found in groups.items()}
    costs = {name: cost_array(found) for name, found in feasible.items() if found}
    if not costs:
        return dict.fromkeys(groups, 0.0)
    ideal, reference = shared_box(list(costs.values()))
    return {name: relative_hypervolume(costs[name], ideal, reference) if name in costs else 0.0 for name in groups}


def verify_best(setup: Setup, groups: dict[str, list[Evaluation]], most: int | None = None) -> Verified:
    """Verifies the best of all groups; of an architecture in several the evaluation of the first counts.

    Args:
        most: files of the front.

    Raises:
        CannotBeDone: none keeps to the bounds.
    """
    settings = setup.settings
    finalists = pick_finalists(setup, groups, most)
    archs = list(with_twins({e.arch: found_by for e, found_by in finalists}, settings.problem))
    builder = finetuned(setup, builder_of(setup), archs)
    with setup.reporter.stage("verify") as stage:
        verified = verify_front(
            finalists,
            builder,
            setup.dataset,
            setup.device,
            setup.store,
            settings.problem,
            stage,
        )
    say_busy(setup.reporter, "verify", [*(point.contention for point in verified.points), *verified.contentions])
    if not verified.points:
        raise CannotBeDone(_why_none(verified, setup))
    return verified


def pick_finalists(
    setup: Setup, groups: dict[str, list[Evaluation]], most: int | None = None
) -> list[tuple[Evaluation, str]]:
    """The best of all groups, each with the group that found it; arguments and errors as of `verify_best`."""
    everything = {e.arch: (e, name) for name, found in reversed(groups.items()) for e in found}
    evaluations = [e for e, _ in everything.values()]
    least = min(_LEAST_FINALISTS, setup.settings.evaluations)
    finalists = choose_finalists(evaluations, least, most or _MOST_FINALISTS)
    if not finalists:
        raise CannotBeDone(unmet(evaluations, setup.settings))
    return [everything[e.arch] for e in finalists]


def executed_of(setup: Setup) -> Executed:
    """Finds what the problem of a run needs of each file besides latency."""
    return Executed(setup.settings.problem.metrics, setup.device, setup.store)


def evaluator_of(setup: Setup) -> RealEvaluator:
    """Measures the files of a run for its search."""
    return RealEvaluator(builder_of(setup), setup.dataset, setup.device, setup.store, executed_of(setup))


def builder_of(setup: Setup) -> Builder:
    """Makes the files of a run."""
    return Builder(setup.network, setup.anatomy.tracer, setup.dataset, setup.settings.precisions)


def choose_finalists(evaluations: list[Evaluation], least: int, most: int | None = None) -> list[Evaluation]:
    """The feasible front, at most `most` of it, and the next fronts behind it until there are `least`."""
    left, finalists = list(evaluations), list[Evaluation]()
    while len(finalists) < least and (layer := front(left)):
        wanted = least - len(finalists) if finalists else most or len(layer)
        # Of a layer that is not taken whole, evenly from its fast end to its accurate one.
        finalists += [
            layer[i] for i in np.unique(np.linspace(0, len(layer) - 1, min(wanted, len(layer))).round().astype(int))
        ]
        left = [e for e in left if e not in layer]
    return finalists


def _why_none(verified: Verified, setup: Setup) -> str:
    """Why nothing that was verified is on the front: the bounds, or the baseline of the device."""
    if verified.factors:
        return no_file_pays(verified.factors, setup.device)
    return unmet(list(verified.evaluations), setup.settings)


def unmet(evaluations: list[Evaluation], settings: Settings) -> str:
    """What the bounds ask and the best that was found."""
    closest = min(evaluations, key=lambda e: e.violation, default=None)
    if closest is None:
        return "no architecture could be evaluated"
    parts = []
    for bound in settings.problem.bounds:
        values = [e.values[bound.metric] for e in evaluations]
        best = max(values) if bound.at_least else min(values)
        parts.append(f"{bound.metric} {'≥' if bound.at_least else '≤'} {bound.limit:g} (best possible found: {best:g})")
    return f"no architecture keeps to the bounds: {'; '.join(parts)}"
