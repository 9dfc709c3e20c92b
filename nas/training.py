"""The training of a supernet, as a stage of a search and as a run of its own from which searches go on."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from latency.blocks import BlockTracer
from nas.anatomy import Anatomy
from nas.config import Training
from nas.folder import alone_in, check_disk, open_folder, read_training
from nas.progress import Reporter, SilentReporter
from nas.spec import SpaceLike, network_for, space_fingerprint
from nas.weights import run_data, trained_network
from quant_search.for_all import QuantizedForAll
from search_spaces.network import extract, find_space
from search_spaces.space import Architecture, SearchSpace
from supernet.atomic import write_bytes, write_json
from supernet.calibrate import calibrate_, calibration_images, inherited_accuracy
from supernet.catalog import STRATEGIES
from supernet.checkpoint import FILE_NAME, load_averaged_, load_checkpoint
from supernet.data import Dataset
from supernet.distributed import first_says, joined, world
from supernet.history import History, entries_from
from supernet.lesson import Costs
from supernet.pace import Pace, measured_pace, using_threads
from supernet.recipe import Recipe
from supernet.relaxed.search import Relaxed
from supernet.strategy import Strategy

if TYPE_CHECKING:
    from supernet.train import TrainState

PACE_FILE = "pace.json"


@dataclass(frozen=True)
class Trained:
    """A finished training of a supernet.

    Args:
        network: with the averaged weights.
    """

    folder: Path
    settings: Training
    network: nn.Module
    space: SearchSpace
    dataset: Dataset
    history: History

    def accuracy(self, arch: Architecture) -> float:
        """Inherited validation accuracy, 0 to 1, of an architecture whose batch norms are calibrated first."""
        return inherited_accuracy(self.network, arch, self.dataset)

    def extract(self, arch: Architecture) -> nn.Module:
        """The subnet of an architecture in plain torch layers, calibrated."""
        plain = extract(self.network, arch)
        calibrate_(plain, calibration_images(self.dataset))
        return plain

    def plain(self) -> dict[str, Any]:
        """What `nas train --json` prints."""
        return {
            "run": str(self.folder),
            "settings": self.settings.model_dump(),
            "total_steps": self.history.total_steps,
            "seconds": self.history.final.seconds,
            "val_accuracy": {"largest": self.history.final.val_largest, "smallest": self.history.final.val_smallest},
            "entries": self.history.plain(),
        }


def train_run(
    settings: Training,
    space: SpaceLike,
    dataset: Dataset,
    folder: Path,
    reporter: Reporter,
    strategy: Strategy | None = None,
) -> Trained:
    """Trains a supernet into a run folder, or what is left of it to train.

    Args:
        strategy: a value instead of the name in `settings`.

    Raises:
        ValueError: settings that cannot be met, checked before anything is written.
        OSError: the folder cannot be written.
    """
    if isinstance(strategy, Relaxed):
        raise ValueError(
            f"{type(strategy).__name__} searches as it trains, and a training alone ends with no architecture: "
            "nas.search(strategy=NAME) goes on to measured files"
        )
    recipe = recipe_of(settings, strategy)
    network, found = network_for(settings, space, dataset)
    settings = settings.model_copy(update={"space_fingerprint": space_fingerprint(space, network, found)})
    if settings.pretrained is not None:
        settings = begin_with_(network, settings, reporter)
    with joined(), ExitStack() as stack:
        _check_trainable(*in_all_precisions(network, found, settings), dataset, recipe)
        first = world()[0] == 0
        if first:
            check_disk(folder)
            open_folder(folder, settings)
            stack.enter_context(alone_in(folder))
        pace = first_says(pace_in(folder, network, found, dataset, recipe, settings.autocast) if first else _NO_PACE)
        stack.enter_context(using_threads(pace.threads))
        recipe = replace(recipe, autocast=pace.autocast)
        in_all, joint = in_all_precisions(network, found, settings)
        history = train_stage(recipe, in_all, joint, dataset, folder, reporter, snapshots=True)
    return Trained(folder, settings, network, found, dataset, history)


def _check_trainable(network: nn.Module, space: SearchSpace, dataset: Dataset, recipe: Recipe) -> None:
    """Refuses what a learner refuses, such as a batch that the processes cannot share; `network` is not changed.

    Raises:
        ValueError: with what to give instead.
    """
    from supernet.learner import Learner  # here, since timm takes seconds to load

    scratch = copy.deepcopy(network)
    recipe.strategy.prepare_(scratch)
    free = lambda rows: np.zeros(len(rows))  # noqa: E731 (MACs take seconds to count, and decide nothing here)
    Learner(scratch, space, dataset, recipe, total_steps=1, costs=free)


def in_all_precisions(network: nn.Module, space: SearchSpace, settings: Training) -> tuple[nn.Module, SearchSpace]:
    """What the settings train, and its space: the network itself, or one that shares its weights and rounds.

    Whatever is trained, the checkpoint holds the network's weights under their own names.
    """
    if not settings.train_precisions:
        return network, space
    in_all = QuantizedForAll(network, settings.train_precisions)
    return in_all, find_space(in_all, space.name)


def begin_with_(network: nn.Module, settings: Training, reporter: Reporter) -> Training:
    """Gives a fresh network pretrained weights, and says what became of them; the settings, with their digest.

    Raises:
        ValueError: the space does not contain the pretrained network, or its weights are not to be had.
    """
    from supernet.pretrained import load_pretrained_  # here, since timm takes seconds to load

    source = Path(str(settings.pretrained))
    taken = load_pretrained_(network, source / FILE_NAME if source.is_dir() else str(settings.pretrained))
    if world()[0] == 0:
        reporter.message(f"{source} is a supernet" if taken.whole else f"{source} is {taken.arch}")
        if taken.undetermined:
            reporter.message(f"not told by its shapes: {', '.join(taken.undetermined)}")
        if taken.left:
            reporter.message(f"{taken.left} has other outputs, and begins anew")
    digest = hashlib.blake2b(digest_size=8)
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return settings.model_copy(update={"pretrained_fingerprint": digest.hexdigest()})


def train_stage(
    recipe: Recipe,
    network: nn.Module,
    space: SearchSpace,
    dataset: Dataset,
    folder: Path,
    reporter: Reporter,
    snapshots: bool = False,
    name: str = "train",
) -> History:
    """Trains a network in place, shown as a stage of this name, with TensorBoard event files.

    It goes to a GPU for that if there is one, and comes back.
    """
    from nas.tensorboard import Events  # here, since these take seconds to load
    from supernet.train import train_supernet

    with ExitStack() as stack:
        first = world()[0] == 0
        stage = stack.enter_context((reporter if first else SilentReporter()).stage(name))
        events = stack.enter_context(Events(folder)) if first else None
        done = 0

        def show(state: TrainState) -> None:
            nonlocal done
            stage.expect(state.total_steps)
            stage.advance(state.step - done)
            done = state.step
            if events is not None:
                events.note(state)
            entry = state.entry
            if entry is not None and entry.val_largest is not None and entry.val_smallest is not None:
                stage.say(f"largest {100 * entry.val_largest:.1f} %, smallest {100 * entry.val_smallest:.1f} %")

        recipe.strategy.prepare_(network)
        costs = costs_of(network, space, dataset)
        with joined() as device:
            network.to(device)
            history = train_supernet(network, dataset, recipe, folder, show, costs=costs, snapshots=snapshots)
        network.to("cpu")
        return history


def open_trained(folder: Path, space: SpaceLike | None = None, dataset: Dataset | None = None) -> Trained:
    """A finished training: a run of `nas train`, or the training of a search.

    Args:
        space, dataset: the class and the data, for a run that was started from Python with them.

    Raises:
        ValueError: there is none, it has not ended, or its space or data have changed since.
    """
    settings = read_training(folder)
    history = read_history(folder)
    dataset = run_data(settings, dataset)
    network, found = trained_network(folder, settings, dataset, space)
    return Trained(folder, settings, network, found, dataset, history)


def read_history(folder: Path) -> History:
    """The history of the finished training in `folder`.

    Raises:
        ValueError: there is none, or it has not ended.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise ValueError(f"{folder} holds no trained supernet ({FILE_NAME}): give the folder of `nas train`")
    meta = load_checkpoint(file).meta
    if meta["step"] < meta["plan"]["total_steps"]:
        raise ValueError(
            f"the training in {folder} stands at step {meta['step']} of {meta['plan']['total_steps']}: repeat its "
            "command to end it"
        )
    return History(meta["plan"]["total_steps"], tuple(entries_from(meta["entries"])))


