import numpy as np
import pytest

from nas.searchers.cma_es import CMAES
from tests.nas.searchers.bowl import SPACE, TARGET, evaluate, tuples


def search(seed=0, bounds=(), budget=96):
    searcher, found = CMAES(SPACE, 1, seed), []
    while len(found) < budget:
        rows = searcher.ask(12)
        told = evaluate(rows, bounds=bounds)
        searcher.tell(told)
        found += told
    return found, searcher


@pytest.mark.parametrize("bounds", [(), (0.5,)])  # met by the target alone
def test_it_finds_the_target(bounds):
    found, _ = search(bounds=bounds)
    assert TARGET in {e.arch.indices for e in found}


def test_deviations_stay_wide_enough_to_leave_a_cell():
    searcher = CMAES(SPACE, 1, 0)
    for _ in range(60):  # without cells, it would close in on the point
        searcher._generation = searcher._algorithm.ask()
        distances = ((searcher._generation.get("X") - 0.6) ** 2).sum(axis=1)
        searcher._advance(distances[:, None], np.zeros(len(distances)))
    assert (searcher._algorithm._strategy.stds >= 0.3 / SPACE.cardinalities * 0.99).all()


def test_a_strategy_that_has_converged_begins_again_elsewhere(monkeypatch):
    searcher = CMAES(SPACE, 1, 0)
    searcher.tell(evaluate(searcher.ask(12)))
    before = searcher._algorithm._strategy
    monkeypatch.setattr(type(before), "stop", lambda self: {"tolx": 1e-11})
    assert len(tuples(searcher.ask(12))) and searcher._algorithm._strategy is not before
    assert not np.allclose(searcher._algorithm._strategy.x0, 0.5)


def test_several_objectives_are_refused():
    with pytest.raises(ValueError, match="CMA-ES has one objective, got 2: take another searcher"):
        CMAES(SPACE, 2, 0)
