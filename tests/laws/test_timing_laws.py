"""Laws of timing, on a clock that only the timed calls move."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency import compare as comparison
from latency.timing import measure_interleaved

LAW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TICK_S = 2.0**-20  # sums of it are exact


class Clock:
    """Moves by whole ticks; CPU time half as fast."""

    def __init__(self):
        self.ticks = 0
        self.calls = 0

    def wall(self):
        return self.ticks * TICK_S

    def cpu(self):
        return self.ticks * TICK_S / 2

    def move(self, ticks):
        self.ticks += ticks
        self.calls += 1


class Machine(Clock):
    """Slows down as time goes by, gives each session its luck, and each call some noise."""

    def __init__(self, seed):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def open(self, ticks):
        luck = ticks * np.exp(0.01 * self.rng.normal())

        def call():
            drift = 1 + 0.2 * self.wall() / (1 + self.wall())
            self.move(round(luck * drift * np.exp(0.02 * self.rng.normal())))

        return call


def compare(seed, a, b):
    machine = Machine(seed)
    openers = [lambda: machine.open(a), lambda: machine.open(a), lambda: machine.open(b)]
    return comparison.compare(*measure_interleaved(openers, clock=machine, samples_per_round=6))


@LAW
@given(ticks=st.integers(1, 300), shortest=st.integers(1, 1000), samples=st.integers(1, 20))
def test_calls_samples_median_and_spread_are_exact(ticks, shortest, samples):
    clock = Clock()
    (t,) = measure_interleaved(
        [lambda: lambda: clock.move(ticks)],
        clock=clock,
        rounds=1,
        samples_per_round=samples,
        shortest_sample_s=shortest * TICK_S,
    )
    calls = math.ceil(shortest / ticks)
    doublings = (calls - 1).bit_length()
    assert t.calls_per_sample == calls and len(t.samples_s) == samples
    assert t.median_s == pytest.approx(ticks * TICK_S, rel=1e-15) and t.spread < 1e-15
    assert t.cpu_median_s == pytest.approx(ticks * TICK_S / 2, rel=1e-15)
    # Doublings up to the first that lasts, two windows of three samples of that many, then the samples.
    assert clock.calls == (2 ** (doublings + 1) - 1) + 6 * 2**doublings + samples * (1 + calls)


@LAW
@given(samples=st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_every_sample_is_kept_as_it_came(samples):
    warm = 50  # the call before each that is timed
    clock, left = Clock(), [100] * 7 + [ticks for sample in samples for ticks in (warm, sample)]
    (t,) = measure_interleaved(
        [lambda: lambda: clock.move(left.pop(0))],
        clock=clock,
        rounds=1,
        samples_per_round=len(samples),
        shortest_sample_s=TICK_S,
    )
    assert t.samples_s == tuple(n * TICK_S for n in samples)
    low, high = t.ci95_s()
    assert min(t.samples_s) <= low <= t.median_s <= high <= max(t.samples_s)


@LAW
@given(subjects=st.integers(1, 4), rounds=st.integers(1, 5), samples=st.integers(1, 3))
def test_every_round_opens_each_subject_anew_in_alternating_order(subjects, rounds, samples):
    clock, opened, timed = Clock(), [], []

    def opener(subject):
        def open_():
            session = (len(opened), subject)
            opened.append(subject)

            def call():
                timed.append(session)
                clock.move(100 * (subject + 1))

            return call

        return open_

    timings = measure_interleaved(
        [opener(i) for i in range(subjects)], rounds=rounds, samples_per_round=samples, clock=clock
    )
    forward = list(range(subjects))
    assert opened == [s for i in range(rounds) for s in (forward if i % 2 == 0 else forward[::-1])]
    assert timed == sorted(timed)  # a session is timed after it was opened, and not after the next one was
    assert [t.median_s for t in timings] == [100 * (s + 1) * TICK_S for s in forward]
    assert all(t.groups == (samples,) * rounds for t in timings)


def test_a_against_a_says_no_difference():
    found = [compare(seed, 1000, 1000) for seed in range(25)]
    assert {c.verdict for c in found} == {"no difference"}
    assert sum(c.ci95[0] <= 1 <= c.ci95[1] for c in found) >= 20


def test_what_is_a_fifth_slower_is_slower():
    for seed in range(25):
        slower, faster = compare(seed, 1000, 1200), compare(seed, 1200, 1000)
        assert slower.verdict == "slower" and slower.ratio == pytest.approx(1.2, rel=0.03)
        assert faster.verdict == "faster" and faster.ratio == pytest.approx(1 / 1.2, rel=0.03)
