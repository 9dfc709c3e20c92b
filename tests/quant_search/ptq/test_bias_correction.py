import numpy as np
import pytest

from quant_search.layers import layers, values_of, with_values
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.bias_correction import correct_biases, mean_output
from quant_search.ptq.walk import Walk
from quant_search.weight_codes import rounded
from tests.quant_search.small_digits import digits, every, run, trained

X = digits()[0][:200]


@pytest.fixture(scope="module")
def fp32():
    return trained()


@pytest.fixture(scope="module")
def ranges(fp32):
    return activation_ranges(fp32, X)


def mean_errors(fp32, model, x):
    """Layer to the largest mean error among its channels."""
    plain, coarse = Walk(fp32, x), Walk(model, x)
    return {la.name: np.abs(mean_output(coarse, la) - mean_output(plain, la)).max() for la in layers(fp32)}


@pytest.mark.parametrize("bits", [8, 4])
def test_the_mean_error_of_every_channel_is_gone(fp32, ranges, bits):
    codes = rounded(fp32, dict.fromkeys(every(fp32), bits))
    corrected = correct_biases(fp32, every(fp32), ranges, X, codes)
    before, after = (mean_errors(fp32, quantize(m, every(fp32), ranges, codes), X) for m in (fp32, corrected))
    for name in before:
        assert after[name] < 5e-3 and after[name] < 0.1 * before[name], name


def test_biases_come_back_to_those_of_another_network(fp32, ranges):
    biases = {layer.bias for layer in layers(fp32)}
    moved = with_values(fp32, {n: value + 0.1 for n, value in values_of(fp32).items() if n in biases})
    corrected = correct_biases(moved, every(fp32), ranges, X, target=fp32)
    errors = mean_errors(fp32, quantize(corrected, every(fp32), ranges), X)
    assert max(errors.values()) < 5e-3 < max(mean_errors(fp32, moved, X).values())


def test_it_holds_on_other_images_and_brings_outputs_closer(fp32, ranges):
    codes = rounded(fp32, dict.fromkeys(every(fp32), 4))
    corrected = correct_biases(fp32, every(fp32), ranges, X, codes)
    x = digits()[0][1000:]
    y = run(fp32, x)
    off = [np.square(run(quantize(m, every(fp32), ranges, codes), x) - y).mean() for m in (fp32, corrected)]
    assert off[1] < 0.9 * off[0]


def test_only_the_named_layers_change_and_the_model_given_stays(fp32, ranges):
    before = fp32.SerializeToString()
    some = [name for name in every(fp32) if name.startswith("/block")]
    seen = []
    corrected = correct_biases(fp32, some, ranges, X, progress=lambda *at: seen.append(at))
    assert fp32.SerializeToString() == before
    changed = {t.name for t, u in zip(fp32.graph.initializer, corrected.graph.initializer, strict=True) if t != u}
    assert changed == {layer.bias for layer in layers(fp32) if layer.name in some}
    assert [(i, n) for i, n, _ in seen] == [(1, 3), (2, 3), (3, 3)]


def test_no_images_are_refused(fp32, ranges):
    with pytest.raises(ValueError, match="needs calibration images, got none"):
        correct_biases(fp32, every(fp32), ranges, X[:0])
