"""Whole networks against ONNX Runtime, as they are exported."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from rows import file_of, floats, ints
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from latency.runtimes.onnx_to_torch import to_torch

CPU = parse_device("cpu")


class Mixed(nn.Module):
    """Convolution, tokens, attention, split and concatenation; shapes that depend on the batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2))
        self.norm, self.q, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(16, 5)
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x):
        x = nn.functional.pad(self.stem(x), (1, 0, 1, 0))
        t = x.flatten(2).transpose(1, 2)
        t = self.norm(torch.cat((self.token.expand(t.shape[0], -1, -1), t), 1))
        t = t + self.q(t).softmax(-1) @ t.transpose(1, 2) @ t
        a, b = t[:, 0].chunk(2, -1)
        return self.head(torch.cat((a, b, t.mean(1)), 1))


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    return to_onnx(Mixed(), (3, 8, 8))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_gives_what_onnx_runtime_gives_at_any_batch(mixed, batch):
    x = floats(batch, 3, 8, 8)
    expected = open_session(mixed.SerializeToString(), CPU).run(x)
    with torch.inference_mode():
        got = to_torch(mixed)(torch.from_numpy(x)).numpy()
    assert got.shape == expected.shape == (batch, 5)
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_what_depends_on_weights_alone_is_computed_once(mixed):
    model = file_of([("Add", [floats(9)], {})])
    weights = helper.make_node("Exp", ["w0_0"], ["e"], name="exp")
    model.graph.node[0].input[1] = "e"
    model.graph.node.insert(0, weights)
    module = to_torch(model)
    assert [step.called for step in module._steps] == ["node 'Add_0' (Add)", "node 'logits' (Reshape)"]
    assert [tuple(b.shape) for b in module.buffers()] == [(9,)]


def test_tensors_are_let_go_when_nothing_needs_them(mixed):
    steps = to_torch(mixed)._steps
    freed = [name for step in steps for name in step.frees]
    made = [name for step in steps for name in step.outputs]
    assert len(freed) == len(set(freed)) and set(made) - set(freed) == {"logits"}


def test_an_unknown_operator_attribute_or_form_is_named():
    model = file_of([("Relu", [], {})])
    model.graph.node[0].op_type = "Rleu"
    with pytest.raises(ValueError, match=r"node 'Relu_0' \(Rleu\): torch has no form of this operator here; .* on cpu"):
        to_torch(model)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Relu", "com.microsoft"
    with pytest.raises(ValueError, match="no form of this operator"):
        to_torch(model)
    with pytest.raises(ValueError, match=r"node 'Relu_0' \(Relu\): its attribute 'slope' is not known"):
        to_torch(file_of([("Relu", [], {"slope": 1.0})]))
    with pytest.raises(ValueError, match=r"node 'Relu_0' \(Relu\) does not fit its operator"):
        to_torch(file_of([("Relu", [floats(2)], {})]))
    pooled = file_of([("MaxPool", [], {"kernel_shape": [2, 2]})])
    pooled.graph.node[0].output.append("indices")
    with pytest.raises(ValueError, match="has 2 outputs, and its form in torch has one"):
        to_torch(pooled)


def test_quantized_models_and_old_opsets_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"QuantizeLinear_0.* is quantized, and torch runs fp32 .*--precision fp32"):
        to_torch(file_of([("QuantizeLinear", [np.float32(0.1), np.uint8(3)], {})]))
    with pytest.raises(ValueError, match="opset 11, torch takes it from 13"):
        to_torch(file_of([("Relu", [], {})], opset=11))


def test_a_model_has_one_input_and_one_output():
    model = file_of([("Relu", [], {})])
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, (1,)))
    with pytest.raises(ValueError, match="2 inputs and 1 outputs, expected one of each"):
        to_torch(model)


def test_constants_in_nodes_are_read():
    model = file_of([("Add", [floats(9)], {})])
    value = helper.make_node("Constant", [], ["c"], value_floats=[1.0] * 9)
    model.graph.node[0].input[1] = "c"
    model.graph.node.insert(0, value)
    assert torch.equal(to_torch(model)(torch.zeros(1, 3, 7, 9)), torch.ones(1, 189))


def test_splits_have_as_many_parts_as_outputs():
    for sizes, parts in (([ints(1, 2)], 2), ([], 3)):
        model = file_of([("Split", sizes, {"axis": 1} | ({} if sizes else {"num_outputs": 3}))])
        del model.graph.node[0].output[:]
        model.graph.node[0].output.extend([f"t{i}" for i in range(parts)])
        x = floats(1, 3, 7, 9)
        expected = open_session(model.SerializeToString(), CPU).run(x)
        assert np.array_equal(to_torch(model)(torch.from_numpy(x)).numpy(), expected)


def test_constants_of_a_shape_are_filled():
    value = onnx.numpy_helper.from_array(np.array([2.5], np.float32))
    model = file_of([("Shape", [], {"start": 1}), ("ConstantOfShape", [], {"value": value})])
    assert torch.equal(to_torch(model)(torch.zeros(1, 3, 7, 9)), torch.full((3, 63), 2.5))


def test_every_tensor_can_be_looked_at_and_changed(mixed):
    module, x, seen = to_torch(mixed), torch.from_numpy(floats(2, 3, 8, 8)), {}
    made = {name for node in mixed.graph.node for name in node.output if node.op_type == "Conv"}
    plain = module(x)

    def keep(name, value):
        seen[name] = value
        return value * 0 if name in made else value

    module.on_tensor = keep
    changed = module(x)
    assert torch.equal(seen["input"], x) and torch.equal(seen["logits"], changed)
    assert made and made < seen.keys() and not torch.equal(changed, plain)
    module.on_tensor = None
    assert torch.equal(module(x), plain)


def test_weights_are_put_in_place_by_the_names_of_the_file(mixed):
    module, x = to_torch(mixed), torch.from_numpy(floats(2, 3, 8, 8))
    (name,) = (node.input[1] for node in mixed.graph.node if node.op_type == "Conv")
    buffer = module.buffer_of[name]
    weight = (2 * module.get_buffer(buffer)).requires_grad_()
    logits = torch.func.functional_call(module, {buffer: weight}, (x,))
    (gradient,) = torch.autograd.grad(logits.sum(), [weight])
    assert gradient.abs().sum() > 0 and not torch.equal(logits, module(x))
