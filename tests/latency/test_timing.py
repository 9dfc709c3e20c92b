import dataclasses
import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fake_clock import TICK_S, FakeClock

from latency.pace import Pace
from latency.timing import Timing, measure_interleaved, resolution_s


def timing(samples, groups=None):
    samples = tuple(map(float, samples))
    return Timing(samples, 1, samples, groups or (len(samples),))


def measure(call, clock, samples=10, **limits):
    """One session of a single subject."""
    (t,) = measure_interleaved([lambda: call], rounds=1, samples_per_round=samples, clock=clock, **limits)
    return t


def test_median_spread_and_quantiles_are_exact():
    t = timing(range(1, 12))
    assert t.median_s == 6 and t.quantile(0.1) == 2 and t.quantile(0.9) == 10 and t.spread == 8 / 6
    assert t.quantile(0) == 1 and t.quantile(1) == 11 and t.cpu_median_s == 6
    assert (t.p10_s, t.p90_s) == (2, 10) and t.p99_s == pytest.approx(10.9)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_quantile_outside_0_to_1_is_refused(p):
    with pytest.raises(ValueError, match="from 0 to 1"):
        timing([1]).quantile(p)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (((), 1, (), ()), "needs samples"),
        (((1.0,), 1, (), (1,)), "needs samples"),
        (((1.0, 2.0), 1, (1.0, 1.0), (1,)), "sum to them"),
        (((1.0,), 1, (1.0,), (1, 0)), "sum to them"),
        (((1.0,), 0, (1.0,), (1,)), "calls_per_sample"),
        (((0.0,), 1, (1.0,), (1,)), "samples_s"),
        (((float("nan"),), 1, (1.0,), (1,)), "samples_s"),
        (((1.0,), 1, (-1.0,), (1,)), "cpu_samples_s"),
        (((1.0,), 1, (float("inf"),), (1,)), "cpu_samples_s"),
    ],
)
def test_a_timing_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Timing(*fields)


def test_samples_and_calls_are_exact():
    clock = FakeClock()
    t = measure(clock.call(100), clock, samples=7)
    assert t.calls_per_sample == 1 and t.samples_s == (100 * TICK_S,) * 7
    assert t.median_s == 100 * TICK_S and t.spread == 0 and t.groups == (7,)
    assert t.cpu_samples_s == (50 * TICK_S,) * 7
    assert clock.calls == 1 + 2 * 3 + 7 * 2  # finding the calls per sample, two windows, a warm call and one timed


def test_short_calls_are_taken_together():
    clock = FakeClock()
    t = measure(clock.call(3), clock, shortest_sample_s=64 * TICK_S)
    assert t.calls_per_sample == 22 and t.samples_s == (3 * TICK_S,) * 10
    assert clock.calls == (1 + 2 + 4 + 8 + 16 + 32) + 6 * 32 + 10 * (1 + 22)


def test_calls_per_sample_come_from_the_warm_call():
    clock = FakeClock()
    assert measure(clock.call(64, 1), clock, shortest_sample_s=64 * TICK_S).calls_per_sample == 64


def test_a_call_that_warms_to_nothing_is_counted_anew():
    clock = FakeClock()
    warm = [100] + [0] * 6 + [1]  # found at the first call, then two windows below a step of the clock
    t = measure(clock.call(*warm), clock, shortest_sample_s=64 * TICK_S)
    assert t.calls_per_sample == 64 and t.median_s == TICK_S


def test_a_sample_lasts_100_steps_of_the_clock():
    clock = FakeClock(reading=4)
    assert resolution_s(clock) == 4 * TICK_S
    assert resolution_s(FakeClock()) == 0
    pace = Pace(clock)
    pace.is_disturbed()  # so that it need not learn, which takes long on this clock
    t = measure(clock.call(10), clock, shortest_sample_s=0.0, pace=pace)
    assert t.calls_per_sample * 10 >= 100 * 4 * 0.9


