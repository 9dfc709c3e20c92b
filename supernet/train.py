"""Training of a supernet by any strategy, resumable: on CPUs to the bit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search_spaces.network import find_space
from search_spaces.space import SearchSpace
from supernet.atomic import remove_parts
from supernet.checkpoint import FILE_NAME, Checkpoint, load_checkpoint, save_checkpoint
from supernet.data import Dataset
from supernet.distributed import first_says, world
from supernet.history import Entry, History, entries_from
from supernet.learner import Learner
from supernet.lesson import Costs, TrainingDiverged
from supernet.plan import Plan, evaluate, make_plan, shortened
from supernet.recipe import Recipe
from supernet.snapshots import write_snapshot

__all__ = ["Recipe", "TrainState", "TrainingDiverged", "train_supernet"]


_WINDOW = 10  # of the history's entries, over which the speed is looked at


@dataclass(frozen=True)
class TrainState:
    """What a progress callback sees after each step; `entry` is the history's newest, None before the first."""

    step: int
    total_steps: int
    seconds: float
    loss: float
    lr: float
    entry: Entry | None


Progress = Callable[[TrainState], None]


def train_supernet(
    network: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path | None = None,
    progress: Progress | None = None,
    *,
    costs: Costs | None = None,
    snapshots: bool = False,
    checkpoint_every_s: float = 20.0,
) -> History:
    """Train the shared weights of `network` in place, which ends with the averaged weights.

    Each step trains the architectures that the recipe's strategy says on one batch. With `folder`, the state is
    saved there at the start, every `checkpoint_every_s` seconds and at the end, and a training found there is
    resumed: after a kill at any moment the weights come out bit for bit as if nothing had happened, given the same
    machine, thread count and library versions, and no time budget that the machine turned out too slow for (then
    the plan is cut as time goes by). That is so on CPUs; on GPUs weights differ by rounding even from run to run, since
    some of their operators add in any order. One process at a time may train into a folder.
    A finished training is loaded without a step. Runs on the device of the network's parameters.

    Args:
        costs: what architectures cost, for strategies that ask.
        snapshots: also keep the averaged weights of every evaluation, below `folder`.

    Raises:
        ValueError: a checkpoint of another recipe, data set, space or network, or a network without choices.
        TrainingDiverged: a loss or gradient is not finite; the last good checkpoint stays.
        OSError: a checkpoint cannot be written; the one before stays.
    """
    try:
        return _train(network, dataset, recipe, folder, progress, costs, snapshots, checkpoint_every_s)
    finally:
        network.to(memory_format=torch.contiguous_format)


def _train(
    network: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path | None,
    progress: Progress | None,
    costs: Costs | None,
    snapshots: bool,
    checkpoint_every_s: float,
) -> History:
    run = _open(network, dataset, recipe, folder, costs)
    if world()[0] > 0:
        folder = None  # the first process keeps what all of them have
    if folder is not None and run.step == 0:
        run.save(folder)
    saved_s = run.seconds
    while run.step < run.plan.total_steps:
        state = run.advance()
        if folder is not None and snapshots and run.plan.evaluates(run.step):
            write_snapshot(run.learner.averaged, folder, run.step)
        if folder is not None and (run.finished or run.seconds - saved_s >= checkpoint_every_s):
            run.save(folder)
            saved_s = run.seconds
        if progress is not None:
            progress(state)
    run.learner.check_weights(run.step)
    network.load_state_dict(run.learner.averaged.state_dict())
    return History(run.plan.total_steps, tuple(run.entries))


