"""How faithful a supernet is: whether inherited accuracies rank its subnets as training each of them alone does.

Stand-alone trainings have as many steps as the supernet's, unless epochs are asked for, and begin with the same
pretrained weights if it did. They are kept in the run's folder: a study that was interrupted goes on when its command
is repeated.
"""

from __future__ import annotations

import copy
import csv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas.config import first_line
from nas.folder import FIDELITY, RECORD, alone_in, read_fidelity, read_record, read_training
from nas.progress import Reporter, SilentReporter, Stage
from nas.relaxed import is_relaxed
from nas.report import write_report
from nas.spec import SpaceLike, network_for
from nas.training import Trained, begin_with_, costs_of, open_trained, pace_in, read_history, recipe_of
from search_spaces.network import extract
from search_spaces.space import INDEX, Architecture, SearchSpace
from search_spaces.value import Choice
from supernet.atomic import write_json
from supernet.calibrate import INHERITED_IMAGES, calibration_images, device_of
from supernet.checkpoint import load_averaged_
from supernet.data import Dataset
from supernet.distributed import joined
from supernet.fidelity import Fidelity, advice, extremes, fidelity, gaps, stand_alone, uncalibrated
from supernet.pace import using_threads
from supernet.prefixes import inherited_accuracies
from supernet.recipe import Recipe
from supernet.snapshots import find_snapshots
from supernet.strategies.only import Only

ALONE = "stand-alone"
NETWORKS = 12
_POOL = 1024  # architectures, of which those compared are taken evenly by cost
_LEAST = 5
_LEAST_TRUE = 3  # networks of a table, as of any rank correlation
_OTHER_SEED = 7919  # added to the run's: networks that stand alone begin with other weights than the supernet did


