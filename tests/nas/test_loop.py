import os
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import optuna
import pytest

from nas.evaluating import one_by_one
from nas.journal import Journal
from nas.loop import MAX_FAILURES, TooManyFailures, run_loop
from nas.objectives import Problem, maximize, minimize
from nas.searchers.random_search import RandomSearch
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice(f"c{j}", (1, 2, 3, 4)) for j in range(4)])
PROBLEM = Problem((maximize("accuracy"), minimize("latency_s")))


class Listed:
    """Asks for the architectures of the space in order, and keeps what it is told."""

    def __init__(self, n=10**6):
        self.rows = [arch.indices for arch in SPACE.enumerate()][:n]
        self.asked, self.told = [], []

    def ask(self, n):
        rows, self.rows = self.rows[:n], self.rows[n:]
        self.asked.append(len(rows))
        return np.array(rows, dtype=INDEX).reshape(len(rows), len(SPACE))

    def tell(self, evaluations):
        self.told.append(list(evaluations))


class Bench:
    """Measures, counts its calls, and fails where told to."""

    def __init__(self, fails=lambda call: None):
        self.archs, self.fails = [], fails

    def __call__(self, arch):
        self.archs.append(arch)
        error = self.fails(len(self.archs))
        if error is not None:
            raise error
        return metrics(arch)


class Immediate(Executor):
    """Has done everything when it is asked for the first result."""

    def submit(self, fn, /, *args):
        future = Future()
        future.set_result(fn(*args))
        return future


def metrics(arch):
    return {"accuracy": sum(arch.indices) / 12, "latency_s": 1.0 + sum(i**2 for i in arch.indices)}


def slow_first(arch):
    time.sleep(0.2 if not any(arch.indices) else 0)
    return metrics(arch)


def die(arch):
    os._exit(1)


def new_journal(storage=None):
    return Journal(storage or optuna.storages.InMemoryStorage(), "search", SPACE, PROBLEM)


def loop(searcher, measure, journal=None, budget=20, batch=6, executor=None, **more):
    with executor or ThreadPoolExecutor(1) as pool:
        return run_loop(
            searcher,
            SPACE,
            PROBLEM,
            one_by_one(measure, pool),
            budget=budget,
            batch=batch,
            journal=new_journal() if journal is None else journal,
            **more,
        )


def first(n):
    return [arch for arch, _ in zip(SPACE.enumerate(), range(n), strict=False)]


def test_the_budget_is_spent_in_batches_and_results_come_in_order():
    searcher, bench, journal = Listed(), Bench(), new_journal()
    found = loop(searcher, bench, journal)
    assert searcher.asked == [6, 6, 6, 2]
    assert [e.arch for e in found] == bench.archs == first(20)
    assert [e for told in searcher.told for e in told] == found
    assert [journal.find(e.arch) for e in found] == found
    assert found[7] == PROBLEM.evaluation(found[7].arch, metrics(found[7].arch), "verified")


@pytest.mark.parametrize(("budget", "listed", "expected"), [(0, 9, 0), (20, 9, 9), (5, 9, 5)])
def test_a_searcher_that_has_no_more_ends_the_loop(budget, listed, expected):
    assert len(loop(Listed(listed), Bench(), budget=budget)) == expected


@pytest.mark.parametrize("pool", [lambda: ThreadPoolExecutor(3), lambda: ProcessPoolExecutor(2)])
def test_any_executor_gives_the_same_result(pool):
    assert loop(RandomSearch(SPACE, 3), metrics, executor=pool()) == loop(RandomSearch(SPACE, 3), metrics)


def test_a_slow_evaluation_holds_up_no_record_but_order_is_kept():
    journal = new_journal()
    searcher = Listed()
    found = loop(searcher, slow_first, journal, budget=4, batch=4, executor=ThreadPoolExecutor(2))
    assert [e.arch for e in found] == first(4) == [e.arch for e in searcher.told[0]]
    assert journal.study.trials[-1].params == dict(first(1)[0].values)


def test_every_evaluation_is_reported_once_and_failures_as_none():
    reported = []
    found = loop(
        Listed(), Bench(lambda call: ValueError("x") if call % 4 == 0 else None), on_evaluation=reported.append
    )
    assert len(reported) == 20 and reported.count(None) == 5
    assert [e for e in reported if e is not None] == found


def test_what_the_journal_knows_is_not_measured_again():
    journal, bench = new_journal(), Bench(lambda call: RuntimeError("x") if call == 3 else None)
    reported = []
    before = loop(Listed(), bench, journal, budget=9, on_evaluation=reported.append)
    searcher = Listed()
    found = loop(searcher, bench, journal, budget=20, on_evaluation=reported.append)
    assert bench.archs == first(20)
    assert found[:8] == before and len(found) == 19
    assert first(20)[2] not in [e.arch for e in found]
    assert len(reported) == 9 + 20


