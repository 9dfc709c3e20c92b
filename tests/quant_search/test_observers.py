"""Ranges from histograms against brute force, known answers, and ONNX Runtime's own search."""

import itertools

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from quant_search.catalog import OBSERVERS
from quant_search.formats import parse_format
from quant_search.histogram import histogram
from quant_search.observers import Entropy, MeanSquare, Percentile, min_max

UINT8 = parse_format("uint8")


def drawn(kind, n=200_000):
    rng = np.random.default_rng(0)
    values = {
        "gauss": lambda: rng.standard_normal(n),
        "relu": lambda: np.maximum(rng.standard_normal(n), 0),
        "laplace": lambda: rng.laplace(size=n),
        "skewed": lambda: rng.exponential(size=n) - 0.3,
        "far": lambda: 5 + rng.random(n),
        "outlier": lambda: np.append(rng.standard_normal(n), 60),
    }[kind]()
    return values.astype(np.float32)


KINDS = ("gauss", "relu", "laplace", "skewed", "far", "outlier")


def error(values, ends, number):
    scales = number.covering(*np.array(ends, np.float32))
    return np.mean((number.round_trip(values, scales=scales).astype(np.float64) - values) ** 2)


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_ranges_lie_inside_of_what_was_seen(name, kind):
    values = drawn(kind)
    low, high = OBSERVERS[name](histogram(values), UINT8)
    assert values.min() <= low <= high <= values.max()
    assert high > 0.3 * np.percentile(values, 99.9)


@pytest.mark.parametrize("name", OBSERVERS)
def test_one_value_is_its_own_range(name):
    for value in (0.0, 3.0, -2.5):
        low, high = OBSERVERS[name](histogram(np.full(10, value)), UINT8)
        np.testing.assert_allclose([low, high], [value, value], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_percentiles_are_those_of_the_values(kind):
    values, seen = drawn(kind), histogram(drawn(kind))
    for percent in (90, 99, 99.9):
        low, high = Percentile(percent)(seen, UINT8)
        tail = (100 - percent) / 2
        np.testing.assert_allclose([low, high], np.percentile(values, [tail, 100 - tail]), atol=seen.width)
    assert Percentile(100)(seen, UINT8) == min_max(seen, UINT8) == (values.min(), values.max())


@pytest.mark.parametrize("name", ["uint8", "uint4", "int4", "int2", "e2m1"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_range_of_a_fine_grid_has_a_smaller_squared_error(name, kind):
    number, values = parse_format(name), drawn(kind, 20_000)
    found = error(values, MeanSquare()(histogram(values), number), number)
    ends = np.array([min(values.min(), 0), max(values.max(), 0)])
    shares = np.linspace(1, 0.02, 50)
    diagonal = min(error(values, share * ends, number) for share in shares)
    sides = min(error(values, ends * [1, share], number) for share in shares)
    assert found <= 1.02 * min(diagonal, sides)
    assert found <= error(values, ends, number) * (1 + 1e-3)


def test_few_bits_cut_more_than_many():
    seen = histogram(drawn("laplace"))
    highs = [MeanSquare()(seen, parse_format(name))[1] for name in ("int2", "int3", "int4", "int6", "int8")]
    assert highs == sorted(highs) and highs[0] < 0.5 * highs[-1]


def test_steps_for_a_gauss_curve_are_those_of_max():
    """Max, Quantizing for Minimum Distortion (1960), table II; ours have 2^b codes, one more below zero."""
    seen = histogram(drawn("gauss", 1_000_000))
    for name, steps, (with_these, with_one_less) in (("int4", 7, (0.3352, 0.3534)), ("int3", 3, (0.5860, 0.6508))):
        low, high = MeanSquare()(seen, parse_format(name))
        assert 0.99 * with_these < high / steps < 1.01 * with_one_less and low == -high


def test_formats_around_zero_are_cut_evenly():
    for name in ("int2", "int8", "e4m3"):
        low, high = MeanSquare()(histogram(drawn("skewed")), parse_format(name))
        assert low == max(-high, drawn("skewed").min())


def divergence(counts, bins, levels):
    """TensorRT's, as its slides have it: bins 0 to `bins` of one side, the rest at the end, against `levels` groups."""
    p = counts[:bins].astype(np.float64)
    q = np.zeros(bins)
    edges = np.round(np.arange(levels + 1) * bins / levels).astype(int)
    for start, stop in itertools.pairwise(edges):
        some = p[start:stop] != 0
        if some.any():
            q[start:stop][some] = p[start:stop].sum() / some.sum()
    p[-1] += counts[bins:].sum()
    p, q = p / p.sum(), q / q.sum()
    there = (p > 0) & (q > 0)
    return np.sum(p[there] * np.log(p[there] / q[there]))


@pytest.mark.parametrize("kind", ["relu", "outlier", "laplace"])
def test_the_entropy_range_is_as_good_as_that_of_tensorrt(kind):
    seen = histogram(np.abs(drawn(kind)))
    _, high = Entropy(filling=1)(seen, parse_format("uint8-symmetric"))
    found = [divergence(seen.other_counts, bins, 256) for bins in range(256, len(seen.counts) + 1, 8)]
    at = divergence(seen.other_counts, round(high / seen.width), 256)
    assert high >= 256 * seen.width
    assert at <= min(found) + 0.01 * (max(found) - min(found))


def test_with_few_values_entropy_cuts_nothing():
    for n in (1, 10, 300, 2000):
        seen = histogram(drawn("gauss", n))
        assert Entropy()(seen, UINT8) == (seen.low, seen.high)


def test_the_entropy_range_is_near_that_of_the_run_times_own_calibrator():
    values = drawn("outlier")
    edge = np.abs(values).max()
    counts, edges = np.histogram(values, 2048 + 1, (-edge, edge))
    collector = HistogramCollector("entropy", True, 2048, 128, 99.99, "same")
    theirs = collector.get_entropy_threshold((counts, edges, values.min(), values.max(), edge), 255)
    _, high = Entropy()(histogram(values), parse_format("int8"))
    assert 0.5 < high / float(np.ravel(theirs[1])[0]) < 2 and high < 0.5 * edge


def test_an_outlier_is_cut_by_all_but_min_max():
    seen = histogram(drawn("outlier"))
    highs = {name: observer(seen, parse_format("uint4"))[1] for name, observer in OBSERVERS.items()}
    assert highs.pop("min-max") == 60
    assert all(2 < high < 5 for high in highs.values()), highs


def test_a_percentile_beyond_is_refused():
    for percent in (0, 100.1, -5):
        with pytest.raises(ValueError, match=f"above 0 and at most at 100, got {percent}"):
            Percentile(percent)