def measure_fidelity(
    folder: Path,
    reporter: Reporter,
    *,
    networks: int = NETWORKS,
    epochs: int | None = None,
    truth: Path | None = None,
    seed: int = 0,
    space: SpaceLike | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Compares inherited with stand-alone accuracies of subnets of a trained run, and writes `fidelity.json` there.

    Args:
        networks: how many are trained alone: the smallest, the middle and the largest, and others evenly by MACs.
        epochs: of each, by default as many steps as the supernet took.
        truth: instead of training, a CSV file of stand-alone accuracies, 0 to 1: a column for each choice, and
            `accuracy`.
        space, dataset: the class and the data, for a run that was started from Python with them.

    Raises:
        ValueError: no finished training, too few networks, a table that cannot be read, or pretrained weights that
            the run began with and that are gone.
    """
    if networks < _LEAST:
        raise ValueError(f"a rank correlation needs at least {_LEAST} networks, got {networks}")
    if is_relaxed(settings := read_training(folder)):
        raise ValueError(
            f"the weights in {folder} are shared by the few networks that strategy {settings.strategy!r} found: "
            "fidelity is asked of a supernet, as `nas train` makes one"
        )
    run = open_trained(folder, space, dataset)
    known = read_truth(truth, run.space) if truth is not None else None
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder))
        recipe = _recipe(run, epochs)
        pace = pace_in(folder, run.network, run.space, run.dataset, recipe, run.settings.autocast)
        stack.enter_context(using_threads(pace.threads))
        recipe = replace(recipe, autocast=pace.autocast)
        archs = compared(run, networks, seed) if known is None else list(known)
        stage = stack.enter_context(reporter.stage("fidelity"))
        device = stack.enter_context(joined())
        run.network.to(device)  # not before the pace is measured and MACs are counted, which is done on the CPU
        alone = _Alone(run, recipe, space, stage).accuracies(archs) if known is None else list(known.values())
        found = _report(run, archs, np.array(alone), seed, stage)
    write_json(folder / FIDELITY, found)
    return found


def fidelity_report(folder: Path) -> Path:
    """Writes the report of a run, or of a training alone, with what is known of its fidelity; gives its path."""
    if (folder / RECORD).exists():
        return write_report(read_record(folder), folder)
    training, history = read_training(folder), read_history(folder)
    trained = {"total_steps": history.total_steps, "seconds": history.final.seconds, "entries": history.plain()}
    return write_report({"settings": training.model_dump(), "training": trained, **read_fidelity(folder)}, folder)


def compared(run: Trained, networks: int, seed: int) -> list[Architecture]:
    """The smallest, the middle and the largest architecture, and `networks` - 3 others evenly by MACs."""
    pool = np.unique(run.space.sample(_POOL, np.random.default_rng(seed)), axis=0)
    costs = costs_of(run.network, run.space, run.dataset)(pool)
    ends = list(dict.fromkeys(extremes(run.space)))
    others = [arch for row in pool[np.argsort(costs, kind="stable")] if (arch := run.space.row(row)) not in ends]
    wanted = min(networks - len(ends), len(others))
    at = np.linspace(0, len(others) - 1, wanted + 2)[1:-1].round().astype(int)
    return [*ends, *(others[i] for i in dict.fromkeys(at.tolist()))]


def read_truth(file: Path, space: SearchSpace) -> dict[Architecture, float]:
    """Stand-alone accuracies of a CSV file with a column for each choice and `accuracy`; empty cells are inactive.

    Raises:
        ValueError: a missing column, a line of more or fewer cells than columns, an option that a choice does not have,
            none where the choice counts, accuracies beyond 0 to 1, a network given twice, or fewer than three.
        OSError: it cannot be read.
    """
    lines: dict[Architecture, int] = {}
    truth: dict[Architecture, float] = {}
    with file.open(newline="") as stream:
        rows = csv.reader(stream)
        columns = next(rows, [])
        missing = [name for name in (*(choice.name for choice in space.choices), "accuracy") if name not in columns]
        if missing:
            raise ValueError(f"{file} has no column {missing[0]!r}" if columns else f"{file} has no rows")
        for cells in rows:
            if cells:
                where = f"{file}, line {rows.line_num}"
                arch, accuracy = _truth_row(where, columns, cells, space)
                if arch in truth:
                    raise ValueError(f"{where}: the network of line {lines[arch]} is given again")
                lines[arch], truth[arch] = rows.line_num, accuracy
    if len(truth) < _LEAST_TRUE:
        raise ValueError(f"{file}: a rank correlation needs at least {_LEAST_TRUE} networks, got {len(truth)}")
    return truth


def _truth_row(
    where: str, columns: Sequence[str], cells: Sequence[str], space: SearchSpace
) -> tuple[Architecture, float]:
    if len(cells) != len(columns):
        raise ValueError(f"{where}: there are {len(columns)} columns, got {len(cells)} cells")
    row = dict(zip(columns, cells, strict=True))
    indices = [_option_index(where, choice, row[choice.name]) for choice in space.choices]
    arch = space.row(np.array(indices, dtype=INDEX))
    if empty := [name for name in arch.values if not row[name]]:
        raise ValueError(f"{where}: choice {empty[0]!r} counts in this network, got an empty cell")
    return arch, _truth_accuracy(where, row["accuracy"])


def _option_index(where: str, choice: Choice, text: str) -> int:
    """The index of an option as it is written, 0 for none."""
    texts = [str(option) for option in choice.options]
    if text and text not in texts:
        raise ValueError(f"{where}: choice {choice.name!r} has options {', '.join(texts)}, got {text!r}")
    return texts.index(text) if text else 0


def _truth_accuracy(where: str, text: str) -> float:
    try:
        accuracy = float(text)
    except ValueError:
        accuracy = float("nan")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"{where}: accuracy must lie between 0 and 1, got {text!r}")
    return accuracy


def _recipe(run: Trained, epochs: int | None) -> Recipe:
    """That of the run, for one architecture alone, with as many steps as the run took or so many epochs."""
    recipe = recipe_of(run.settings, Only(()))
    steps = None if epochs else run.history.total_steps
    return replace(recipe, epochs=epochs, steps=steps, budget_s=None, evaluations=1)


class _Alone:
    """Trains architectures alone, each into a folder of its own, on the device of the run's network."""

    def __init__(self, run: Trained, recipe: Recipe, space: SpaceLike | None, stage: Stage) -> None:
        self.run, self.recipe, self.space, self.stage = run, recipe, space, stage

    def accuracies(self, archs: Sequence[Architecture]) -> list[float]:
        """Validation accuracies of `archs`, in their order."""
        self.stage.expect(len(archs))
        return [self._accuracy(arch) for arch in archs]

    def _accuracy(self, arch: Architecture) -> float:
        recipe = self.recipe
        length = f"{recipe.epochs}-epochs" if recipe.epochs else f"{recipe.steps}-steps"
        folder = self.run.folder / ALONE / length / "-".join(map(str, arch.indices))
        accuracy = stand_alone(self._fresh().to(device_of(self.run.network)), arch, self.run.dataset, recipe, folder)
        self.stage.advance()
        self.stage.say(f"{100 * accuracy:.1f} % alone")
        return accuracy

    def _fresh(self) -> nn.Module:
        settings, dataset = self.run.settings, self.run.dataset
        network, _ = network_for(settings, self.space or settings.space, dataset, settings.seed + _OTHER_SEED)
        if settings.pretrained is not None:
            self._begin_with_pretrained_(network)
        return network

    def _begin_with_pretrained_(self, network: nn.Module) -> None:
        try:
            begin_with_(network, self.run.settings, SilentReporter())
        except (ValueError, OSError) as error:
            raise ValueError(
                f"the run began with the weights of {self.run.settings.pretrained}, and networks that stand alone must "
                f"too: {first_line(error)}"
            ) from error


def _report(run: Trained, archs: list[Architecture], alone: np.ndarray, seed: int, stage: Stage) -> dict[str, Any]:
    inherited = inherited_accuracies(run.network, archs, run.dataset)
    found = fidelity(inherited, alone, seed)
    ends = [archs.index(arch) if arch in archs else None for arch in extremes(run.space)]
    at_ends = ([float(row[i]) for i in ends if i is not None] for row in (inherited, alone))
    apart = None if None in ends else gaps(*at_ends)
    stage.say(f"Kendall tau {found.kendall_tau.value:.2f}")
    return {
        "n": found.n,
        **_correlations(found),
        "gap_points": None if apart is None else asdict(apart),
        "course": _course(run, archs, alone, seed),
        "uncalibrated": _uncalibrated(run),
        "advice": advice(found, apart, images=min(INHERITED_IMAGES, len(run.dataset.x_val))),
        "networks": [
            {"arch": dict(arch.values), "inherited": float(i), "stand_alone": float(a)}
            for arch, i, a in zip(archs, inherited, alone, strict=True)
        ],
    }


def _correlations(found: Fidelity) -> dict[str, Any]:
    tau, rho = found.kendall_tau, found.spearman
    return {
        "kendall_tau": tau.value,
        "kendall_tau_ci95": [tau.low, tau.high],
        "spearman": rho.value,
        "spearman_ci95": [rho.low, rho.high],
    }


def _uncalibrated(run: Trained) -> dict[str, dict[str, int]]:
    """How many batch norms the extremes have, and how many are out of date with the supernet's own statistics.

    That is what calibration repairs in each subnet whose accuracy is taken, and in each that `Trained.extract` gives.
    """
    found = {}
    for name, arch in zip(("smallest", "middle", "largest"), extremes(run.space), strict=True):
        plain = extract(run.network, arch)
        far = uncalibrated(plain, calibration_images(run.dataset))
        found[name] = {"norms": sum(isinstance(m, _BatchNorm) for m in plain.modules()), "out_of_date": len(far)}
    return found


def _course(run: Trained, archs: list[Architecture], alone: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Correlations at each snapshot of the training."""
    network = copy.deepcopy(run.network)
    course = []
    for step, file in find_snapshots(run.folder).items():
        load_averaged_(network, file)
        found = fidelity(inherited_accuracies(network, archs, run.dataset), alone, seed)
        course.append({"step": step, **_correlations(found)})
    return course
