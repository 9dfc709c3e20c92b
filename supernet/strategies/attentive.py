"""AttentiveNAS: train what is best, or worst, for its cost (Wang et al., arXiv:2011.09011), sections 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from search_spaces.space import Architecture
from supernet.checks import at_least
from supernet.lesson import Costs, Lesson
from supernet.ranking import Ranking, fit_ranking
from supernet.strategy import Strategy, Teaching

if TYPE_CHECKING:
    from supernet.learner import Learner

_POOL = 1024  # architectures drawn once, by whose costs the levels are told apart
_LEVELS = 16  # of cost, each as likely as any other that a step has enough architectures of
_DRAWN = 64  # architectures of a step, of which its candidates are: to count their MACs takes 0.1 ms each


@dataclass(frozen=True)
class Attentive(Strategy):
    """As `Sandwich`, but instead of random architectures the best or the worst of several of one level of cost.

    Args:
        pick: `best` (BestUp) pushes the front ahead, `worst` (WorstUp) lifts what lags behind.
        by: what is best and worst: by the `loss` on the step's batch, or by a `predictor` that is fitted to inherited
            accuracies once the training is half done (by the loss until then).
        candidates: architectures of which one is picked.
        picks: architectures picked in a step.

    Raises:
        ValueError: an unknown `pick` or `by`, fewer than two candidates, or no picks.
    """

    pick: Literal["best", "worst"] = "worst"
    by: Literal["loss", "predictor"] = "loss"
    candidates: int = 3
    picks: int = 2

    def __post_init__(self) -> None:
        if self.pick not in ("best", "worst") or self.by not in ("loss", "predictor"):
            raise ValueError(f"pick is best or worst and by is loss or predictor, got {self.pick!r} and {self.by!r}")
        at_least("candidates", self.candidates, 2)
        at_least("picks", self.picks, 1)

    def start(self, learner: Learner) -> Teaching:
        """As `Strategy.start`.

        Raises:
            ValueError: the learner knows no costs.
        """
        if learner.costs is None:
            raise ValueError("best-up and worst-up need what architectures cost: give costs")
        return _Attention(self, learner, learner.costs)


class _Attention:
    """The steps of one training, and the levels of cost that they draw from."""

    def __init__(self, strategy: Attentive, learner: Learner, costs_of: Costs) -> None:
        self.strategy, self.learner, self.costs_of = strategy, learner, costs_of
        pool = learner.space.sample(_POOL, np.random.default_rng(learner.recipe.seed))
        costs = np.asarray(costs_of(pool), float)
        self.edges = np.linspace(costs.min(), costs.max(), _LEVELS + 1)[1:-1]
        self.ranking: Ranking | None = None

    def step(self, lesson: Lesson) -> float:
        """As `Teaching.step`."""
        if self.strategy.by == "predictor" and self.ranking is None and lesson.progress >= 0.5:
            self.ranking = fit_ranking(self.learner)
        levels = self._levels(lesson)
        picked = [self._pick(levels, lesson) for _ in range(self.strategy.picks)]
        teacher, loss = lesson.learn(lesson.space.largest())
        for arch in (lesson.space.smallest(), *picked):
            lesson.imitate(arch, teacher)
        return loss

    def _levels(self, lesson: Lesson) -> list[np.ndarray]:
        """Architectures drawn for a step, told apart by level of cost: the levels (k, d) that have enough of them.

        In a space so small that none has enough, those that have the most.
        """
        rows = np.unique(lesson.space.sample(_DRAWN, lesson.rng), axis=0)
        level = np.searchsorted(self.edges, np.asarray(self.costs_of(rows), float), side="right")
        levels = [rows[level == i] for i in np.unique(level)]
        enough = min(self.strategy.candidates, max(map(len, levels)))
        return [level for level in levels if len(level) >= enough]

    def _pick(self, levels: list[np.ndarray], lesson: Lesson) -> Architecture:
        """The best or worst of the candidates, no two alike, of a random one of the levels."""
        level = levels[lesson.rng.integers(len(levels))]
        rows = lesson.rng.permutation(level)[: self.strategy.candidates]
        archs = [lesson.space.row(row) for row in rows]
        badness = lesson.losses(archs) if self.ranking is None else -self.ranking.predict(rows)
        best = self.strategy.pick == "best"
        return archs[int(badness.argmin() if best else badness.argmax())]

    def state(self) -> dict[str, Tensor]:
        """As `Teaching.state`."""
        return {} if self.ranking is None else self.ranking.tensors()

    def load_(self, tensors: Mapping[str, Tensor]) -> None:
        """As `Teaching.load_`."""
        self.ranking = Ranking.of(tensors, self.learner.space) if tensors else None