class _Run:
    """A training under way: a learner, how far it is, and its history."""

    def __init__(self, learner: Learner, dataset: Dataset, plan: Plan, identity: Mapping[str, Any]) -> None:
        self.learner, self.dataset, self.plan, self.identity = learner, dataset, plan, identity
        self.step = 0
        self.entries: list[Entry] = []
        self.losses: list[float] = []
        self.started_s = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of all sessions so far."""
        return time.perf_counter() - self.started_s

    @property
    def finished(self) -> bool:
        """Whether the last step is taken."""
        return self.step == self.plan.total_steps

    def advance(self) -> TrainState:
        """Take one step and record it where the plan says."""
        result = self.learner.step(self.step)
        self.step += 1
        self.losses.append(result.loss)
        if self.plan.records(self.step):
            self.record()
            self._keep_time()
        newest = self.entries[-1] if self.entries else None
        return TrainState(self.step, self.plan.total_steps, self.seconds, result.loss, result.lr, newest)

    def record(self) -> None:
        """Add an entry, with validation accuracies where the plan says."""
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        entry = Entry(self.step, self.seconds, loss, self.learner.lr)
        if self.plan.evaluates(self.step):
            largest, smallest = evaluate(
                self.learner.averaged, self.learner.space, self.dataset, self.learner.recipe.strategy
            )
            entry = replace(entry, seconds=self.seconds, val_largest=largest, val_smallest=smallest)
        self.entries.append(entry)
        self.losses = []

    def _keep_time(self) -> None:
        """Cut the plan where the last tenth of it says that the budget will not do."""
        budget_s = self.learner.recipe.budget_s
        if budget_s is None or self.finished or len(self.entries) <= _WINDOW:
            return
        before = self.entries[-_WINDOW - 1]
        step_s = (self.seconds - before.seconds) / (self.step - before.step)
        plan = first_says(shortened(self.plan, self.step, step_s, budget_s - self.seconds))
        if plan != self.plan:
            self.plan = plan
            self.learner.plan_(plan.total_steps)

    def save(self, folder: Path) -> None:
        """Write the checkpoint, if the weights are fit to be kept."""
        self.learner.check_weights(self.step)
        tensors, numbers = self.learner.state()
        meta = {
            "identity": self.identity,
            "plan": asdict(self.plan),
            "step": self.step,
            "seconds": self.seconds,
            "entries": History(self.plan.total_steps, tuple(self.entries)).plain(),
            "losses": self.losses,
            "optimizer": numbers,
        }
        save_checkpoint(Checkpoint(tensors, meta), folder / FILE_NAME)

    def load_(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        meta = checkpoint.meta
        self.learner.load_(checkpoint.tensors, meta["optimizer"])
        self.step, self.losses = meta["step"], list(meta["losses"])
        self.entries = entries_from(meta["entries"])
        self.started_s = time.perf_counter() - meta["seconds"]


def _open(network: nn.Module, dataset: Dataset, recipe: Recipe, folder: Path | None, costs: Costs | None) -> _Run:
    """Start a run, or find it in `folder`."""
    started_s = time.perf_counter()
    space = find_space(network)
    identity = _identity(space, dataset, recipe)
    if folder is not None and world()[0] == 0:
        remove_parts(folder / FILE_NAME)
    if folder is not None and first_says((folder / FILE_NAME).exists()):
        checkpoint = load_checkpoint(folder / FILE_NAME)
        _check_same(checkpoint.meta["identity"], identity, folder)
        plan = Plan(**checkpoint.meta["plan"])
        run = _Run(Learner(network, space, dataset, recipe, plan.total_steps, costs), dataset, plan, identity)
        run.load_(checkpoint)
        return run
    plan = first_says(make_plan(network, space, dataset, recipe, costs))
    run = _Run(Learner(network, space, dataset, recipe, plan.total_steps, costs), dataset, plan, identity)
    run.started_s = started_s
    run.record()
    return run


def _identity(space: SearchSpace, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    choices = hashlib.blake2b(repr(space.choices).encode(), digest_size=8).hexdigest()
    settings = {**asdict(recipe), "strategy": repr(recipe.strategy)}
    return {"recipe": settings, "data": dataset.fingerprint, "space": choices}


def _check_same(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume another training, naming what differs."""
    advice = f"; give the same, or another folder than {folder} to train anew"
    recipe = expected["recipe"]
    for name in (*recipe, *(key for key in found["recipe"] if key not in recipe)):
        was, now = found["recipe"].get(name), recipe.get(name)
        if was != now:
            raise ValueError(f"cannot resume: recipe {name} was {was}, got {now}{advice}")
    for key, what in (("data", "data fingerprint"), ("space", "search space digest")):
        if found[key] != expected[key]:
            raise ValueError(f"cannot resume: {what} was {found[key]}, got {expected[key]}{advice}")
