"""The usual way: first an architecture, then fewer channels, then precisions.

Each stage is a LINAS of its own, with the predictors of the joint search; only what is free differs.  A later stage
chooses among the front of all that was found before it, and what it decides of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.objectives import Evaluation
from nas.pareto import front
from nas.searchers.linas import LINAS
from nas.searchers.protocol import CostModel
from quant_search.policy import SUFFIX as PRECISION
from search_spaces.densities import SUFFIX as DENSITY
from search_spaces.space import INDEX, Architecture, SearchSpace
from search_spaces.value import Choice

PARENT = "parent"
_OBJECTIVES = 2


@dataclass(frozen=True)
class Stage:
    """What is decided at once: the choices whose names end so, and how many evaluations are spent on them."""

    suffix: str
    evaluations: int


def in_sequence(evaluations: int) -> tuple[Stage, ...]:
    """Channels, then precisions, with a third of the evaluations each; the first third is the architecture's."""
    third = evaluations // 3
    return (Stage("", evaluations - 2 * third), Stage(DENSITY, third), Stage(PRECISION, third))


class Staged:
    """Decides stage by stage.

    Args:
        fit: from all evaluations so far to a cost model.
        base: where what no stage has decided yet stands: all channels, fp32.
        anchors: architectures (n, d) that the first stage begins with.
        known: architectures (n, d) that are candidates of the first stage, as those of the joint search are.
    """

    def __init__(
        self,
        space: SearchSpace,
        stages: Sequence[Stage],
        fit: Callable[[Sequence[Evaluation]], CostModel],
        base: Architecture,
        anchors: np.ndarray,
        known: np.ndarray,
        seed: int,
    ) -> None:
        self._space, self._fit, self._seed = space, fit, seed
        self._left = list(stages)
        self._spent = 0
        self._told: list[Evaluation] = []
        self._part = _Architectures(space, base)
        self._searcher = self._searching(len(anchors), self._part.own(anchors), self._part.own(known))

    def _searching(self, initial: int, anchors: np.ndarray | None, known: np.ndarray | None) -> LINAS:
        def fitted(_: Sequence[Evaluation]) -> CostModel:
            model = self._fit(tuple(self._told))
            return lambda rows: model(self._part.lifted(rows))

        return LINAS(self._part.space, fitted, _OBJECTIVES, self._seed, initial, anchors, known)

    def ask(self, n: int) -> np.ndarray:
        """The next architectures (≤ n, d), none of two stages together."""
        while self._left:
            rows = self._searcher.ask(min(n, self._left[0].evaluations - self._spent))
            if len(rows):
                self._spent += len(rows)
                return self._part.lifted(rows)
            self._go_on()
        return np.zeros((0, len(self._space)), dtype=INDEX)

    def _go_on(self) -> None:
        """Begins the next stage, which may spend what the last one left."""
        over = self._left.pop(0).evaluations - self._spent
        if self._left:
            self._left[0] = replace(self._left[0], evaluations=self._left[0].evaluations + over)
            parents = front(self._told)
            self._part = _Around(self._space, [e.arch for e in parents], self._left[0].suffix)
            self._spent, self._searcher = 0, self._searching(0, None, None)
            self._searcher.tell([self._part.evaluation(e) for e in parents])

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes evaluations to fit on."""
        self._told.extend(evaluations)
        self._searcher.tell([self._part.evaluation(e) for e in evaluations])


class _Architectures:
    """The part of a joint space in which nothing is decided but the architecture."""

    def __init__(self, space: SearchSpace, base: Architecture) -> None:
        self._whole, self._base = space, np.array(base.indices, dtype=INDEX)
        self._columns = [j for j, c in enumerate(space.choices) if not c.name.endswith((PRECISION, DENSITY))]
        self.space = SearchSpace("architectures", [space.choices[j] for j in self._columns])

    def lifted(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, k) as rows of the whole space (n, d)."""
        whole = np.tile(self._base, (len(rows), 1))
        whole[:, self._columns] = rows
        return self._whole.canonical(whole)

    def own(self, whole: np.ndarray) -> np.ndarray:
        """Rows of the whole space (n, d) as rows of this one (n, k)."""
        return np.unique(self.space.canonical(whole[:, self._columns]), axis=0)

    def evaluation(self, evaluation: Evaluation) -> Evaluation:
        """The same of the row of this space."""
        row = np.array([evaluation.arch.indices], dtype=INDEX)
        return replace(evaluation, arch=self.space.row(self.own(row)[0]))


class _Around:
    """The part of a joint space with one of some architectures and what one kind of choice decides of it."""

    def __init__(self, space: SearchSpace, parents: Sequence[Architecture], suffix: str) -> None:
        self._whole = space
        self._parents = np.array([arch.indices for arch in parents], dtype=INDEX)
        parent = Choice(PARENT, tuple(range(len(parents))))
        active = space.active(np.asfortranarray(self._parents))
        self._columns, choices = list[int](), [parent]
        for j, choice in enumerate(space.choices):
            there = np.flatnonzero(active[:, j]).tolist()
            if choice.name.endswith(suffix) and there:
                self._columns.append(j)
                choices.append(Choice(choice.name, choice.options, parent.among(*there), self._offered(parent, j)))
        self.space = SearchSpace("around", choices)

    def _offered(self, parent: Choice, j: int) -> tuple[object, ...]:
        """The parents with which each option of a choice stays as it is."""
        offers: list[object] = []
        for index in range(len(self._whole.choices[j].options)):
            rows = self._parents.copy()
            rows[:, j] = index
            stay = np.flatnonzero(self._whole.canonical(rows)[:, j] == index).tolist()
            offers.append(parent.among(*stay) if len(stay) < len(rows) and stay else ())
        return (*offers[:-1], ())

    def lifted(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, k) as rows of the whole space (n, d)."""
        whole = self._parents[rows[:, 0]].copy()
        whole[:, self._columns] = rows[:, 1:]
        return self._whole.canonical(whole)

    def evaluation(self, evaluation: Evaluation) -> Evaluation:
        """The same of the row of this space: of the parent with which it agrees in all that is not free."""
        row = np.array(evaluation.arch.indices, dtype=INDEX)
        others = np.delete(np.arange(len(row)), self._columns)
        parent = int(np.flatnonzero((self._parents[:, others] == row[others]).all(axis=1))[0])
        return replace(evaluation, arch=self.space.row(np.array([parent, *row[self._columns]], dtype=INDEX)))
