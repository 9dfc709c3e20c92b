import pytest

from quant_search.allocate import allocate, problem_of

DAMAGE = {"stem": {"W8A8": 0.1}, "body": {"W8A8": 0.2, "W4A8": 0.5, "W4A4": 0.9}, "tail": {"W8A8": 0.1, "W4A8": 0.3}}
SIZE = {"stem": {"W8A8": 8.0}, "body": {"W8A8": 8.0, "W4A8": 4.0, "W4A4": 4.0}, "tail": {"W8A8": 8.0, "W4A8": 4.0}}


def test_the_best_option_that_all_layers_have_and_a_layer_without_a_choice_keeps_its_own():
    for budget, option in ((24.0, "W8A8"), (20.0, "W4A8")):
        found = allocate(problem_of(DAMAGE, {"size": SIZE}, {"size": budget}), "uniform")
        assert found.choice == {"stem": "W8A8", "body": option, "tail": option}


def test_where_none_fits_what_each_costs_is_said():
    dearer = {"size": SIZE | {"tail": {"W8A8": 4.0, "W4A8": 9.0}}}
    problem = problem_of(DAMAGE, dearer, {"size": 17.0})
    assert allocate(problem).choice["tail"] == "W8A8"
    with pytest.raises(
        ValueError, match=r"no single option keeps size within 17 \(W8A8 20; W4A8 21\): take method 'milp'"
    ):
        allocate(problem, "uniform")
