"""The searchers by name, with what each is; the libraries behind them are loaded when one is made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.searchers.protocol import Searcher
    from search_spaces.space import SearchSpace

_POPULATION = {"population": 20}  # evaluations are few: the libraries' usual hundred would hardly breed


@dataclass(frozen=True)
class SearcherEntry:
    """A searcher.

    Args:
        maker: `module:Class`; None for one that needs more than a space, objectives and a seed.
        options: what the class is given by name besides those.
        least_objectives: how many it needs.
        most_objectives: how many it can weigh against each other; None for any number.
        counts_objectives: whether the class has to know how many there are.
    """

    summary: str
    maker: str | None
    options: Mapping[str, object] = field(default_factory=dict)
    least_objectives: int = 1
    most_objectives: int | None = None
    counts_objectives: bool = True

    def make(self, space: SearchSpace, objectives: int, seed: int) -> Searcher:
        """The searcher.

        Raises:
            ValueError: it needs more than that, or the space is not one for it.
        """
        if self.maker is None:
            raise ValueError(
                f"{self.summary}: made by `nas search` and `nas.optimize`, which have the cost model that it needs"
            )
        module, _, name = self.maker.partition(":")
        given = {"objectives": objectives, **self.options} if self.counts_objectives else self.options
        searcher: Searcher = getattr(importlib.import_module(module), name)(space, seed=seed, **given)
        return searcher


SEARCHERS = {
    "linas": SearcherEntry(
        summary="in rounds: fit predictors, search on predictions, evaluate the best of them (the default)",
        maker=None,
    ),
    "random": SearcherEntry(
        summary="uniform random search",
        maker="nas.searchers.random_search:RandomSearch",
        counts_objectives=False,
    ),
    "exhaustive": SearcherEntry(
        summary="every architecture of a small space, in random order",
        maker="nas.searchers.exhaustive:ExhaustiveSearch",
        counts_objectives=False,
    ),
    "local": SearcherEntry(
        summary="local search, for several objectives Pareto local search, with restarts",
        maker="nas.searchers.local_search:LocalSearch",
        counts_objectives=False,
    ),
    "evolution": SearcherEntry(
        summary="regularized evolution: tournaments in a population that ages",
        maker="nas.searchers.regularized_evolution:RegularizedEvolution",
        counts_objectives=False,
    ),
    "de": SearcherEntry(
        summary="differential evolution in a discretised unit cube, for several objectives as GDE3",
        maker="nas.searchers.differential_evolution:DifferentialEvolution",
        counts_objectives=False,
    ),
    "nsga2": SearcherEntry(
        summary="NSGA-II on real evaluations only",
        maker="nas.searchers.nsga2:NSGA2",
        options=_POPULATION,
    ),
    "nsga3": SearcherEntry(
        summary="NSGA-III: niches along reference directions, for three objectives and more",
        maker="nas.searchers.nsga3:NSGA3",
        options=_POPULATION,
    ),
    "sms-emoa": SearcherEntry(
        summary="SMS-EMOA: the member that adds least hypervolume goes",
        maker="nas.searchers.pymoo_algorithms:NamedPymooSearch",
        options={"algorithm": "sms-emoa"},
        least_objectives=2,
    ),
    "spea2": SearcherEntry(
        summary="SPEA2: strength of domination and nearness to neighbours",
        maker="nas.searchers.pymoo_algorithms:NamedPymooSearch",
        options={"algorithm": "spea2"},
    ),
    "ga": SearcherEntry(
        summary="genetic algorithm, for one objective",
        maker="nas.searchers.pymoo_algorithms:NamedPymooSearch",
        options={"algorithm": "ga"},
        most_objectives=1,
    ),
    "es": SearcherEntry(
        summary="evolution strategy in the unit cube, for one objective",
        maker="nas.searchers.pymoo_algorithms:NamedPymooSearch",
        options={"algorithm": "es"},
        most_objectives=1,
    ),
    "pso": SearcherEntry(
        summary="particle swarm in the unit cube, for one objective",
        maker="nas.searchers.pymoo_algorithms:NamedPymooSearch",
        options={"algorithm": "pso"},
        most_objectives=1,
    ),
    "bananas": SearcherEntry(
        summary="BANANAS: an ensemble of networks, Thompson sampling, mutations of the best",
        maker="nas.searchers.bananas:Bananas",
        counts_objectives=False,
    ),
    "cma-es": SearcherEntry(
        summary="CMA-ES in a discretised unit cube, for one objective",
        maker="nas.searchers.cma_es:CMAES",
        most_objectives=1,
    ),
    "tpe": SearcherEntry(
        summary="tree-structured Parzen estimator, by Optuna",
        maker="nas.searchers.optuna_sampler:OptunaSearch",
        options={"sampler": "tpe"},
    ),
    "gp": SearcherEntry(
        summary="Gaussian process with expected (hypervolume) improvement, by Optuna; seconds for each ask",
        maker="nas.searchers.optuna_sampler:OptunaSearch",
        options={"sampler": "gp", "tries": 1},  # each costs another fit
    ),
    "optuna-nsga2": SearcherEntry(
        summary="NSGA-II as Optuna has it",
        maker="nas.searchers.optuna_sampler:OptunaSearch",
        options={"sampler": "nsga2"},
    ),
    "optuna-nsga3": SearcherEntry(
        summary="NSGA-III as Optuna has it",
        maker="nas.searchers.optuna_sampler:OptunaSearch",
        options={"sampler": "nsga3"},
    ),
}