def take_weights(folder: Path, source: Path, network: nn.Module) -> History:
    """Gives `network` the weights of the training in `source`, and the run in `folder` its checkpoint."""
    if not (folder / FILE_NAME).exists():
        write_bytes(folder / FILE_NAME, (source / FILE_NAME).read_bytes())
    load_averaged_(network, folder / FILE_NAME)
    return read_history(folder)


def costs_of(network: nn.Module, space: SearchSpace, dataset: Dataset) -> Costs:
    """What architectures cost, for strategies that ask: their MACs. Most do not, so nothing is traced before.

    Of a network that rounds, they are multiplied by the bits of what they multiply: an architecture in fp32 is no
    match for one of as many MACs in two bits.
    """
    if isinstance(network, QuantizedForAll):
        tracer = BlockTracer(network.network, dataset.image_shape)
        return Anatomy(space, tracer, network.precisions).bit_operations

    @functools.cache
    def anatomy() -> Anatomy:
        return Anatomy(space, BlockTracer(network, dataset.image_shape), ("fp32",))

    def macs(population: np.ndarray) -> np.ndarray:
        counted: np.ndarray = anatomy().counts(population)[:, 0]
        return counted

    return macs


def recipe_of(settings: Training, strategy: Strategy | None = None, share: float = 1.0) -> Recipe:
    """How a run trains.

    Args:
        share: of the time budget that the training gets.
    """
    recipe = Recipe(
        strategy=strategy or STRATEGIES[settings.strategy].make(),
        epochs=settings.epochs,
        budget_s=None if settings.epochs else share * settings.budget_s,
        seed=settings.seed,
    )
    given: dict[str, Any] = {name: getattr(settings, name) for name in _RECIPE}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


_RECIPE = ("batch", "lr", "optimizer", "weight_decay", "label_smoothing", "ema_decay", "clip", "mixup", "erase")


_NO_PACE = Pace(1, False)  # of processes that wait to be told


def pace_in(
    folder: Path, network: nn.Module, space: SearchSpace, dataset: Dataset, recipe: Recipe, autocast: bool | None
) -> Pace:
    """How a run's training computes: tried once a run, since rounding and the order of sums depend on it.

    Args:
        autocast: whether in bfloat16; None for what is faster.
    """
    file = folder / PACE_FILE
    if not file.exists():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        pace = measured_pace(network, space, dataset.image_shape, recipe.batch, autocast, device)
        write_json(file, asdict(pace))
    return Pace(**json.loads(file.read_text()))
