import numpy as np
import pytest

from experiments.sample_efficiency.summary import behind, curves_of, medians, needed, plot, table


def row(task, searcher, seed, shares, at=(50, 100), cheap=True):
    return {
        "task": task, "searcher": searcher, "cheap": cheap, "seed": seed, "at": list(at), "shares": list(shares),
        "seconds": 1.0,
    }  # fmt: skip


def test_curves_by_searcher_and_knowledge_then_task_and_seed():
    at, curves = curves_of([row("x", "linas", 0, (0.5, 0.8)), row("x", "linas", 0, (0.4, 0.6), cheap=False)])
    assert at == [50, 100]
    assert curves["linas", True]["x", 0].tolist() == [0.5, 0.8]
    assert curves["linas", False]["x", 0].tolist() == [0.4, 0.6]


def test_mixed_budgets_meet_where_all_have_numbers():
    at, curves = curves_of(
        [row("x", "linas", 0, (0.5, 0.8)), row("x", "linas", 1, (0.3, 0.6, 0.9), at=(50, 75, 200)),
         row("x", "random", 0, (0.1, 0.2, 0.3), at=(20, 50, 100))]
    )  # fmt: skip
    assert at == [50]
    assert [c.tolist() for c in (*curves["linas", True].values(), *curves["random", True].values())] == [
        [0.5], [0.3], [0.2]
    ]  # fmt: skip


def test_a_longer_run_takes_the_place_of_a_shorter_one_before_or_after_it():
    short, long = row("x", "linas", 0, (0.5, 0.8)), row("x", "linas", 0, (0.4, 0.7, 0.9), at=(50, 100, 200))
    for rows in ([short, long], [long, short]):
        at, curves = curves_of(rows)
        assert at == [50, 100, 200]
        assert curves["linas", True]["x", 0].tolist() == [0.4, 0.7, 0.9]


def test_of_equally_long_runs_the_last_counts():
    _, curves = curves_of([row("x", "linas", 0, (0.5, 0.8)), row("x", "linas", 0, (0.4, 0.7))])
    assert curves["linas", True]["x", 0].tolist() == [0.4, 0.7]


@pytest.mark.parametrize("rows", [[], [row("x", "a", 0, (0.5,), at=(50,)), row("x", "b", 0, (0.5,), at=(60,))]])
def test_nothing_in_common_is_said(rows):
    with pytest.raises(ValueError, match="common to all runs"):
        curves_of(rows)


def test_medians_over_seeds_of_each_task():
    curves = {("x", s): np.array([v, 2 * v]) for s, v in enumerate((0.1, 0.4, 0.2))} | {("y", 0): np.array([0.3, 0.5])}
    found = medians(curves)
    assert list(found) == ["x", "y"]
    assert found["x"].tolist() == [0.2, 0.4]
    assert found["y"].tolist() == [0.3, 0.5]


def test_needed_evaluations_are_interpolated():
    at, curve = [20, 40, 100], np.array([0.5, 0.7, 0.8])
    assert needed(at, curve, 0.5) == 20
    assert needed(at, curve, 0.4) == 20  # not before the first number
    assert needed(at, curve, 0.6) == pytest.approx(30)
    assert needed(at, curve, 0.8) == pytest.approx(100)
    assert needed(at, curve, 0.81) == float("inf")


def test_behind_weighs_seeds_alike_on_what_both_have_run():
    reference = {("x", 0): np.array([0.0, 0.9]), ("y", 0): np.array([0.0, 0.7]), ("x", 1): np.array([0.0, 0.8])}
    other = {("x", 0): np.array([0.0, 0.8]), ("y", 0): np.array([0.0, 0.4]), ("x", 1): np.array([0.0, 0.8])}
    other |= {("x", 2): np.array([0.0, 0.1])}  # the reference has not run this seed
    mean, low, high = behind(reference, other, at=1)
    assert mean == pytest.approx((0.2 + 0.0) / 2)
    assert low == pytest.approx(0.0)
    assert high == pytest.approx(0.2)


def test_a_table_has_the_best_searcher_first():
    rows = [row("x", "random", s, (0.4, 0.5)) for s in range(2)] + [row("x", "linas", s, (0.6, 0.8)) for s in range(2)]
    at, curves = curves_of(rows)
    found = table(at, curves)
    cells = {column.header: list(column.cells) for column in found.columns}
    assert cells["searcher"] == ["linas", "random"]
    assert cells["median @100"] == ["0.8000", "0.5000"]
    assert cells["behind LINAS @100"] == ["", "+0.3000 (+0.3000, +0.3000)"]
    assert cells["LINAS needs"] == ["", "50 %"]


def test_a_table_without_round_numbers_shows_the_last():
    at, curves = curves_of([row("x", "linas", 0, (0.6, 0.8), at=(20, 30))])
    assert "median @30" in [column.header for column in table(at, curves).columns]
    assert list(plot(at, curves).data[0].y) == [0.6, 0.8]
