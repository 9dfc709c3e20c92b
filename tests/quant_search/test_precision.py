import numpy as np
import pytest
from onnx import numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.onnx_qdq import quantize
from quant_search.precision import Precision, in_precisions, parse_precision, rounded, weights_of
from quant_search.ranges import activation_ranges
from quant_search.sensitivity.subject import by_layer
from tests.quant_search.digits_network import digits, trained

CPU = parse_device("cpu")


def values(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_precisions_by_name():
    assert parse_precision("fp32") == Precision() and parse_precision("int8") == Precision(8, 8)
    assert parse_precision("w4a8") == Precision(4, 8) and parse_precision("w2") == Precision(2)
    for name in ("int4", "w1a8", "w9", "w4a4", "a8", "w4a8x", ""):
        with pytest.raises(ValueError, match="unknown precision"):
            parse_precision(name)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_are_rounded_to_steps_of_their_channel(bits):
    weight = np.random.default_rng(0).standard_normal((5, 4, 3, 3)).astype(np.float32)
    weight[1] = 0
    less, largest = rounded(weight, 0, bits), 2 ** (bits - 1) - 1
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / largest
    assert np.all(np.abs(less - weight) <= 0.5001 * step) and not less[1].any()
    codes = less[[0, 2, 3, 4]] / step[[0, 2, 3, 4]]
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
    assert np.abs(np.round(codes)).max() == largest
    assert len(np.unique(rounded(weight, None, bits))) <= 2 * largest + 1


def test_every_group_is_in_its_own_precision():
    model, groups = trained(), by_layer(trained())
    x = digits()[0][:32]
    ranges = activation_ranges(model, x)
    stem, spatial, project, down, classifier = groups
    file = in_precisions(model, groups, {stem: "int8", spatial: "w4", project: "w4a8", down: "fp32"}, ranges)
    before, after, of = values(model), values(file), {g: list(weights_of(model, n)) for g, n in groups.items()}
    assert np.array_equal(before[of[down][0]], after[of[down][0]])
    assert np.array_equal(before[of[classifier][0]], after[of[classifier][0]])
    assert np.array_equal(after[of[spatial][0]], rounded(before[of[spatial][0]], 0, 4))
    for group, most in ((stem, 255), (project, 15)):
        codes = after[f"{of[group][0]}_quantized"]
        assert codes.dtype == np.int8 and max(len(np.unique(channel)) for channel in codes) <= most
    logits = open_session(file.SerializeToString(), CPU).run(x)
    assert np.isfinite(logits).all()


def test_int8_everywhere_is_the_writers_own_file_and_fp32_the_model():
    model, groups = trained(), by_layer(trained())
    ranges, nodes = activation_ranges(model, digits()[0][:32]), [n for own in groups.values() for n in own]
    before = model.SerializeToString()
    assert in_precisions(model, groups, dict.fromkeys(groups, "int8"), ranges) == quantize(model, nodes, ranges)
    assert in_precisions(model, groups, dict.fromkeys(groups, "fp32"), ranges) == model
    assert model.SerializeToString() == before
