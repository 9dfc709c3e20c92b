import numpy as np
import pytest

from latency.compare import compare, judge
from latency.contention import Contention
from latency.timing import Timing


def timing(samples, groups=None):
    samples = tuple(map(float, samples))
    return Timing(samples, 1, samples, groups or (len(samples),))


def normal(rng, mean, spread=0.01):
    return timing(rng.normal(mean, spread * mean, 60), (20, 20, 20))


def test_a_against_a_says_no_difference():
    rng = np.random.default_rng(0)
    same = normal(rng, 10)
    found = compare(same, same, same)
    assert found.verdict == "no difference" and found.ratio == found.control_ratio == 1 and found.resolution == 0.03
    for _ in range(20):
        assert compare(*(normal(rng, 10) for _ in range(3))).verdict == "no difference"


def test_a_clear_difference_is_claimed_both_ways():
    rng = np.random.default_rng(0)
    a, again, b, b_again = normal(rng, 10), normal(rng, 10), normal(rng, 11), normal(rng, 11)
    slower, faster = compare(a, again, b), compare(b, b_again, a)
    assert slower.verdict == "slower" and 1 < slower.ci95[0] < slower.ratio < slower.ci95[1]
    assert faster.verdict == "faster" and faster.ratio == pytest.approx(1 / slower.ratio, rel=0.01)


def test_a_claim_must_be_beyond_what_the_control_deviates_by():
    a, b = timing([1.0] * 20), timing([1.05] * 20)
    assert compare(a, timing([1.01] * 20), b).verdict == "slower"
    unsteady = compare(a, timing([1.02] * 20), b)
    assert unsteady.verdict == "no difference" and unsteady.resolution == pytest.approx(0.06)
    assert compare(a, timing([1 / 1.02] * 20), b).resolution == pytest.approx(0.06)


def test_a_claim_needs_both_size_and_certainty():
    assert compare(timing([1.0] * 20), timing([1.0] * 20), timing([1.02] * 20)).verdict == "no difference"
    unsure = timing([1.0] * 10 + [1.09] * 20, (10, 10, 10))
    assert compare(timing([1.0] * 20), timing([1.0] * 20), unsure).verdict == "no difference"


def test_disturbed_samples_decide_nothing():
    rng = np.random.default_rng(0)
    quiet, disturbed = rng.normal(10, 0.1, 60), rng.normal(20, 2, 200)
    b = timing(np.concatenate((disturbed, quiet)), (200, 60))
    found = compare(normal(rng, 10), normal(rng, 10), b)
    assert found.verdict == "no difference" and found.ratio == pytest.approx(1, abs=0.01)


def test_the_verdict_needs_an_interval_apart_from_1():
    assert judge(1.05, (1.01, 1.1)) == "slower" and judge(1.05, (0.99, 1.1)) == "no difference"
    assert judge(0.95, (0.9, 0.99)) == "faster" and judge(0.95, (0.9, 1.0)) == "no difference"
    assert judge(1.02, (1.01, 1.03)) == "no difference" and judge(1.02, (1.01, 1.03), 0.01) == "slower"


def test_it_repeats_by_seed_and_is_plain_json():
    rng = np.random.default_rng(0)
    each = [normal(rng, 10) for _ in range(3)]
    busy = Contention(1.0, 0.5, 0.0, 0.1, 0.0)
    found = compare(*each, busy, seed=1)
    assert found == compare(*each, busy, seed=1) and found.ci95 != compare(*each, seed=2).ci95
    assert found.plain() == {
        "verdict": "no difference",
        "ratio": found.ratio,
        "ci95": list(found.ci95),
        "control_ratio": found.control_ratio,
        "resolution": found.resolution,
        "contention": busy.plain(),
    }
