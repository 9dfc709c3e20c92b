"""Is one search over architecture, precision and channels better than one after the other, at equal evaluations?

python -m experiments.joint --supernet RUN --out DIR [--seeds 3] [--evaluations 48] [--device cpu]

The shared weights are those of a `nas train --sparsity channels`.  Both searches begin with the same device profile
and the same inherited accuracies, predict with the same models, are of the same method, and evaluate as many exported
files.  What stands on either front is then measured carefully, all interleaved.  Hypervolumes are of validation
accuracy against the latency of these files, in one box.  Each seed draws its own inherited subnets and searches.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from experiments.joint.staged import Staged, in_sequence
from latency.harness import CAREFUL, measure_models
from nas.config import Settings
from nas.evaluating import one_by_one
from nas.folder import with_supernet
from nas.journal import Journal
from nas.loop import run_loop
from nas.measuring import count_rounds
from nas.objectives import Evaluation, cost_array
from nas.pareto import front, relative_hypervolume, shared_box
from nas.pipeline import (
    Watched,
    builder_of,
    evaluator_of,
    inherit,
    one_worker,
    profile_device,
    run,
    train,
)
from nas.predict import fit_hardware, fit_metrics
from nas.progress import LiveReporter
from nas.record import Setup
from nas.searchers.linas import LINAS
from nas.searchers.protocol import Searcher
from quant_search.policy import uniform
from search_spaces.densities import dense_twin
from search_spaces.space import Architecture
from supernet.atomic import write_json
from supernet.data import load_data

JOINT, SEQUENTIAL = "joint", "sequential"
_ROUNDS = 1  # of inherited accuracies near the front


def study(setup: Setup, evaluations: int, file: Path) -> dict[str, Any]:
    """Both searches of one seed, and the careful measurements of their fronts."""
    profile = profile_device(setup)
    train(setup)
    inherited = inherit(setup, fit_hardware(setup.anatomy, profile), _ROUNDS)
    space, seed = setup.space, setup.settings.seed
    corners = [uniform(arch, "fp32") for arch in (space.smallest(), space.largest())]
    dense = [dense_twin(arch) for arch in corners]
    fit = Watched(partial(fit_metrics, setup.anatomy, profile, inherited), setup.settings.problem).cost_model
    searchers: dict[str, Searcher] = {
        JOINT: LINAS(space, fit, 2, seed, 2, _rows(corners), inherited.population),
        SEQUENTIAL: Staged(space, in_sequence(evaluations), fit, dense[1], _rows(dense), inherited.population, seed),
    }
    groups = {name: _search(setup, name, searcher, evaluations) for name, searcher in searchers.items()}
    fronts = measured_fronts(setup, groups)
    box = shared_box([cost_array(found) for found in fronts.values()])
    result = {
        "seed": seed,
        "evaluations": {name: len(found) for name, found in groups.items()},
        "quick_hypervolume": _volumes(groups, shared_box([cost_array(found) for found in groups.values()])),
        "hypervolume": _volumes(fronts, box),
        "fronts": {name: [_line(e) for e in sorted(found, key=lambda e: e.costs[1])] for name, found in fronts.items()},
        "settings": setup.settings.digest,
        "held_out_mape": profile.held_out.mape,
    }
    write_json(file, result)
    return result


def measured_fronts(setup: Setup, groups: dict[str, list[Evaluation]]) -> dict[str, list[Evaluation]]:
    """The front of each group with careful latencies, all files of all groups interleaved."""
    builder, problem = builder_of(setup), setup.settings.problem
    every = {e.arch: e for found in groups.values() for e in front(found)}
    with setup.reporter.stage("verify") as stage:
        rounds = count_rounds(stage, len(every))
        files = [builder.build(arch).model for arch in every]
        seconds = [m.median_s for m in measure_models(files, setup.device, CAREFUL, setup.store, rounds)]
    again = {
        arch: problem.evaluation(arch, {**e.values, "latency_s": s}, "verified")
        for (arch, e), s in zip(every.items(), seconds, strict=True)
    }
    return {name: [again[e.arch] for e in front(found)] for name, found in groups.items()}


def _search(setup: Setup, name: str, searcher: Searcher, evaluations: int) -> list[Evaluation]:
    problem = setup.settings.problem
    journal = Journal(setup.folder / f"{name}.log", name, setup.space, problem)
    with setup.reporter.stage(name, evaluations) as stage, one_worker() as executor:
        found = run_loop(
            searcher,
            setup.space,
            problem,
            one_by_one(evaluator_of(setup), executor),
            budget=evaluations,
            batch=max(4, evaluations // 6),
            journal=journal,
            on_evaluation=lambda _: stage.advance(),
        )
    if len(found) < evaluations:
        raise ValueError(f"{name} found {len(found)} networks with {evaluations} evaluations: no fair comparison")
    return found


def _rows(archs: list[Architecture]) -> np.ndarray:
    return np.array([arch.indices for arch in archs])


def _volumes(groups: dict[str, list[Evaluation]], box: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    return {name: relative_hypervolume(cost_array(found), *box) for name, found in groups.items()}


def _line(evaluation: Evaluation) -> dict[str, Any]:
    policy = [v for k, v in evaluation.arch.values.items() if k.endswith(".precision")]
    kept = [float(v) for k, v in evaluation.arch.values.items() if k.endswith(".density")]
    return {
        "val_accuracy": evaluation.values["val_accuracy"],
        "latency_s": evaluation.values["latency_s"],
        "int8_blocks": float(np.mean([p == "int8" for p in policy])),
        "density": float(np.mean(kept)),
        "arch": dict(evaluation.arch.values),
    }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The difference of hypervolumes with its 95 % interval (Student's t over seeds)."""
    gains = np.array([r["hypervolume"][JOINT] - r["hypervolume"][SEQUENTIAL] for r in results])
    half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else None
    return {
        "hypervolume": {n: [round(r["hypervolume"][n], 4) for r in results] for n in (JOINT, SEQUENTIAL)},
        "quick_hypervolume": {n: [round(r["quick_hypervolume"][n], 4) for r in results] for n in (JOINT, SEQUENTIAL)},
        "gain": {"mean": float(gains.mean()), "half_width": half, "all_better": bool((gains > 0).all())},
    }


def _run(arguments: argparse.Namespace, seed: int, file: Path) -> None:
    """The study of one seed, in a run whose folder keeps all that was found."""
    settings = Settings(device=arguments.device, seed=seed, evaluations=arguments.evaluations)
    settings = with_supernet(settings, arguments.supernet)
    dataset = load_data(settings.data, image_size=settings.image_size)
    folder = arguments.out / f"seed-{seed}"
    with LiveReporter(Console(stderr=True)) as reporter:
        stages = lambda setup, _: study(setup, arguments.evaluations, file)  # noqa: E731
        run(settings, settings.space, dataset, folder, reporter, stages=stages)


def main() -> None:
    """Runs every seed that has no result yet, and prints the summary as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supernet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=48)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    results = []
    for seed in range(arguments.seeds):
        file = arguments.out / f"seed-{seed}.json"
        if not file.exists():
            _run(arguments, seed, file)
        results.append(json.loads(file.read_text()))
    print(json.dumps(summary(results), indent=1))


if __name__ == "__main__":
    main()
