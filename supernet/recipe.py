"""What a supernet training is: every number that the resulting weights depend on, but data and network."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field

from supernet.catalog import OPTIMIZERS
from supernet.checks import at_least, expect
from supernet.strategies.sandwich import Sandwich
from supernet.strategy import Strategy


@dataclass(frozen=True)
class Recipe:
    """Settings of `train_supernet`; the defaults were chosen by validation accuracy on small images.

    Args:
        epochs: passes over the training images; may be left out when `steps` or `budget_s` is given.
        steps: how many; of all lengths that are given, the one of fewest steps counts.
        budget_s: seconds that the whole training may take, turned into a number of steps once, at its start.
        batch: images per step; the last incomplete batch of an epoch is dropped.
        lr: peak learning rate, reached after `warmup` (a share of the steps) and then lowered as a cosine to zero.
        weight_decay: on weights of two or more dimensions; norms and biases have none.
        optimizer: a name in `OPTIMIZERS`.
        momentum: of `sgd` only, Nesterov's.
        label_smoothing: of the labels, for the networks that learn from them.
        strategy: which architectures a step trains, and what they learn from.
        ema_decay: upper bound of the decay of the weights' moving average, 0 for none.
        clip: bound on the norm of the whole gradient, None for none.
        shift: largest random shift in pixels, None for an eighth of the image's shorter side, and
            for no shift below 16 pixels, where it costs more accuracy than it brings.
        erase: probability that a rectangle of a training image is erased.
        mixup: alpha of mixup's Beta(alpha, alpha), 0 for none.
        evaluations: how often validation accuracy is taken after the start; fewer if they would cost over a
            tenth of `budget_s`.
        autocast: whether forward passes compute in bfloat16 where torch deems it safe.
        seed: of every random draw.

    Raises:
        ValueError: a value outside its range, or none of `epochs`, `steps` and `budget_s`.
    """

    strategy: Strategy = field(default_factory=Sandwich)
    epochs: int | None = None
    steps: int | None = None
    budget_s: float | None = None
    batch: int = 32
    lr: float = 0.2
    weight_decay: float = 1e-4
    optimizer: str = "sgd"
    momentum: float = 0.9
    warmup: float = 0.05
    label_smoothing: float = 0.05
    ema_decay: float = 0.999
    clip: float | None = 5.0
    shift: int | None = None
    erase: float = 0.0
    mixup: float = 0.0
    evaluations: int = 8
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None and self.budget_s is None:
            raise ValueError("a recipe needs epochs, steps or budget_s, got none of them")
        if self.optimizer not in OPTIMIZERS:
            near = difflib.get_close_matches(self.optimizer, OPTIMIZERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown optimizer {self.optimizer!r}{hint} Known: {', '.join(OPTIMIZERS)}")
        counts = {"epochs": 1, "steps": 1, "batch": 2, "shift": 0, "evaluations": 1, "seed": 0}
        for name, low in counts.items():
            if (value := getattr(self, name)) is not None:
                at_least(name, value, low)
        for name in ("budget_s", "lr", "clip"):
            expect(name, getattr(self, name), "finite and above 0", lambda v: 0 < v < math.inf)
        for name in ("weight_decay", "mixup"):
            expect(name, getattr(self, name), "finite and at least 0", lambda v: 0 <= v < math.inf)
        for name in ("label_smoothing", "ema_decay", "warmup"):
            expect(name, getattr(self, name), "at least 0 and below 1", lambda v: 0 <= v < 1)
        expect("momentum", self.momentum, "above 0 and below 1", lambda v: 0 < v < 1)
        expect("erase", self.erase, "between 0 and 1", lambda v: 0 <= v <= 1)
