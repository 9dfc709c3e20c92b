"""One step of supernet training, and all that changes in a step: weights, their average, optimizer and strategy state.

The gradients of all architectures that the strategy trains add up to one optimizer step.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from search_spaces.elastic import kernel_transforms_in
from search_spaces.space import SearchSpace
from supernet.augment import erase, mix, shift_and_flip
from supernet.batches import batch_indices, step_generator
from supernet.checkpoint import AVERAGE
from supernet.data import Dataset
from supernet.distributed import average_, mean_of, world
from supernet.importance import ChannelOrder, permute_
from supernet.lesson import Batch, Costs, Lesson, TrainingDiverged
from supernet.recipe import Recipe
from supernet.split import stratified_split

# oneDNN makes a kernel for each shape and keeps 1,024 of them: a supernet has thousands of shapes, and forgot what it
# would soon need again, a tenth of its time.  Read when the first kernel is made.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

_EMA_POWER = 2 / 3


@dataclass(frozen=True)
class StepResult:
    """Loss that the strategy records and learning rate of one step."""

    loss: float
    lr: float


class Learner:
    """A network in training on the device its parameters are on; step `t` depends on the seed and `t` only.

    Args:
        total_steps: length of the learning rate's schedule.
        costs: what architectures cost, for strategies that ask.

    Raises:
        ValueError: the strategy cannot train so.
    """

    def __init__(
        self,
        network: nn.Module,
        space: SearchSpace,
        dataset: Dataset,
        recipe: Recipe,
        total_steps: int,
        costs: Costs | None = None,
    ) -> None:
        self.network, self.space, self.recipe, self.dataset = network, space, recipe, dataset
        self.total_steps, self.costs = total_steps, costs
        self.num_classes, self.flip = dataset.num_classes, dataset.flip
        self.device = next(network.parameters()).device
        if self.device.type in ("cpu", "cuda"):  # a third faster on CPUs, made for tensor cores; no value changes
            network.to(memory_format=torch.channels_last)
        self.x = torch.from_numpy(dataset.x_train).to(self.device)
        self.y = torch.from_numpy(dataset.y_train).to(self.device)
        self._learnt, self._held_out = _shares(dataset, recipe)
        _check_share(min(recipe.batch, len(self._learnt)))
        self.shift = default_shift(min(dataset.image_shape[1:])) if recipe.shift is None else recipe.shift
        self.optimizer = create_optimizer_v2(
            network,
            recipe.optimizer,
            lr=recipe.lr,
            momentum=recipe.momentum,
            param_group_fn=lambda net: param_groups_weight_decay(  # which would pull transforms away from identities
                net, recipe.weight_decay, no_weight_decay_list=kernel_transforms_in(dict(net.named_parameters()))
            ),
        )
        self.scheduler = _schedule(self.optimizer, recipe, total_steps)
        self.ema = ModelEmaV3(
            network, decay=recipe.ema_decay, use_warmup=True, warmup_power=_EMA_POWER, exclude_buffers=True
        )
        self.teaching = recipe.strategy.start(self)

    def step(self, t: int) -> StepResult:
        """Train on batch `t`: the gradients of all sampled architectures add up to one optimizer step.

        Raises:
            TrainingDiverged: a loss or the gradient is not finite; weights and averages are as before the step.
        """
        self.network.train()
        self.scheduler.step_update(t)
        self.optimizer.zero_grad(set_to_none=True)
        rng = step_generator(self.recipe.seed, t)
        with _forked(self.device, rng):
            loss = mean_of(self._take(t, rng), self.device)
        average_([p.grad for p in self.network.parameters() if p.grad is not None])
        self._check(t, "gradient norm", self._clip())
        self.optimizer.step()
        self.ema.update(self.network, step=t + 1)
        return StepResult(loss, self.lr)

    def plan_(self, total_steps: int) -> None:
        """Let the learning rate reach its end after `total_steps` steps."""
        self.total_steps = total_steps
        self.scheduler = _schedule(self.optimizer, self.recipe, total_steps, initialize=False)

    def permute_(self, order: ChannelOrder) -> None:
        """Put channels into another order, and with them their averages and what the optimizer remembers of them."""
        permute_(self.network.state_dict(), order)
        permute_(self.ema.module.state_dict(), order)
        slots = self.optimizer.state
        for key in {key for kept in slots.values() for key, value in kept.items() if _per_weight(value)}:
            kept = {n: slots[p][key] for n, p in self.network.named_parameters() if key in slots.get(p, {})}
            permute_(kept, order)

    @property
    def lr(self) -> float:
        """Learning rate of the step last taken."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights, in evaluation mode."""
        module: nn.Module = self.ema.module
        return module

    def check_weights(self, t: int) -> None:
        """Refuse weights or averages that are not finite after `t` steps, so that they are never kept.

        Raises:
            TrainingDiverged: some are not.
        """
        for module in (self.network, self.averaged):
            peaks = torch.stack([value.detach().abs().max() for value in module.parameters()])
            self._check(t, "largest weight", float(peaks.max()))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Give everything that steps change, as tensors and as JSON values."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"{AVERAGE}{name}": value for name, value in self.ema.module.state_dict().items()}
        tensors |= {f"strategy/{name}": value for name, value in self.teaching.state().items()}
        numbers: dict[str, Any] = {}
        for index, slots in self.optimizer.state_dict()["state"].items():
            for name, value in slots.items():
                (tensors if isinstance(value, Tensor) else numbers)[f"optimizer/{index}/{name}"] = value
        # Some optimizers count their steps in the group; as a tensor or not, it is called so in all of timm's.
        for index, group in enumerate(self.optimizer.param_groups):
            if "step" in group:
                tensors[f"group/{index}/step"] = torch.as_tensor(group["step"])
        return tensors, numbers

    def load_(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take the state that `state` gave back in place.

        Raises:
            ValueError: the state is of another network.
        """
        for prefix, module in (("weights/", self.network), (AVERAGE, self.ema.module)):
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            try:
                module.load_state_dict(own)
            except RuntimeError as error:
                raise ValueError(f"the checkpoint is of another network: {' '.join(str(error).split())}") from error
        kept = "strategy/"
        self.teaching.load_({n.removeprefix(kept): value for n, value in tensors.items() if n.startswith(kept)})
        slots: dict[int, dict[str, Any]] = {}
        groups = self.optimizer.state_dict()["param_groups"]
        for key, value in (*tensors.items(), *numbers.items()):
            if key.startswith(("optimizer/", "group/")):
                kind, index, name = key.split("/", 2)
                place = slots.setdefault(int(index), {}) if kind == "optimizer" else groups[int(index)]
                place[name] = value
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        for p, kept in self.optimizer.state.items():  # files hold them in one order: sums would round in another
            for name, value in kept.items():
                if _per_weight(value) and value.shape == p.shape:
                    kept[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)

    def _take(self, t: int, rng: np.random.Generator) -> float:
        """Let the strategy accumulate the gradients of step `t`, and give its loss."""
        x, target = self._batch(self._learnt, t, rng)
        lesson = Lesson(
            self.network,
            self.space,
            x,
            target,
            rng,
            t / self.total_steps,
            self.recipe.label_smoothing,
            self.recipe.autocast,
            lambda: self._batch(self._held_out, t, rng),
        )
        try:
            return self.teaching.step(lesson)
        except TrainingDiverged as error:
            raise TrainingDiverged(self._diverged(t, str(error))) from error

    def _batch(self, images: np.ndarray, t: int, rng: np.random.Generator) -> Batch:
        """Batch `t` of the images with these indices, changed at random."""
        recipe = self.recipe
        index = torch.from_numpy(images[batch_indices(len(images), recipe.batch, recipe.seed, t)]).to(self.device)
        x = erase(shift_and_flip(self.x[index], self.shift, self.flip, rng), recipe.erase, rng)
        x, target = mix(x, self.y[index], recipe.mixup, self.num_classes, recipe.label_smoothing, rng)
        first, step = world()  # changed as a whole, so that each process has what one alone would give it
        return x[first::step], target[first::step]

    def _clip(self) -> float:
        bound = math.inf if self.recipe.clip is None else self.recipe.clip
        return float(nn.utils.clip_grad_norm_(self.network.parameters(), bound))

    def _check(self, t: int, what: str, value: float) -> float:
        if math.isfinite(value):
            return value
        raise TrainingDiverged(self._diverged(t, f"the {what} is {value}"))

    def _diverged(self, t: int, what: str) -> str:
        return (
            f"training diverged at step {t}: {what} with learning rate {self.lr:.3g}; "
            f"use a lower lr (now {self.recipe.lr:g})"
        )


def _check_share(batch: int) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Raises:
        ValueError: saying which batch would do.
    """
    _, processes = world()
    if batch % processes:
        raise ValueError(
            f"a batch of {batch} images cannot be shared evenly by {processes} processes: give a multiple of them"
        )


def _shares(dataset: Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images that weights learn from, and of those kept from them."""
    share = recipe.strategy.held_out
    if share == 0.0:
        return np.arange(len(dataset.y_train)), np.empty(0, np.int64)
    return stratified_split(dataset.y_train, share, what="held_out")


def _per_weight(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def default_shift(side: int) -> int:
    """Largest random shift in pixels of images with this shorter side: the usual 4 of 32, none below 16."""
    return side // 8 if side >= 16 else 0


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int, initialize: bool = True
) -> CosineLRScheduler:
    """Learning rate by step: up linearly, then a cosine to zero (Loshchilov and Hutter, arXiv:1608.03983).

    The peak is the optimizer's rate now, or without `initialize` that of its first schedule.
    """
    warmup = min(round(recipe.warmup * total_steps), total_steps - 1)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(2, total_steps),
        warmup_t=warmup,
        warmup_lr_init=recipe.lr / (warmup + 1),
        t_in_epochs=False,
        initialize=initialize,
    )


@contextlib.contextmanager
def _forked(device: torch.device, rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's own generators, which dropout draws from, inside the block only."""
    seed = int(rng.integers(2**63))
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