@pytest.mark.parametrize("error", [ValueError("bad graph"), ZeroDivisionError("by zero"), RuntimeError("no memory")])
def test_failures_are_journaled_with_their_reason_and_not_told(error):
    journal, searcher = new_journal(), Listed()
    found = loop(searcher, Bench(lambda call: error if call == 2 else None), journal, budget=6)
    assert len(found) == 5 and [len(t) for t in searcher.told] == [5]
    reasons = [t.user_attrs["reason"] for t in journal.study.trials if "reason" in t.user_attrs]
    assert reasons == [f"{type(error).__name__}: {error}"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_metrics_that_are_no_numbers_are_failures(value):
    measured = {"accuracy": 0.5} if value is None else {"accuracy": 0.5, "latency_s": value}
    journal = new_journal()
    assert loop(Listed(), lambda arch: measured, journal, budget=3) == []
    assert len(journal) == 3


def test_ten_failures_in_a_row_stop_with_the_last_reason():
    bench = Bench(lambda call: ValueError(f"reason {call}") if call > 4 else None)
    reported, journal = [], new_journal()
    with pytest.raises(TooManyFailures, match=r"the last 10 evaluations failed; of c0=1 .*: reason 14") as caught:
        loop(Listed(), bench, journal, budget=100, batch=1, on_evaluation=reported.append)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(bench.archs) == len(journal) == len(reported) == 4 + MAX_FAILURES


def test_failures_not_in_a_row_stop_nothing():
    bench = Bench(lambda call: ValueError("x") if call % MAX_FAILURES else None)
    assert len(loop(Listed(), bench, budget=100)) == 10


def test_a_run_whose_cause_of_failure_was_mended_goes_on():
    journal, broken = new_journal(), [True]
    bench = Bench(lambda call: ValueError("no driver") if broken[0] else None)
    for expected in (10, 11):  # the second time, one more failure is enough
        with pytest.raises(TooManyFailures, match="no driver"):
            loop(Listed(), bench, journal, batch=1, budget=50)
        assert len(bench.archs) == expected
    broken[0] = False
    assert len(loop(Listed(), bench, journal, batch=1, budget=50)) == 50 - 11


def test_stopping_cancels_what_has_not_begun():
    bench = Bench(lambda call: time.sleep(0.002) or ValueError("x"))
    with pytest.raises(TooManyFailures):
        loop(Listed(), bench, budget=250, batch=250)
    assert len(bench.archs) < 200


def test_an_interrupt_passes_through_and_leaves_the_journal_whole(tmp_path):
    file = tmp_path / "journal.log"
    bench = Bench(lambda call: KeyboardInterrupt() if call == 9 else None)
    with pytest.raises(KeyboardInterrupt):
        loop(Listed(), bench, new_journal(file), budget=30)
    assert not [p for p in tmp_path.iterdir() if p != file]
    again = new_journal(file)
    assert 6 <= len(again) <= 8
    known = {arch for arch in first(30) if arch in again}
    calls = len(bench.archs)
    assert len(loop(Listed(), bench, again, budget=30)) == 30
    assert not known & set(bench.archs[calls:])


def test_an_interrupt_while_others_wait_cancels_them():
    def interrupt(evaluation):
        raise KeyboardInterrupt

    bench = Bench(lambda call: time.sleep(0.002))
    with pytest.raises(KeyboardInterrupt):
        loop(Listed(), bench, budget=250, batch=250, on_evaluation=interrupt)
    assert len(bench.archs) < 200


def test_what_is_done_is_recorded_before_anything_else_happens():
    def interrupt(evaluation):
        raise KeyboardInterrupt

    journal = new_journal()
    with pytest.raises(KeyboardInterrupt):
        loop(Listed(), Bench(), journal, executor=Immediate(), on_evaluation=interrupt)
    assert len(journal) == 6


def test_what_is_done_counts_before_a_worker_that_died():
    class Dying(Immediate):
        def submit(self, fn, /, *args):
            if args[0] == first(1)[0]:
                future = Future()
                future.set_exception(BrokenExecutor("killed"))
                return future
            return super().submit(fn, *args)

    journal, found = new_journal(), []
    with pytest.raises(BrokenExecutor, match="killed"):
        loop(Listed(), Bench(), journal, executor=Dying(), found=found)
    assert len(journal) == len(found) == 5


def test_what_another_process_has_recorded_meanwhile_is_not_measured(tmp_path):
    journal, other = (new_journal(tmp_path / "journal.log") for _ in range(2))
    expected = loop(Listed(), Bench(), other, budget=5)
    bench = Bench()
    assert loop(Listed(), bench, journal, budget=5) == expected
    assert bench.archs == []


@pytest.mark.parametrize("error", [TypeError("bug"), KeyError("bug"), OSError("disk full"), MemoryError()])
def test_bugs_and_the_systems_own_errors_pass_through(error):
    journal = new_journal()
    with pytest.raises(type(error)):
        loop(Listed(), Bench(lambda call: error if call == 3 else None), journal, batch=1)
    assert len(journal) == 2


def test_a_dead_worker_is_not_an_architectures_failure():
    journal = new_journal()
    with pytest.raises(BrokenExecutor):
        loop(Listed(), die, journal, executor=ProcessPoolExecutor(1))
    assert len(journal) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3, 4), dtype=int), r"Given.ask\(2\) must give at most 2 architectures, got 3"),
        (np.array([[0, 0, 0, 9]]), "choice 'c3' has options 0 to 3, got index 9"),
        (np.zeros((2, 3), dtype=int), "has 4 choices, got an array of shape"),
        (np.array([[0.5, 0, 0, 0]]), "whole numbers"),
    ],
)
def test_what_a_searcher_of_ones_own_asks_for_is_checked(rows, message):
    class Given(Listed):
        def ask(self, n):
            return rows

    bench = Bench()
    with pytest.raises(ValueError, match=message):
        loop(Given(), bench, budget=2, batch=2)
    assert not bench.archs


def test_an_architecture_asked_for_twice_at_once_is_measured_once():
    class Twice(Listed):
        def ask(self, n):
            return np.repeat(super().ask(1), 2, axis=0)[:n].tolist()

    bench = Bench()
    loop(Twice(), bench, budget=2, batch=2)
    assert len(bench.archs) == len(set(bench.archs)) == 2
