import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from latency.lowering import to_onnx
from quant_search.layers import layers
from quant_search.marks import mark
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from quant_search.twin import Twin, without_dropped
from quant_search.weight_codes import weight_bits
from tests.quant_search.small_digits import digits, every, run, trained

X = digits()[0][1000:1200]
GROUPS = by_layer(trained())
POLICIES = {
    "int8": dict.fromkeys(GROUPS, "int8"),
    "w4a8": dict.fromkeys(GROUPS, "w4a8"),
    "w2a8": dict.fromkeys(GROUPS, "w2a8"),
    "mixed": dict(zip(GROUPS, ("int8", "w3a8", "w4a8", "w6a8", "fp32", "fp32"), strict=True)),
    "weights alone": dict.fromkeys(GROUPS, "w3"),
    "fp32": dict.fromkeys(GROUPS, "fp32"),
}


def twin_of(chosen, model=None):
    model = trained() if model is None else model
    groups = by_layer(model)
    ranges = activation_ranges(model, digits()[0][:300], nodes=nodes_in_int8(groups, chosen))
    return Twin(model, groups, chosen, ranges)


def outputs(twin, x=X):
    with torch.no_grad():
        return twin(torch.from_numpy(x)).numpy()


def file_of(twin, chosen, model=None):
    model = trained() if model is None else model
    return in_precisions(twin.fp32(model), by_layer(model), chosen, twin.ranges(), twin.codes())


@pytest.mark.parametrize("name", POLICIES)
def test_the_twin_is_the_file_code_by_code(name):
    twin = twin_of(POLICIES[name])
    off = np.abs(outputs(twin) - run(file_of(twin, POLICIES[name]), X))
    step = np.ptp(run(trained(), X)) / 255
    assert off.max() < 1.1 * step and np.mean(off > 0.01 * step) < 0.01
    if name != "fp32":
        assert np.abs(outputs(twin) - run(trained(), X)).max() > 0.5 * step


@pytest.mark.parametrize("name", ["int8", "w4a8", "mixed"])
def test_it_is_the_file_wherever_its_weights_and_steps_go(name):
    twin = twin_of(POLICIES[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter *= torch.rand(parameter.shape, generator=generator) * 0.4 + 0.8
        for parameter in twin.steps.parameters():
            parameter *= torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1  # of either sign
    found, file = outputs(twin), run(file_of(twin, POLICIES[name]), X)
    assert np.abs(found - run(trained(), X)).max() > 0.1 * np.ptp(found)
    assert np.mean(np.abs(found - file) > 1e-3 * np.ptp(found)) < 0.02


def test_a_range_below_zero_ends_where_a_dropped_function_cut():
    """What rounding stands for is not in the twin: where steps grow, ReLU6 does not cut in the file either."""
    model = trained(torch.nn.ReLU6)
    chosen = dict.fromkeys(by_layer(model), "int8")
    twin = twin_of(chosen, model)
    marks = mark(model, every(model))
    plain = without_dropped(model, marks)
    assert {"Clip", "Relu"}.isdisjoint(node.op_type for node in plain.graph.node) and marks.renamed
    onnx.checker.check_model(plain)
    with torch.no_grad():
        for parameter in twin.steps.parameters():
            parameter *= 1.7
    off = np.abs(outputs(twin, 4 * X) - run(file_of(twin, chosen, model), 4 * X))
    assert np.mean(off > 1e-3 * np.ptp(off)) < 0.05


def test_weights_begin_with_steps_that_hold_them_or_smaller_ones():
    values = {t.name: numpy_helper.to_array(t) for t in trained().graph.initializer}
    for name, bits in (("int8", 8), ("w2a8", 2)):
        codes = twin_of(POLICIES[name]).codes()
        assert set(codes) == {layer.name for layer in layers(trained())}
        for layer in layers(trained()):
            found = codes[layer.name]
            most = np.abs(values[layer.weight]).max(tuple(i for i in range(len(layer.shape)) if i != layer.out_axis))
            ratio = found.scale * found.format.highest / most
            assert np.all(ratio < 1.0001) and found.format.bits == min(bits, weight_bits())
            assert (ratio.min() > 0.999) == (bits == 8)


def test_every_weight_and_step_learns_from_the_loss():
    twin = twin_of(POLICIES["w4a8"])
    twin(torch.from_numpy(X)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in twin.weights)
    gradients = [step.scale.grad for step in twin.steps]
    assert all(g is not None for g in gradients) and sum(bool(g.abs().sum() > 0) for g in gradients) == len(gradients)


def test_an_activation_without_a_range_is_refused():
    stem = next(iter(GROUPS))
    ranges = activation_ranges(trained(), X, nodes=GROUPS[stem])
    with pytest.raises(ValueError, match="no range of the activation '/block"):
        Twin(trained(), GROUPS, POLICIES["int8"], ranges)


def test_a_weight_of_one_value_is_a_weight():
    torch.manual_seed(0)
    layers_ = (torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    model = to_onnx(torch.nn.Sequential(*layers_), (1, 8, 8))
    chosen = dict.fromkeys(by_layer(model), "w4a8")
    twin = twin_of(chosen, model)
    assert len(twin.codes()) == 2 and len(twin.by_name()) == 4
    off = np.abs(outputs(twin) - run(file_of(twin, chosen, model), X))
    assert np.mean(off > 1e-3 * np.ptp(outputs(twin))) < 0.01
