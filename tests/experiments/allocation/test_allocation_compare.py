import pytest

from experiments.allocation.compare import compare, least_damage
from tests.quant_search.allocation.trades import many_layers


def test_methods_stand_beside_each_other_under_every_budget():
    budgets = [{"cost": 0.0}, {"cost": 4.0}, {"cost": 5.0}]
    rows = compare(many_layers(8), budgets, ["milp", "greedy"])
    assert [(row.budgets["cost"], row.method) for row in rows] == [
        (b["cost"], m) for b in budgets for m in ("milp", "greedy")
    ]
    assert [row.found is None for row in rows] == [True, True, False, False, False, False]
    for row in rows[2:]:
        assert row.found.costs["cost"] <= row.budgets["cost"]
        assert row.seconds > 0
    best = least_damage(rows, budgets[1])
    assert best == rows[2].found.damage
    assert rows[2].excess(best) == "0.00 %"
    assert rows[2].excess(best / 1.5) == "50.00 %"
    assert rows[0].excess(best) == ""


def test_where_nothing_was_found_there_is_no_least():
    with pytest.raises(ValueError):
        least_damage(compare(many_layers(3), [{"cost": 0.0}], ["greedy"]), {"cost": 0.0})
