"""Inherited accuracies: what subnets reach with the supernet's weights, asked for where the front will be.

They are those of the precision with the most bits that blocks may have: where that is not fp32, layers are rounded.

Evenly scaled and random subnets come first; then a guided search, whose latencies are predicted, says which others
are worth a look.  So the accuracy predictor is best where the search needs it (as in LINAS, Cummings et al. 2022).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from nas.anatomy import Anatomy
from nas.objectives import Evaluation, Problem
from nas.predict import Inherited, MetricPredictor, PredictsHardware, fit_accuracy
from nas.progress import Stage
from nas.searchers.linas import LINAS
from nas.searchers.protocol import CostModel
from quant_search.layer_rounding import round_layers_
from quant_search.policy import bits
from search_spaces.network import extract
from search_spaces.space import INDEX, Architecture, SearchSpace
from supernet.atomic import write_json
from supernet.calibrate import calibrated_accuracy_
from supernet.data import Dataset

FILE = "inherited.json"
FIRST, SCALED = 48, 8  # subnets before the first fit, and how many of them are scaled evenly
ROUNDS, A_ROUND = 3, 16  # of the guided search, and subnets in each


class Inheritance:
    """Takes inherited accuracies of one supernet.

    Args:
        architectures: the space without policies, of which `anatomy.space` is a product.
        hardware: predicts all metrics but accuracy.
    """

    def __init__(
        self,
        network: nn.Module,
        architectures: SearchSpace,
        anatomy: Anatomy,
        dataset: Dataset,
        hardware: PredictsHardware,
        problem: Problem,
    ) -> None:
        self.network, self.architectures, self.anatomy = network, architectures, anatomy
        self.dataset, self.problem = dataset, problem
        self._hardware = hardware
        self._precision = max(anatomy.precisions, key=bits)

    def run(self, seed: int, folder: Path, stage: Stage, rounds: int | None = None) -> Inherited:
        """Takes them; what the run's folder holds is not taken again.

        Args:
            rounds: of the guided search, by default `ROUNDS`.
        """
        rounds = ROUNDS if rounds is None else rounds
        stage.expect(FIRST + rounds * A_ROUND)
        file = folder / FILE
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        scaled = np.array([self.architectures.scaled(step / (SCALED - 1)).indices for step in range(SCALED)])
        searcher = LINAS(self.architectures, self._fit, len(self.problem.objectives), seed, FIRST, scaled)
        found: list[Evaluation] = []
        for size in (FIRST, *[A_ROUND] * rounds):
            rows = searcher.ask(size)
            if not len(rows):
                break  # a small space is used up
            for row in rows:
                self._take(row, known, file)
                stage.advance()
            told = self._evaluations(rows, np.array([known[_key(row)] for row in rows]))
            searcher.tell(told)
            found += told
        inherited = self._inherited(found)
        low, high = inherited.val_accuracy.min(), inherited.val_accuracy.max()
        stage.say(f"{len(found)} subnets, {100 * low:.0f}–{100 * high:.0f} %")
        return inherited

    def _take(self, row: np.ndarray, known: dict[str, float], file: Path) -> None:
        key = _key(row)
        if key not in known:
            known[key] = self._accuracy(self.architectures.row(row))
            write_json(file, known)

    def _accuracy(self, arch: Architecture) -> float:
        """Of a subnet in the precision with the most bits."""
        plain, blocks = extract(self.network, arch), self.anatomy.tracer.blocks
        round_layers_(plain, blocks, {block.name: self._precision for block in blocks})
        return calibrated_accuracy_(plain, self.dataset)

    def _evaluations(self, rows: np.ndarray, accuracies: np.ndarray) -> list[Evaluation]:
        """The subnets with their inherited accuracies (n,) and what else is predicted of them."""
        metrics = {**self._hardware.predict(self.anatomy.in_most_bits(rows)), "val_accuracy": accuracies}
        return [
            self.problem.evaluation(
                self.architectures.row(row), {name: values[i] for name, values in metrics.items()}, "inherited"
            )
            for i, row in enumerate(rows)
        ]

    def _fit(self, evaluations: Sequence[Evaluation]) -> CostModel:
        inherited = self._inherited(evaluations)
        predictor = MetricPredictor(
            fit_accuracy(self.anatomy, inherited.population, inherited.val_accuracy), self._hardware
        )
        return lambda rows: self.problem.costs(predictor.predict(self.anatomy.in_most_bits(rows)))

    def _inherited(self, evaluations: Sequence[Evaluation]) -> Inherited:
        rows = np.array([e.arch.indices for e in evaluations], dtype=INDEX)
        return Inherited(self.anatomy.in_most_bits(rows), np.array([e.values["val_accuracy"] for e in evaluations]))


def read_inherited(known: Mapping[str, float], anatomy: Anatomy) -> Inherited:
    """The accuracies that a run's folder holds, in the order taken."""
    rows = np.array([[int(index) for index in key.split()] for key in known], dtype=INDEX)
    joint = rows if rows.shape[1] == len(anatomy.space) else anatomy.in_most_bits(rows)
    return Inherited(joint, np.array(list(known.values())))


def _key(row: np.ndarray) -> str:
    return " ".join(map(str, row.tolist()))
