from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from latency.runtimes.onnx_runtime import optimised_graph
from quant_search.formats.granularity import per_channel
from quant_search.formats.integer import Integer
from quant_search.layers import layers, values_of
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.weight_codes import (
    WeightCodes,
    packed_tensor,
    rounded,
    scales_of_least_error,
    weight_bits,
    weight_format,
)
from tests.quant_search.small_digits import CPU, accuracy_of, digits, every, run, trained
from tests.quant_search.tied import some_images, tied


@pytest.fixture(scope="module")
def fp32():
    return trained()


@pytest.fixture(scope="module")
def ranges(fp32):
    return activation_ranges(fp32, digits()[0][:100])


def squared_error(model, codes):
    values = values_of(model)
    return {la.name: np.square(codes[la.name].weight(la.out_axis) - values[la.weight]).sum() for la in layers(model)}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_scales_of_least_error_are_no_worse_than_those_that_cover_all(fp32, bits):
    uniform = dict.fromkeys(every(fp32), bits)
    nearest, covering = (squared_error(fp32, rounded(fp32, uniform, scales)) for scales in ("mse", "max"))
    assert set(nearest) == {layer.name for layer in layers(fp32)}
    assert all(nearest[name] <= covering[name] * 1.0001 for name in nearest)
    if bits == 2:
        assert sum(nearest.values()) < 0.7 * sum(covering.values())


def test_a_scale_for_each_channel_or_one(fp32):
    bits = dict.fromkeys(every(fp32), 4)
    for layer in layers(fp32):
        assert rounded(fp32, bits)[layer.name].scale.shape == (layer.out_channels,)
        assert rounded(fp32, bits, channels=False)[layer.name].scale.shape == ()


def test_eight_bits_by_range_are_what_the_writer_rounds_itself(fp32, ranges):
    codes = rounded(fp32, dict.fromkeys(every(fp32), 8), "max")
    assert quantize(fp32, every(fp32), ranges, codes) == quantize(fp32, every(fp32), ranges)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packed_codes_run_in_the_kernels_and_to_the_outputs_of_their_int8_twin(fp32, ranges, bits):
    codes = rounded(fp32, dict.fromkeys(every(fp32), bits))
    packed, plain = (quantize(fp32, every(fp32), ranges, codes, pack) for pack in (True, False))
    onnx.checker.check_model(packed, full_check=True)
    x = digits()[0][:200]
    np.testing.assert_array_equal(run(packed, x), run(plain, x))
    kernels = [
        Counter(node.op_type for node in optimised_graph(m.SerializeToString(), CPU).graph.node)
        for m in (packed, plain)
    ]
    assert kernels[0] == kernels[1] and kernels[0]["QLinearConv"] + kernels[0]["QGemm"] == len(layers(fp32))


def test_a_packed_weight_takes_half_the_bytes(fp32, ranges):
    codes = rounded(fp32, dict.fromkeys(every(fp32), 4))
    stored = [
        {t.name: len(t.raw_data) for t in quantize(fp32, every(fp32), ranges, codes, pack).graph.initializer}
        for pack in (True, False)
    ]
    for layer in layers(fp32):
        size = stored[1][f"{layer.weight}_quantized"]
        assert stored[0][f"{layer.weight}_packed"] == (size + 1) // 2 and f"{layer.weight}_quantized" not in stored[0]


def test_accuracy_falls_with_the_bits(fp32, ranges):
    x, y = (part[1000:] for part in digits())
    found = []
    for bits in (8, 4, 2):
        codes = rounded(fp32, dict.fromkeys(every(fp32), bits))
        found.append(accuracy_of(quantize(fp32, every(fp32), ranges, codes), x, y))
    assert found[0] > accuracy_of(fp32, x, y) - 0.02 and found[0] > found[1] > found[2]


def test_bits_of_one_layer_leave_the_others_in_int8(fp32, ranges):
    name = "/block.3/Conv"
    model = quantize(fp32, every(fp32), ranges, rounded(fp32, {name: 3}))
    stored = {t.name: t.data_type for t in model.graph.initializer}
    for layer in layers(fp32):
        chosen = layer.name == name
        kept = f"{layer.weight}_{'packed' if chosen else 'quantized'}"
        assert stored[kept] == (TensorProto.INT4 if chosen else TensorProto.INT8)


def test_codes_of_nodes_that_are_not_quantized_are_not_used(fp32, ranges):
    assert quantize(fp32, [], ranges, rounded(fp32, {"/last/Gemm": 4})) == fp32


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_packed_tensors_hold_the_codes(count):
    codes = np.random.default_rng(0).integers(-8, 8, count).astype(np.int8)
    assert numpy_helper.to_array(packed_tensor(codes, "w")).astype(np.int8).tolist() == codes.tolist()


def test_formats_of_weights():
    assert weight_format(4) == Integer(4) and weight_format(8) == Integer(8, reduced=weight_bits() == 7)
    with pytest.raises(ValueError, match=r"weights are symmetric signed integers of 2 to 8 bits .* got int16"):
        weight_format(16)
    with pytest.raises(ValueError, match=r"codes of int3 lie in -4\.\.3, got 0..4"):
        WeightCodes(np.array([0, 4], np.int8), np.ones(()), Integer(3))
    with pytest.raises(ValueError, match="scales of weight codes must be positive"):
        WeightCodes(np.array([0, 4], np.int8), np.zeros(()), Integer(4))


def test_codes_that_do_not_fit_are_refused(fp32, ranges):
    codes = rounded(fp32, {"/last/Gemm": 4})
    with pytest.raises(ValueError, match=r"'/stem.0/Conv' has a weight of shape .* got codes of \(10, 64\)"):
        quantize(fp32, every(fp32), ranges, {"/stem.0/Conv": codes["/last/Gemm"]})
    with pytest.raises(ValueError, match="unknown scales 'least': there are mse, max"):
        rounded(fp32, {"/last/Gemm": 4}, "least")
    with pytest.raises(ValueError, match="codes are given for '/lost/Gemm', which is no node of the model"):
        quantize(fp32, every(fp32), ranges, {"/lost/Gemm": codes["/last/Gemm"]})


def test_least_error_is_found_among_shares_of_the_range():
    weight = np.array([[1.0, -1.0, 1.0, 8.0], [3.0, 3.0, -3.0, 3.0]], np.float32)
    scale = scales_of_least_error(weight, Integer(2), per_channel(0))
    assert scale.shape == (2,) and scale[0] > 3 and abs(scale[1] - 3) < 0.1


def test_layers_that_share_a_weight_have_the_same_codes():
    codes = rounded(tied(), {"one": 4, "two": 4, "last": 4})
    assert codes["one"] is codes["two"] is not codes["last"]
    apart = rounded(tied(), {"one": 4, "two": 3})
    assert apart["one"].format.bits == 4 and apart["two"].format.bits == 3


def test_codes_of_a_shared_weight_are_compared_by_value():
    ranges = activation_ranges(tied(), some_images()[0])
    codes = rounded(tied(), {"one": 4, "two": 4})
    again = rounded(tied(), {"two": 4})
    nodes = every(tied())
    assert quantize(tied(), nodes, ranges, codes | again) == quantize(tied(), nodes, ranges, codes)
    with pytest.raises(ValueError, match="node 'two' shares its weight 'w': give both nodes the same codes"):
        quantize(tied(), nodes, ranges, codes | rounded(tied(), {"two": 3}))
