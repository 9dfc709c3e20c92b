import pytest

from experiments.sample_efficiency.__main__ import AT, GROUPS, marks, missing, run
from experiments.sample_efficiency.tasks import DEVICES
from experiments.tables import DATA

KEY = ("macro", "linas", True, 3)


def row(at, key=KEY):
    return {**dict(zip(("task", "searcher", "cheap", "seed"), key, strict=True)), "at": list(at)}


def test_marks_end_with_the_budget():
    assert marks(200) == list(AT)
    assert marks(100) == [20, 30, 40, 50, 60, 75, 100]
    assert marks(110) == [20, 30, 40, 50, 60, 75, 100, 110]
    assert marks(10) == [10]


@pytest.mark.parametrize(
    ("held", "budget", "done"),
    [(200, 200, True), (100, 200, False), (200, 100, True), (200, 110, False), (110, 100, True), (200, 10, False)],
)
def test_a_run_is_done_where_a_row_has_all_its_marks(held, budget, done):
    assert missing([row(marks(held))], [KEY], budget) == ([] if done else [KEY])


def test_another_task_searcher_knowledge_or_seed_is_another_run():
    others = [("accel", *KEY[1:]), ("macro", "random", True, 3), ("macro", "linas", False, 3), (*KEY[:3], 4)]
    assert missing([row(AT)], [KEY, *others], 200) == others
    assert missing([row(AT, key) for key in others], [KEY, *others], 200) == [KEY]


def test_no_device_is_both_chosen_on_and_reported():
    assert not set(GROUPS["chosen-on"]) & set(DEVICES)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark tables are not in {DATA}")
@pytest.mark.parametrize("searcher", ["random", "Optuna TPE"])
def test_a_run_makes_a_row_that_is_not_run_again(searcher):
    found = run(DATA, GROUPS["chosen-on"][0], searcher, cheap=True, seed=0, budget=25)
    assert found["at"] == [20, 25]
    first, second = found["shares"]
    assert 0 < first <= second <= 1
    assert missing([found], [(found["task"], searcher, True, 0)], 25) == []
