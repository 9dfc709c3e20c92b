import itertools
import math

import pytest

from latency.pace import _ALLOWANCE_S, _GIVE_UP_S, _INSISTED_S, _SHARE, Pace


class Clock:
    """Each loop of the pace takes the next of `loops` seconds; readings outside of it take none."""

    def __init__(self, loops):
        self.now, self.loops, self.inside = 0.0, iter(loops), False

    def wall(self):
        return self.now

    def cpu(self):
        return self.now


class Scripted(Pace):
    """A pace whose loops take what the script says."""

    def __init__(self, loops):
        self.clock = Clock(loops)
        super().__init__(self.clock)

    def is_disturbed(self):
        took_s = next(self.clock.loops)
        self.clock.now += took_s
        self._best_s = min(self._best_s, took_s)
        return took_s > 1.3 * self._best_s


def test_the_real_loop_is_undisturbed_at_its_best():
    pace = Pace()
    found = {pace.is_disturbed() for _ in range(50)}
    assert False in found  # the first at the latest


def test_it_waits_until_the_loop_is_at_its_best():
    pace = Scripted(itertools.chain([1.0] * 2, [2.0] * 2, [1.1], [7.0] * 99))
    assert pace.wait(100.0)  # learns for 1.5 s: two loops; then two disturbed ones, and one that is not
    assert pace.clock.now == pytest.approx(2 + 4 + 1.1)


def test_the_best_is_watched_from_then_on():
    pace = Pace()
    pace.is_disturbed()
    best_s = pace.watch_best()
    assert 0 < best_s < math.inf and pace.watched_best_s == math.inf
    pace.is_disturbed()
    assert best_s > 0 and 0 < pace.watched_best_s < math.inf


def test_patience_ends():
    pace = Scripted(itertools.chain([0.1] * 15, itertools.repeat(0.2)))
    assert not pace.wait(1.0)
    assert 1.5 + 1.0 <= pace.clock.now <= 1.5 + 1.0 + 0.4


def test_waiting_has_an_allowance():
    pace = Scripted(itertools.chain([0.1] * 15, itertools.repeat(0.2)))
    begun = pace.clock.now
    while pace.clock.now - begun < 12 * _ALLOWANCE_S and not pace.wait(1.0):
        pace.clock.now += 1.0  # as much work as waiting
    waited = pace._waited_s
    assert waited <= _ALLOWANCE_S + 1.0  # nothing was measured, so it did not grow
    with pace.measuring():
        begun = pace.clock.now
        while pace.clock.now - begun < 12 * _ALLOWANCE_S and not pace.wait(1.0):
            pace.clock.now += 1.0
    assert 5.0 < pace._waited_s - waited <= _SHARE * (pace.clock.now - begun) + 1.0


def test_a_machine_that_became_slower_is_learnt_again():
    pace = Scripted(itertools.chain([0.1] * 15, itertools.repeat(0.2)))
    waits = 0
    with pace.measuring():
        while not pace.wait(1.0):
            pace.clock.now += 5.0
            waits += 1
    assert _GIVE_UP_S / 1.4 <= waits <= _GIVE_UP_S + 1


def test_who_insists_waits_beyond_the_allowance_up_to_another_one():
    pace = Scripted(itertools.chain([0.1] * 15, itertools.repeat(0.2)))
    pace.spend(1e9)
    before = pace.patience_left_s
    assert not pace.wait(1.0) and pace.clock.now < 1.5 + 0.5
    assert not pace.wait(1.0, insist=True) and pace.clock.now > 1.5 + 1.0
    assert pace.patience_left_s == before
    begun = pace.clock.now
    for _ in range(100):
        pace.wait(1.0, insist=True)
    assert pace.clock.now - begun < _INSISTED_S + 100 * 0.4  # then only the look that each begins with


def test_loops_and_their_best_are_counted_while_waiting():
    pace = Scripted(itertools.chain([1.0] * 2, [2.0] * 2, [1.1], [7.0] * 99))
    assert pace.counts == (0, 0)
    pace.wait(100.0)
    assert pace.counts == (3, 2)  # those of learning are left out