def test_warm_up_waits_until_steady_but_not_for_ever():
    clock = FakeClock()
    falling = [1600, 1600, 1600, 800, 800, 800, 400, 400, 400]
    t = measure(clock.call(1600, *falling, 200), clock, warm_up_s=1.0)
    assert t.samples_s == (200 * TICK_S,) * 10
    assert clock.calls == 1 + 9 + 2 * 3 + 10 * 2
    clock = FakeClock()
    measure(clock.call(2**40, *(2 ** (39 - i // 3) for i in range(90)), 100), clock, warm_up_s=1e99)
    assert clock.calls == 1 + 20 * 3 + 10 * 2
    clock = FakeClock()
    measure(clock.call(100, *falling, 200), clock, warm_up_s=1e-9)
    assert clock.calls == 1 + 3 + 10 * 2  # one window is the limit


def test_a_disturbance_ends_the_warm_up():
    clock = FakeClock()
    measure(clock.call(100, 100, 100, 100, 200), clock, warm_up_s=1e-9)
    assert clock.calls == 1 + 3 + 10 * 2
    clock = FakeClock()
    measure(clock.call(100, 100, 100, 100, 200, 200, 200, 100), clock, warm_up_s=1.0)
    assert clock.calls == 1 + 2 * 3 + 10 * 2


def test_undisturbed_samples_are_those_near_the_fastest():
    t = timing([2.0, 1.05, 3.0, 1.2, 1.3, 1.4, 1.0, 1.09, 9.0], (3, 3, 3)).undisturbed()
    assert t.samples_s == (1.05, 1.0, 1.09) and t.groups == (1, 2) and t.median_s == 1.05
    quiet = timing([1.0, 1.01, 1.02], (2, 1))
    assert quiet.undisturbed() == quiet


def test_rounds_are_quiet_where_half_the_samples_are_and_near_the_fastest():
    t = timing([1.0, 1.0, 2.0, 1.05, 2.0, 2.0, 1.0, 1.0], (2, 2, 2, 2))
    assert t.quiet_rounds == 3  # the third is far from the fastest
    assert dataclasses.replace(t, quiet=(True,) * 6 + (False,) * 2).quiet_rounds == 2
    assert dataclasses.replace(t, quiet=(True,) * 8).undisturbed().quiet == (True,) * 5
    with pytest.raises(ValueError, match="quiet must say"):
        dataclasses.replace(t, quiet=(True,))


def test_the_interval_of_the_undisturbed_median_knows_that_sessions_differ():
    rng = np.random.default_rng(0)
    sessions = [level * rng.normal(1, 0.01, 20) for level in (1.0, 1.13, 1.13, 1.13, 1.13, 2.0)]
    t = timing(np.concatenate(sessions), (20,) * 6)
    assert t.undisturbed().groups == (20,)
    low, high = t.ci95_s(undisturbed=True)
    assert low == pytest.approx(1.0, abs=0.02) and high == pytest.approx(1.13, abs=0.02)  # were the first not drawn
    low, high = t.undisturbed().ci95_s()
    assert high < 1.02


def test_disturbed_rounds_are_repeated_up_to_a_limit():
    clock, ticks = FakeClock(), iter([100, 200, 100, 100] + [200] * 9)
    (t,) = measure_interleaved(
        [lambda: clock.call(next(ticks))], rounds=3, most_rounds=9, samples_per_round=2, clock=clock
    )
    assert t.groups == (2,) * 4 and t.undisturbed().groups == (2, 2, 2)
    ticks = iter([100] + [200] * 9)
    (t,) = measure_interleaved(
        [lambda: clock.call(next(ticks))], rounds=3, most_rounds=5, samples_per_round=2, clock=clock
    )
    assert len(t.groups) == 5 and t.undisturbed().groups == (2,)
    impatient, ticks = Pace(clock), iter([100] + [200] * 9)
    impatient.spend(1e9)
    (t,) = measure_interleaved(
        [lambda: clock.call(next(ticks))], rounds=3, most_rounds=5, samples_per_round=2, clock=clock, pace=impatient
    )
    assert len(t.groups) == 3
    with pytest.raises(ValueError, match="in order"):
        measure_interleaved([], rounds=3, most_rounds=2, clock=clock)


class Impeded(Pace):
    """A core that is left to this thread after 3 s of waiting, once a round; notes what patience it is given."""

    def __init__(self, clock):
        super().__init__(clock)
        self.clock, self.given = clock, []

    def wait(self, patience_s, insist=False):
        self.given.append((patience_s, insist) if insist else patience_s)
        self.clock.ticks += round(min(max(patience_s, 0), 3) / TICK_S)
        return patience_s >= 3


def test_each_sample_waits_and_a_round_has_one_patience():
    clock = FakeClock()
    pace = Impeded(clock)
    (t,) = measure_interleaved(
        [lambda: clock.call(100)], rounds=2, samples_per_round=4, clock=clock, pace=pace, patience_s=7.0
    )
    assert pace.given == [7.0, 4.0, 1.0, 0.0] * 2
    assert t.samples_s == (100 * TICK_S,) * 8


def test_a_subject_that_found_no_quiet_sample_has_a_last_round_that_insists():
    clock, opened = FakeClock(), []
    pace = Impeded(clock)

    def opener():
        opened.append(1)
        return clock.call(200 if len(opened) < 3 else 100)

    (t,) = measure_interleaved([opener], rounds=2, samples_per_round=4, clock=clock, pace=pace, patience_s=0.5)
    assert t.groups == (4, 4, 4) and pace.given[8] == (2.0, True)
    assert t.doubtful and t.median_s == 200 * TICK_S and t.undisturbed().median_s == 100 * TICK_S  # 2 s were not enough
    (t,) = measure_interleaved([lambda: clock.call(1)], rounds=1, samples_per_round=4, clock=clock, pace=pace)
    assert t.groups == (4, 4)
    (t,) = measure_interleaved(
        [lambda: clock.call(1)], rounds=1, samples_per_round=4, clock=clock, pace=pace, patience_s=99.0
    )
    assert t.groups == (4,) and not t.doubtful


def test_a_timing_is_doubtful_where_no_quiet_sample_counts_as_the_fastest():
    t = timing([1.0] * 29 + [2.0])
    assert not t.doubtful  # nobody looked
    assert dataclasses.replace(t, quiet=(True,) * 2 + (False,) * 27 + (True,)).doubtful
    assert not dataclasses.replace(t, quiet=(True,) * 3 + (False,) * 27).doubtful
    assert not dataclasses.replace(timing([1.0, 1.0]), quiet=(True, True)).doubtful


def test_of_two_timings_the_faster_is_better_unless_it_is_doubtful_and_both_agree():
    def taken(seconds, sure):
        return dataclasses.replace(timing([seconds] * 3), quiet=(sure,) * 3)

    for sure in (True, False):
        assert taken(1.0, sure).is_better_than(taken(1.01, sure))
        assert not taken(1.01, sure).is_better_than(taken(1.0, sure))
    assert taken(1.05, True).is_better_than(taken(1.0, False)) and taken(1.0, True).is_better_than(taken(2.0, False))
    assert not taken(1.0, False).is_better_than(taken(1.05, True))
    assert taken(1.0, False).is_better_than(taken(1.2, True)) and not taken(1.2, True).is_better_than(taken(1.0, False))


def test_a_clock_that_stands_still_is_refused(monkeypatch):
    monkeypatch.setattr("latency.timing._MOST_DOUBLINGS", 5)
    with pytest.raises(ValueError, match="stands still"):
        measure(lambda: None, FakeClock())


def test_interleaved_rounds_alternate_and_open_afresh():
    clock, opened = FakeClock(), []

    def opener(name, ticks):
        def open_():
            opened.append(name)
            return clock.call(ticks)

        return open_

    a, b, c = measure_interleaved(
        [opener("a", 100), opener("b", 200), opener("c", 300)], rounds=3, samples_per_round=4, clock=clock
    )
    assert "".join(opened) == "abc" + "cba" + "abc"
    assert a.groups == b.groups == c.groups == (4, 4, 4)
    assert [t.samples_s for t in (a, b, c)] == [(n * TICK_S,) * 12 for n in (100, 200, 300)]
    assert clock.calls == 3 * (1 + 3 * 6 + 3 * (4 + 4))  # a call that is not timed before each that is


def test_rounds_differ_and_stay_in_their_groups():
    clock = FakeClock()
    sessions = itertools.count(1)
    (t,) = measure_interleaved([lambda: clock.call(100 * next(sessions))], rounds=3, samples_per_round=2, clock=clock)
    assert t.samples_s == tuple(n * 100 * TICK_S for n in (1, 1, 2, 2, 3, 3)) and t.groups == (2, 2, 2)


def test_no_subjects_no_timings_and_no_rounds_are_refused():
    assert measure_interleaved([], clock=FakeClock()) == []
    for rounds, samples in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            measure_interleaved([], rounds=rounds, samples_per_round=samples, clock=FakeClock())


def test_interval_holds_the_median_and_repeats_by_seed():
    t = timing(np.random.default_rng(0).normal(10, 1, 50))
    low, high = t.ci95_s()
    assert low < t.median_s < high and t.ci95_s(seed=1) == t.ci95_s(seed=1) != t.ci95_s(seed=2)
    assert timing([3.0] * 5).ci95_s() == (3.0, 3.0)


def test_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = timing(rng.normal(10, 1, 41)).ci95_s()
        inside += low <= 10 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_variance_between_groups_widens_the_interval():
    levels = np.repeat([9.0, 10.0, 11.0, 12.0], 25) + np.random.default_rng(0).normal(0, 0.01, 100)
    flat, grouped = timing(levels).ci95_s(), timing(levels, (25,) * 4).ci95_s()
    assert grouped[1] - grouped[0] > 1.5 * (flat[1] - flat[0])


def test_unequal_groups_are_resampled_whole():
    # Every resample is all ones, all twos, or three ones and a two (or the other way round): never beyond.
    low, high = timing([1, 1, 1, 2], (3, 1)).ci95_s()
    assert (low, high) == (1.0, 2.0)


def test_many_samples_are_resampled_in_little_memory():
    t = timing(np.random.default_rng(0).normal(10, 1, 10_000).tolist(), (5_000, 5_000))
    tracemalloc.start()
    low, high = t.ci95_s()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 9.9 < low < 10.0 < high < 10.1 and peak < 100e6


def test_resampling_in_parts_changes_nothing(monkeypatch):
    t = timing(np.random.default_rng(0).normal(10, 1, 30), (10, 15, 5))
    whole = t.ci95_s()
    monkeypatch.setattr("latency.timing._DRAWN_AT_ONCE", 100)
    assert t.ci95_s() == whole


def test_nothing_here_needs_torch():
    modules = "latency.timing, latency.device, latency.measurement, latency.store"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
