import numpy as np

from nas.searchers.differential_evolution import DifferentialEvolution
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from tests.nas.searchers.bowl import SPACE, TARGET, evaluate

GATE = Choice("gate", (0, 1))
GATED = SearchSpace("gated", [GATE, Choice("inner", (0, 1, 2), GATE.among(1))])


def generations(searcher, number, objectives=1, bounds=()):
    for _ in range(number):
        rows = searcher.ask(1000)
        searcher.tell(evaluate(rows, objectives, bounds))
    searcher.ask(1)  # which ends the last one
    return [evaluation for _, evaluation in searcher._members]


def test_the_cells_of_the_unit_cube_are_the_options():
    points = np.array([[0.0, 0.9], [0.49, 0.1], [0.5, 0.34], [1.0, 1.0], [0.7, 0.32]])
    assert DifferentialEvolution(GATED, 0)._discretised(points) == [(0, 0), (0, 0), (1, 1), (1, 2), (1, 0)]


def test_a_trial_is_a_scaled_difference_crossed_over_with_its_parent():
    whole = DifferentialEvolution(SPACE, 0, population=6, scale=0.5, crossover=1.0)
    generations(whole, 1)
    points = [point for point, _ in whole._members]
    differences = [a + 0.5 * (b - c) for a in points for b in points for c in points if a is not b and b is not c]
    for trial in whole._trials:
        gap = np.abs(np.array(differences) - trial.point)
        reset = [((d < 0) | (d >= 1)) for d in differences]
        assert any((g[~out] < 1e-12).all() for g, out in zip(gap, reset, strict=True))
        assert ((trial.point >= 0) & (trial.point < 1)).all()
    single = DifferentialEvolution(SPACE, 0, population=6, crossover=0.0)
    generations(single, 1)
    for trial in single._trials:
        assert (trial.point != single._members[trial.parent][0]).sum() == 1


def test_a_trial_replaces_the_parent_that_it_is_no_worse_than():
    searcher = DifferentialEvolution(SPACE, 0, population=6)
    before = [e.costs[0] for e in generations(searcher, 1)]
    trials = list(searcher._trials)
    searcher.tell(evaluate(np.array([t.row for t in trials])))
    searcher._waiting = []
    searcher._select()
    of_trials = [evaluate(np.array([t.row]))[0].costs[0] for t in trials]
    assert sorted(e.costs[0] for _, e in searcher._members) == sorted(map(min, before, of_trials))


def test_it_finds_the_target_and_of_two_objectives_a_front():
    assert TARGET in {e.arch.indices for e in generations(DifferentialEvolution(SPACE, 0), 14)}
    found = {e.costs for e in generations(DifferentialEvolution(SPACE, 0), 14, objectives=2)}
    assert {(0.0, 6.0), (6.0, 0.0)} <= found


def test_infeasible_members_give_way_to_smaller_violations():
    searcher = DifferentialEvolution(SPACE, 0, population=8)
    first, last = (np.mean([e.violation for e in generations(searcher, n, bounds=[0.5])]) for n in (1, 6))
    assert last < first


def test_what_was_told_before_joins_the_first_members():
    searcher = DifferentialEvolution(SPACE, 0, population=8)
    searcher.tell(evaluate(np.array([TARGET])))
    assert len(searcher.ask(100)) == 7
    searcher.tell([])
    searcher.ask(1)
    assert [e.arch.indices for _, e in searcher._members] == [TARGET]
