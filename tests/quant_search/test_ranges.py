"""Ranges by other methods than the extremes, which tests/quant_search/test_onnx_qdq.py holds against ONNX Runtime's."""

import numpy as np
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.catalog import OBSERVERS
from quant_search.formats import parse_format
from quant_search.observers import Percentile
from quant_search.onnx_qdq import quantize
from quant_search.ranges import activation_histograms, activation_ranges, ranges_of


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1))
    return to_onnx(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)), (3, 12, 12))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((40, 3, 12, 12)).astype(np.float32)


def ends(ranges):
    return {name: np.ravel(tensor.range_value) for name, tensor in ranges.items()}


def test_histograms_are_of_every_activation_over_all_images(model, images):
    seen = activation_histograms(model, images)
    extremes = activation_ranges(model, images)
    assert seen.keys() == extremes.data.keys()
    assert seen["input"].total == images.size and seen["input"].low == images.min()
    for name, values in ends(extremes).items():
        np.testing.assert_allclose([seen[name].low, seen[name].high], values, rtol=1e-6)
    relu = next(h for name, h in seen.items() if "Relu" in name)
    assert relu.zeros > 0.2 * relu.total and relu.low == 0


@pytest.mark.parametrize("method", OBSERVERS)
def test_ranges_are_the_same_whatever_the_batch(model, images, method):
    whole = ends(activation_ranges(model, images, method=method))
    for batch in (1, 7, 40):
        for name, found in ends(activation_ranges(model, images, batch, method=method)).items():
            np.testing.assert_allclose(found, whole[name], rtol=1e-3, atol=1e-3 * np.ptp(whole[name]))


def test_one_pass_serves_every_method(model, images):
    seen = activation_histograms(model, images)
    for method in OBSERVERS:
        for name, found in ends(ranges_of(seen, method)).items():
            np.testing.assert_allclose(found, ends(activation_ranges(model, images, method=method))[name], rtol=1e-6)


def test_a_method_may_be_a_value_and_the_format_another(model, images):
    seen = activation_histograms(model, images)
    wide, narrow = (ends(ranges_of(seen, Percentile(percent))) for percent in (100, 50))
    assert all(np.ptp(narrow[name]) < np.ptp(wide[name]) for name in seen)
    fine, coarse = (ends(ranges_of(seen, "mse", parse_format(name))) for name in ("uint8", "uint2"))
    assert np.ptp(coarse["input"]) < np.ptp(fine["input"])


def test_quantized_networks_with_any_of_the_ranges_are_close_to_fp32(model, images):
    def run(file):
        return open_session(file.SerializeToString(), parse_device("cpu")).run(images)

    y = run(model)
    nodes = [node.name for node in model.graph.node]
    for method in OBSERVERS:
        int8 = run(quantize(model, nodes, activation_ranges(model, images, nodes=nodes, method=method)))
        assert 0 < np.sqrt(np.mean((int8 - y) ** 2)) < 0.1 * y.std(), method


def test_an_activation_that_is_not_finite_is_named(model, images):
    broken = images.copy()
    broken[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="activation 'input': a histogram needs finite values, got nan"):
        activation_ranges(model, broken, method="entropy")


def test_what_there_is_not_is_refused_before_any_work(model, images):
    with pytest.raises(ValueError, match=r"unknown calibration method 'mean' .*there are min-max, percentile, mse"):
        activation_ranges(None, images, method="mean")
    with pytest.raises(ValueError, match=r"'entropi' \(did you mean 'entropy'\?\)"):
        ranges_of({}, "entropi")
    with pytest.raises(ValueError, match="mxfp4 has no scale for a whole tensor"):
        activation_ranges(None, images, method="mse", number=parse_format("mxfp4"))
    for method in OBSERVERS:
        with pytest.raises(ValueError, match="need calibration images, got none"):
            activation_ranges(model, images[:0], method=method)
        assert not activation_ranges(model, images, nodes=[], method=method).data
