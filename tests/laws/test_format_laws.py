"""Laws of number formats, over every ready-made format and granularity: small errors, and one result for all who round.

Extremes are zeros, subnormal and huge numbers, single elements and channels without values.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper

from quant_search.fake import fake_quantize, scales_of
from quant_search.formats import FORMATS, PER_TENSOR, BlockScaled, Integer, Minifloat, parse_format, per_channel
from quant_search.formats import per_group as groups
from quant_search.formats.granularity import split
from quant_search.formats.minifloat import power_below

LAW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
NUMBERS = st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127, allow_subnormal=True)
TENSORS = arrays(np.float32, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9), elements=NUMBERS)
LEAST = 2.0**-149  # of float32


def granularities(number):
    every = [PER_TENSOR, per_channel(0), groups(-1, 4), groups(0, 16), groups(-1, 32)]
    return [granularity for granularity in every if number.accepts(granularity)]


def everywhere():
    return [(number, granularity) for number in FORMATS.values() for granularity in granularities(number)]


def within(number, values):
    """`values` that the format is meant for: not below 0 where it has no sign and no zero point."""
    return np.abs(values) if isinstance(number, Integer) and number.symmetric and not number.signed else values


def allowed(number, values, scale):
    """What `values` may be off by: half a step, or half the distance of neighbouring numbers; and the cut values."""
    element = number.element if isinstance(number, BlockScaled) else number
    if isinstance(element, Integer):
        ends = (np.float64(scale) * end for end in (element.lowest, element.highest))
        return np.clip(values, *ends) if isinstance(number, BlockScaled) else values, scale / 2
    cut = np.clip(values.astype(np.float64), -element.largest * np.float64(scale), element.largest * np.float64(scale))
    size = np.minimum(np.abs(values / scale), np.float32(element.largest))
    ulp = np.maximum(power_below(size), np.float32(2.0**element.least_exponent)) * np.float64(2.0**-element.mantissa)
    return cut, ulp * scale / 2


@LAW
@given(TENSORS)
def test_values_are_off_by_half_a_step_at_most(drawn):
    for number, granularity in everywhere():
        values = within(number, drawn)
        scales = number.scales(values, granularity)
        assert scales.scale.dtype == np.float32 and (scales.scale > 0).all() and np.isfinite(scales.scale).all()
        rounded = number.round_trip(values, granularity, scales)
        assert rounded.dtype == np.float32 and rounded.shape == values.shape and np.isfinite(rounded).all()
        (blocks, layout), (found, _) = split(values, granularity), split(rounded, granularity)
        cut, most = allowed(number, blocks, scales.scale.reshape(layout.broadcast))
        error = np.abs(found.astype(np.float64) - cut)
        assert (error <= most * (1 + 1e-6) + np.abs(blocks) * 2.0**-22 + LEAST).all(), (number.name, str(granularity))


@LAW
@given(TENSORS)
def test_what_is_rounded_stays_as_it_is(drawn):
    for number, granularity in everywhere():
        values = within(number, drawn)
        scales = number.scales(values, granularity)
        once = number.round_trip(values, granularity, scales)
        if number.bits < 32 and (scales.scale > 2.0**-100).all():  # subnormal products are rounded once more
            np.testing.assert_array_equal(number.round_trip(once, granularity, scales), once, number.name)
        codes = number.codes(values, scales, granularity)
        np.testing.assert_array_equal(number.values(codes, scales, granularity), once)
        assert (once[values == 0] == 0).all()


@LAW
@given(TENSORS)
def test_torch_rounds_as_the_reference_does(drawn):
    for number, granularity in everywhere():
        values = within(number, drawn)
        tensor = torch.from_numpy(values)
        scales, twin = number.scales(values, granularity), scales_of(tensor, number, granularity)
        assert bits(twin.scale.numpy()) == bits(scales.scale), (number.name, str(granularity))
        np.testing.assert_array_equal(twin.zero.numpy(), scales.zero)
        rounded = number.round_trip(values, granularity)
        assert bits(fake_quantize(tensor, number, granularity).numpy()) == bits(rounded), (
            number.name,
            str(granularity),
        )


def bits(values):
    return values.shape, values.dtype, values.tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_torch_rounds_many_values_as_the_reference_does(name):
    number = FORMATS[name]
    rng = np.random.default_rng(0)
    for granularity in granularities(number):
        values = (rng.standard_normal((48, 65)) * np.exp(4 * rng.standard_normal((48, 1)))).astype(np.float32)
        found = fake_quantize(torch.from_numpy(values), number, granularity).numpy()
        assert bits(found) == bits(number.round_trip(values, granularity))


@pytest.mark.parametrize("name", FORMATS)
def test_larger_values_do_not_get_smaller(name):
    number = FORMATS[name]
    rng = np.random.default_rng(0)
    for size in (2, 5, 16):
        values = within(number, np.sort((rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6)).astype(np.float32)))
        rounded = number.round_trip(np.sort(values))
        assert (np.diff(rounded) >= 0).all()


@pytest.mark.parametrize("name", FORMATS)
def test_names_and_sizes(name):
    number = FORMATS[name]
    assert number.name == str(number) == name and parse_format(name) == number
    assert number.bits <= 8 * number.dtype.itemsize
    for granularity in granularities(number):
        plain = 6 * 80 * number.bits
        scales = int(np.prod(granularity.scale_shape((6, 80))))
        assert plain <= number.storage_bits((6, 80), granularity) <= plain + scales * 48 + 32
        assert number.scales(np.ones((6, 80), np.float32), granularity).scale.size == scales


def sqnr(number, values):
    error = number.round_trip(values).astype(np.float64) - values
    return 10 * np.log10(np.mean(values.astype(np.float64) ** 2) / np.mean(error**2))


@pytest.mark.parametrize("family", ["int{}", "uint{}", "bfp{}", "int{}x32-e8m0", "e4m{}-finite", "e2m{}x32-e8m0"])
def test_each_bit_brings_six_decibels(family):
    values = np.random.default_rng(0).uniform(-1, 1, 2**16).astype(np.float32)
    if "uint" in family or family == "int{}":
        for n in (2, 3, 4, 5, 6, 7, 8, 16):
            steps = 2**n - 1 if "uint" in family else 2**n - 2  # even ones have a code at 0
            assert sqnr(parse_format(family.format(n)), values) == pytest.approx(20 * np.log10(steps), abs=0.1)
        return
    found = np.array([sqnr(parse_format(family.format(n)), values) for n in range(3, 8)])
    np.testing.assert_allclose(np.diff(found), 6.02, atol=0.7)


TYPES = {
    "int2": ("INT2", 25),
    "uint2": ("UINT2", 25),
    "int4": ("INT4", 21),
    "uint4": ("UINT4", 21),
    "int8": ("INT8", 21),
    "int8-affine": ("INT8", 21),
    "uint8": ("UINT8", 21),
    "int16": ("INT16", 21),
    "uint16": ("UINT16", 21),
    "e4m3": ("FLOAT8E4M3FN", 21),
    "e5m2": ("FLOAT8E5M2", 21),
}


def run_time(number, granularity, shape):
    """ONNX Runtime's QuantizeLinear, codes in a type of their own range, and DequantizeLinear."""
    kind, opset = TYPES[number.name]
    settings = {} if granularity.axis is None else {"axis": granularity.axis}
    settings |= {} if granularity.size is None else {"block_size": granularity.size}
    if not hasattr(TensorProto, kind) or onnx.defs.onnx_opset_version() < opset:
        pytest.skip(f"this onnx has no {kind}")
    plain = TensorProto.FLOAT if isinstance(number, Minifloat) else TensorProto.INT32
    nodes = [
        helper.make_node("Cast", ["zero"], ["typed"], to=getattr(TensorProto, kind)),
        helper.make_node("QuantizeLinear", ["values", "scale", "typed"], ["codes"], **settings),
        helper.make_node("DequantizeLinear", ["codes", "scale", "typed"], ["rounded"], **settings),
        helper.make_node("Cast", ["codes"], ["plain"], to=plain),
    ]
    of_scales = granularity.scale_shape(shape)
    ends = [("values", TensorProto.FLOAT, shape), ("scale", TensorProto.FLOAT, of_scales), ("zero", plain, of_scales)]
    outputs = [("plain", plain, shape), ("rounded", TensorProto.FLOAT, shape)]
    made = [[helper.make_tensor_value_info(*end) for end in some] for some in (ends, outputs)]
    graph = helper.make_graph(nodes, "g", *made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        pytest.skip(f"this ONNX Runtime has no kernel for {kind}")


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("granularity", [PER_TENSOR, per_channel(1), groups(1, 16), groups(0, 8)], ids=str)
def test_the_run_time_has_the_same_codes(name, granularity):
    number, shape = FORMATS[name], (24, 32)
    rng = np.random.default_rng(0)
    session = run_time(number, granularity, shape)
    for size in (1e-36, 1e-3, 1.0, 3e9):
        values = (rng.standard_normal(shape) * size).astype(np.float32)
        values[:, 3], values[5] = 0, np.round(values[5] * 4 / size) * np.float32(size / 4)  # nothing, and ties
        scales = number.scales(values / 2, granularity)  # half of the range: much is cut
        zero = (
            np.zeros(scales.zero.shape, np.float32) if isinstance(number, Minifloat) else scales.zero.astype(np.int32)
        )
        codes, rounded = session.run(None, {"values": values, "scale": scales.scale, "zero": zero})
        ours = number.codes(values, scales, granularity)
        np.testing.assert_array_equal(codes, number.numbers(ours) if isinstance(number, Minifloat) else ours)
        np.testing.assert_array_equal(rounded, number.round_trip(values, granularity, scales))
