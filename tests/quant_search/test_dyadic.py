import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from latency.lowering import to_onnx
from quant_search.dyadic import dyadic, run_integers, shifted, with_dyadic_scales
from quant_search.layers import layers_of_codes
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.weight_codes import rounded
from tests.quant_search.small_digits import accuracy_of, digits, every, run, trained

X = digits()[0][:60]
LAW = settings(max_examples=30, deadline=None, derandomize=True, database=None)


class Pools(nn.Module):
    """Every pool, a product of two branches and a sum of three."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 3, 1, 1)
        x = torch.relu(self.one(x) + self.two(x) + x)
        x = nn.functional.avg_pool2d(x, 2) * nn.functional.max_pool2d(x, 2)
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def pools():
    torch.manual_seed(0)
    return to_onnx(Pools(), (1, 8, 8))


NETWORKS = {"relu": trained, "relu6": lambda: trained(nn.ReLU6), "pools": pools}


@pytest.fixture(scope="module", params=NETWORKS)
def int8(request):
    model = NETWORKS[request.param]()
    return quantize(model, every(model), activation_ranges(model, X))


def output_step(model):
    node = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    return float(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == node.input[1])))


def test_integers_and_the_run_time_agree_within_a_code(int8):
    model = with_dyadic_scales(int8)
    onnx.checker.check_model(model, full_check=True)
    step = output_step(model)
    x = digits()[0][500:560]
    off = np.round((run_integers(model, x) - run(model, x)) / step)
    assert np.abs(off).max() <= 1
    assert (off == 0).mean() > 0.85  # averages of four codes are halves in a quarter of cases, which floats miss


def test_ratios_of_the_file_are_dyadic_and_weights_hardly_move(int8):
    model = with_dyadic_scales(int8)
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (int8, model))
    made = {node.output[0]: node for node in model.graph.node}
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    scales = {made[made[layer.output].input[1]].input[1] for layer in layers_of_codes(model)}
    assert scales & moved and all(name in scales or "quantized" in name for name in moved)
    for name in scales:
        np.testing.assert_allclose(after[name], before[name], rtol=2**-16)
    for layer in layers_of_codes(model):
        x, w = (made[name] for name in made[layer.output].input[:2])
        rounding = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and layer.output in n.input]
        for node in rounding:
            ratio = after[w.input[1]].astype(np.float64) * after[x.input[1]] / after[node.input[1]]
            b, c = dyadic(ratio)
            assert (np.abs(np.ldexp(b.astype(float), -c) / ratio - 1) < 2**-22).all()


def test_accuracy_stays():
    model = trained()
    x, y = (part[1000:1100] for part in digits())
    int8 = quantize(model, every(model), activation_ranges(model, X))
    dyadic_ = with_dyadic_scales(int8)
    assert abs(accuracy_of(dyadic_, x, y) - accuracy_of(int8, x, y)) <= 0.011
    assert abs((run_integers(dyadic_, x).argmax(1) == y).mean() - accuracy_of(dyadic_, x, y)) <= 0.011


def test_packed_weights_run_in_integers_too():
    model = trained()
    packed = quantize(model, every(model), activation_ranges(model, X), rounded(model, dict.fromkeys(every(model), 4)))
    packed = with_dyadic_scales(packed)
    off = np.round((run_integers(packed, X) - run(packed, X)) / output_step(packed))
    assert np.abs(off).max() <= 1


@LAW
@given(ratio=st.floats(1e-9, 1e3), bits=st.integers(4, 24))
def test_dyadic_numbers_are_as_close_as_their_bits(ratio, bits):
    b, c = dyadic(np.array(ratio), bits)
    assert 0 <= c <= 62 and (c in (0, 62) or 2 ** (bits - 1) <= b <= 2**bits)
    assert c in (0, 62) or abs(int(b) / 2.0 ** int(c) - ratio) <= ratio * 2.0**-bits


@LAW
@given(value=st.integers(-(2**40), 2**40), c=st.integers(0, 30))
def test_shifts_round_to_the_nearest(value, c):
    assert int(shifted(np.int64(value), np.int64(c))) == np.round(value / 2**c)


def test_floats_between_codes_are_refused():
    torch.manual_seed(0)
    model = to_onnx(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 3)), (1, 8, 8))
    int8 = quantize(model, every(model), activation_ranges(model, X))
    with pytest.raises(ValueError, match="is a HardSwish, which is not computed in integers"):
        run_integers(int8, X[:2])
    with pytest.raises(ValueError, match=r"only positive finite ratios are dyadic numbers, got 0\.0\.\.1\.0"):
        dyadic(np.array([0.0, 1.0]))
