"""A run whose strategy searches as it trains: darts, fbnet, proxyless and their like, to a verified front.

space → device profile → cost table → differentiable search → candidates → training among them → files → verify → report

What the search ends with are probabilities. The most probable architectures of several costs, and as many random ones
of like latency, go on training among themselves, since the mixtures of a search leave weights that no network was
trained with alone; then their files are measured, as those of any search.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_limits
from torch import nn

from latency.harness import QUICK, measure_models
from nas.candidates import Candidates, check_timed, choose
from nas.config import Settings, Training
from nas.device_profile import Profile
from nas.evaluating import Measure
from nas.folder import JOURNAL
from nas.guide import Guide, fit_guide
from nas.journal import Journal
from nas.objectives import Evaluation
from nas.pipeline import (
    OnSpace,
    builder_of,
    describe,
    evaluator_of,
    hypervolumes,
    keep_record,
    pace_of,
    profile_device,
    run_groups,
    timed,
    verify_best,
)
from nas.record import Parts, Searched, Setup, make_record
from nas.searchers.listed import Listed
from nas.searchers.protocol import Searcher
from nas.training import recipe_of, train_stage
from search_spaces.space import INDEX, Architecture, SearchSpace
from supernet.catalog import STRATEGIES
from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.data import Dataset
from supernet.history import History
from supernet.learner import Learner
from supernet.pace import using_threads
from supernet.relaxed.cost_table import CostTable, ExpectedCost
from supernet.relaxed.found import found_logits, found_trace
from supernet.relaxed.search import Relaxed
from supernet.strategies.among import Among
from supernet.strategy import Strategy

FOLDER = "relaxed"  # below the run's, for the search's own checkpoint
_SEARCH_SHARE, _AMONG_SHARE = 0.2, 0.25  # of the time budget, for both trainings; no inherited accuracies are taken


def is_relaxed(settings: Training) -> bool:
    """Whether the settings name a strategy that searches as it trains."""
    return settings.strategy in STRATEGIES and STRATEGIES[settings.strategy].relaxed


def check_relaxed(settings: Settings, network: nn.Module, space: SearchSpace, dataset: Dataset) -> None:
    """Refuses a space in which the strategy of `settings` has nothing to choose, or no expected cost of its choices.

    Raises:
        ValueError: with another strategy to take, or what to change in the space.
    """
    ExpectedCost(CostTable(0.0, {(choice.name,): np.zeros(len(choice.options)) for choice in space.choices}), space)
    Learner(copy.deepcopy(network), space, dataset, recipe_of(settings), total_steps=1)


def relaxed_stages(setup: Setup, on_space: OnSpace) -> dict[str, Any]:
    """The stages of a run, as `nas.pipeline.run` takes them.

    Raises:
        CannotBeDone: no architecture keeps to the bounds.
    """
    started_s = time.perf_counter()
    space = describe(setup)
    on_space(space)
    with using_threads(pace_of(setup).threads), threadpool_limits(1, user_api="blas"):
        profile, profile_s = timed(lambda: profile_device(setup))
        found = find(setup, profile, _measured_latency(setup))
        journal = Journal(setup.folder / JOURNAL, "search", setup.space, setup.settings.problem)
        searched = search_found(setup, profile, found, evaluator_of(setup), journal)
        verified = verify_best(setup, searched.groups)
    seconds = {"profile": profile_s, "train": found.history.final.seconds, "all": time.perf_counter() - started_s}
    parts = Parts(space, profile, found.history, None, searched, verified, seconds, found.plain())
    return keep_record(setup, make_record(setup, parts))


@dataclass(frozen=True)
class Found:
    """What a differentiable search ended with.

    Args:
        search: the history of its training, `history` that of the training among candidates.
        trace: of its probabilities, as JSON.
    """

    guide: Guide
    search: History
    history: History
    candidates: Candidates
    trace: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """As JSON for the record of a run."""
        return {
            "table": self.guide.plain(),
            "training": {"total_steps": self.search.total_steps, "entries": self.search.plain()},
            "candidates": {name: len(rows) for name, rows in self.candidates.groups.items()},
            "trace": self.trace,
        }


def find(setup: Setup, profile: Profile, latency: Callable[[Architecture], float]) -> Found:
    """The stages from the profile to trained candidates.

    Args:
        latency: of the file of an architecture of the joint space, whatever its weights.

    Raises:
        CannotBeDone: no architecture keeps to the bound on latency.
    """
    s, bound_s = setup, setup.settings.max_latency_s
    folder = s.folder / FOLDER
    folder.mkdir(exist_ok=True)
    with s.reporter.stage("table") as stage:
        guide = fit_guide(s.anatomy, s.architectures, profile, s.settings.seed, folder, stage)
        guide.check(bound_s)
        check_timed(guide, bound_s, s.anatomy, latency, folder, stage)
    made = cast(Relaxed, STRATEGIES[s.settings.strategy].make())
    searching = replace(made, table=guide.table, max_cost=guide.max_cost(bound_s))
    search = _train(s, searching, _SEARCH_SHARE, folder, "relax")
    checkpoint = load_checkpoint(folder / FILE_NAME)
    logits = {name: values.double().numpy() for name, values in found_logits(checkpoint).items()}
    with s.reporter.stage("choose") as stage:
        candidates = choose(logits, guide, s.settings, s.anatomy, latency, folder, stage)
    # Begun with the search's weights and not afresh, all candidates, random ones too, come out more accurate.
    history = _train(s, Among(candidates.by_cost(guide)), _AMONG_SHARE, s.folder, "train")
    trace = found_trace(checkpoint, s.architectures)
    shown = {"progress": trace.progress, "entropy": trace.entropies()}
    return Found(guide, search, history, candidates, _rounded(shown))


def _train(setup: Setup, strategy: Strategy, share: float, folder: Path, name: str) -> History:
    recipe = replace(recipe_of(setup.settings, strategy, share), autocast=pace_of(setup).autocast)
    return train_stage(recipe, setup.network, setup.architectures, setup.dataset, folder, setup.reporter, name=name)


def search_found(setup: Setup, profile: Profile, found: Found, measure: Measure, journal: Journal) -> Searched:
    """The stage that evaluates the files of the candidates, each in every precision."""
    searchers: dict[str, Searcher] = {
        group: Listed(in_every_precision(setup, rows)) for group, rows in found.candidates.groups.items()
    }
    predictions: list[dict[str, dict[str, float]]] = []

    def note(evaluation: Evaluation, group: str) -> None:
        if group == "search":
            predicted = float(profile.predict(evaluation.arch).mean[0])
            predictions.append({"latency_s": {"predicted": predicted, "verified": evaluation.values["latency_s"]}})

    groups = run_groups(setup, searchers, measure, journal, note)
    return Searched(groups, predictions, hypervolumes(groups))


def in_every_precision(setup: Setup, rows: np.ndarray) -> np.ndarray:
    """Architectures (n, d') as rows (n · p, d) of the joint space: all blocks in one precision, and in another."""
    archs = [setup.architectures.row(row) for row in rows]
    joined = [setup.anatomy.joined(arch, p).indices for arch in archs for p in setup.settings.precisions]
    return np.array(joined, dtype=INDEX).reshape(len(joined), len(setup.space))


def _measured_latency(setup: Setup) -> Callable[[Architecture], float]:
    builder = builder_of(setup)

    def seconds(arch: Architecture) -> float:
        return measure_models([builder.build(arch).model], setup.device, QUICK, setup.store)[0].median_s

    return seconds


def _rounded(trace: dict[str, Any]) -> dict[str, Any]:
    """As JSON, with four digits."""
    entropies = {name: np.round(values, 4).tolist() for name, values in trace["entropy"].items()}
    return {"progress": np.round(trace["progress"], 4).tolist(), "entropy": entropies}
