import math

import numpy as np
import pytest

from quant_search.allocate import Pair, Problem, Table, problem_of, without_gains
from quant_search.allocation.problem import alike

DAMAGE = {"stem": {"int8": 0.2, "fp32": 0.0}, "head": {"int8": 0.1, "fp32": 0.0, "int4": 0.7}}
TIME = {"stem": {"int8": 1.0, "fp32": 3.0}, "head": {"int8": 2.0, "fp32": 4.0, "int4": 1.5}}
CONVERSIONS = {("stem", "head"): {("fp32", "int8"): 0.5, ("int8", "fp32"): 0.25}}


def test_sums_are_of_layers_and_pairs():
    problem = problem_of(DAMAGE, {"time": TIME}, pairs={"time": CONVERSIONS})
    assert problem.options == (("int8", "fp32"), ("int8", "fp32", "int4"))
    found = problem.allocation([1, 0])
    assert found.choice == {"stem": "fp32", "head": "int8"}
    assert found.damage == 0.1
    assert found.costs == {"time": 3.0 + 2.0 + 0.5}
    assert problem.costs[0].total([0, 1]) == 1.0 + 4.0 + 0.25
    assert problem.costs[0].total([0, 2]) == 1.0 + 1.5  # pairs that are not named cost nothing


def test_a_pair_may_be_named_from_either_end():
    turned = {("head", "stem"): {(b, a): v for (a, b), v in CONVERSIONS["stem", "head"].items()}}
    one, other = (problem_of(DAMAGE, {"time": TIME}, pairs={"time": pairs}) for pairs in (CONVERSIONS, turned))
    assert one == other


def test_sums_do_not_depend_on_the_order_of_layers():
    values = [0.1, 1e16, -1e16, 0.2, 0.3]
    one, other = (Table("t", tuple((v,) for v in order)) for order in (values, values[::-1]))
    assert one.total([0] * 5) == other.total([0] * 5) == math.fsum(values)


def test_a_budget_that_is_the_very_sum_is_kept():
    rows = {f"l{i}": {"a": 0.1} for i in range(3)}
    assert problem_of(rows, {"c": rows}, {"c": 0.3}).fits([0, 0, 0])  # though 0.1 + 0.1 + 0.1 > 0.3 in floats
    assert not problem_of(rows, {"c": rows}, {"c": 0.2999}).fits([0, 0, 0])


def test_forbidden_pairs_fit_no_budget():
    never = {("stem", "head"): {("int8", "int8"): math.inf}}
    for budgets in ({}, {"time": math.inf}, {"time": 1e9}):
        problem = problem_of(DAMAGE, {"time": TIME}, budgets, pairs={"time": never})
        assert not problem.fits([0, 0])
        assert problem.fits([1, 0])


def test_the_span_is_how_far_choices_can_lie_apart():
    table = problem_of(DAMAGE, {"time": TIME}, pairs={"time": CONVERSIONS}).costs[0]
    assert table.span == (3 - 1) + (4 - 1.5) + 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"damage": {}}, "needs layers"),
        ({"damage": {"stem": {}}}, "layer 'stem' has no options"),
        ({"damage": {"stem": {"int8": math.nan}}}, "damage of layer 'stem' with 'int8' is nan"),
        ({"costs": {"time": {"stem": {"int8": 1.0}}}}, "table 'time' has no amount of layer 'stem' with 'fp32'"),
        ({"budgets": {"size": 3.0}}, "no table 'size': there are damage, time"),
        ({"budgets": {"time": math.nan}}, "the budget of 'time' is no number"),
        ({"minimise": "size"}, "no table 'size'"),
        ({"pairs": {"size": CONVERSIONS}}, "pairs of 'size'"),
        ({"pairs": {"time": {("stem", "tail"): {}}}}, "of layer 'tail'"),
        ({"pairs": {"time": {("stem", "stem"): {}}}}, "'stem' twice"),
        ({"pairs": {"time": {("stem", "head"): {("int4", "int8"): 1.0}}}}, r"options \('int4', 'int8'\), expected"),
        ({"pairs": {"time": {("stem", "head"): {("int8", "int8"): -math.inf}}}}, "no number or -inf"),
        ({"costs": {"damage": TIME}}, "tables need names of their own, got 'damage' twice"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    given = {"damage": DAMAGE, "costs": {"time": TIME}} | change
    with pytest.raises(ValueError, match=message) as error:
        problem_of(**given)
    assert "\n" not in str(error.value)


def test_tables_of_another_form_are_refused():
    rows = ((0.0, 1.0), (2.0,))
    options, table = (("a", "b"), ("a",)), Table("damage", rows)
    with pytest.raises(ValueError, match=r"'time' needs an amount for each option: \[2, 1\]"):
        Problem(("x", "y"), options, table, (Table("time", ((0.0,), (1.0,))),))
    with pytest.raises(ValueError, match="name two in order"):
        Problem(("x", "y"), options, table, (Table("time", rows, (Pair(1, 0, ((0.0, 0.0),)),)),))
    with pytest.raises(ValueError, match="pair 'x' and 'y' needs an amount for each two"):
        Problem(("x", "y"), options, table, (Table("time", rows, (Pair(0, 1, ((0.0,),)),)),))


def test_options_have_names_of_their_own():
    table = Table("damage", ((0.0, 1.0),))
    with pytest.raises(ValueError, match="options of layer 'x' need names of their own, got 'a' twice"):
        Problem(("x",), (("a", "a"),), table)


def test_measured_gains_can_be_taken_for_noise():
    assert without_gains({"stem": {"int8": -0.01, "int4": 0.3}}) == {"stem": {"int8": 0.0, "int4": 0.3}}


def test_equal_rows_are_alike():
    classes, examples = alike(np.array([[0.0, 1.0], [2.0, np.inf], [-0.0, 1.0], [2.0, np.inf], [5.0, 5.0]]))
    assert classes.tolist() == [0, 1, 0, 1, 2]
    assert examples.tolist() == [0, 1, 4]
