import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latency.count import count
from latency.lowering import to_onnx
from quant_search.layers import layer_macs, layers, layers_of, pairs, values_of, with_values


def exported(*modules, shape=(3, 12, 12)):
    torch.manual_seed(0)
    return to_onnx(nn.Sequential(*modules), shape)


MIXED = (
    nn.Conv2d(3, 8, 3, stride=2, padding=(1, 2)), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    nn.ReLU6(), nn.Conv2d(8, 12, 1, groups=2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 3 * 3, 5),
)  # fmt: skip


def test_layers_say_what_the_modules_are():
    found = layers(exported(*MIXED))
    assert [layer.op_type for layer in found] == ["Conv"] * 3 + ["Gemm"]
    assert [layer.name for layer in found] == ["/0/Conv", "/2/Conv", "/4/Conv", "/8/Gemm"]
    assert [(layer.in_channels, layer.out_channels) for layer in found] == [(3, 8), (8, 8), (8, 12), (108, 5)]
    assert [layer.groups for layer in found] == [1, 8, 2, 1]
    assert [layer.depthwise for layer in found] == [False, True, False, False]
    assert [bool(layer.bias) for layer in found] == [True, False, True, True]
    assert found[0].strides == (2, 2) and found[0].pads == (1, 2, 1, 2) and found[3].pads == ()
    assert [layer.out_axis for layer in found] == [0, 0, 0, 0]


def test_a_layer_s_macs_are_those_counted_on_the_module():
    net = nn.Sequential(*MIXED)
    assert sum(layer_macs(exported(*MIXED)).values()) == count(net, (3, 12, 12)).macs


def test_layers_of_takes_the_named_ones_in_order():
    model = exported(*MIXED)
    assert [layer.name for layer in layers_of(model, ["/8/Gemm", "/0/Conv", "/1/Relu"])] == ["/0/Conv", "/8/Gemm"]


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 12)])
def test_a_scaled_input_is_a_layer_with_scaled_columns(layer):
    shape = (8, 6, 6) if isinstance(layer, nn.Conv2d) else (8,)
    (found,) = layers(exported(layer, shape=shape))
    rng = np.random.default_rng(0)
    x, s = rng.standard_normal((2, *shape)).astype(np.float32), rng.uniform(0.5, 2, 8).astype(np.float32)
    with torch.no_grad():
        expected = layer(torch.from_numpy(x * s.reshape(-1, *[1] * (len(shape) - 1)))).numpy()
        layer.weight *= torch.from_numpy(found.by_input(s))
        np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, atol=1e-5)


def test_pairs_reach_through_what_moves_scales_and_no_further():
    found = pairs(exported(*MIXED))
    assert [(p.first.name, p.second.name) for p in found] == [
        ("/0/Conv", "/2/Conv"), ("/2/Conv", "/4/Conv"), ("/4/Conv", "/8/Gemm"),
    ]  # fmt: skip
    assert [p.clips for p in found] == [(), ("/3/Clip",), ()]
    assert [p.repeats for p in found] == [1, 1, 9]
    assert found[2].through == ("/5/MaxPool", "/6/Relu", "/7/Flatten")


@pytest.mark.parametrize("between", [nn.Hardswish(), nn.Sigmoid(), nn.Hardtanh(-1, 1), nn.BatchNorm2d(4)])
def test_other_operators_separate(between):
    layer = (
        nn.Conv2d(3, 4, 1) if not isinstance(between, nn.BatchNorm2d) else nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    )
    assert pairs(exported(layer, between, nn.Conv2d(4, 4, 1))) == ()


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(a, 4, 1) for a in (3, 4, 4))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return x + self.two(torch.relu(self.one(x)))


def test_what_two_nodes_read_is_in_no_pair():
    assert [(p.first.name, p.second.name) for p in pairs(to_onnx(Branches(), (3, 4, 4)))] == [
        ("/one/Conv", "/two/Conv")
    ]


def test_a_mean_over_positions_and_a_product_of_tokens():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 3)

        def forward(self, x):
            tokens = self.second(torch.relu(self.first(x.flatten(2).transpose(1, 2))))
            x = x + tokens.mean((1, 2)).view(-1, 1, 1, 1)
            return self.last(torch.relu(self.conv(x)).mean((2, 3)))

    model = to_onnx(Tokens(), (3, 4, 4))
    by_name = {layer.name: layer for layer in layers(model)}
    assert by_name["/first/MatMul"].bias and by_name["/first/MatMul"].out_axis == 1
    assert [(p.first.name, p.second.name) for p in pairs(model)] == [
        ("/first/MatMul", "/second/MatMul"), ("/conv/Conv", "/last/Gemm"),
    ]  # fmt: skip


def shared_weight():
    rng = np.random.default_rng(0)
    value = {"w": rng.standard_normal((4, 4, 1, 1)), "v": rng.standard_normal((4, 4, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], "a"), helper.make_node("Conv", ["a", "w"], ["b"], "b"),
        helper.make_node("Conv", ["b", "v"], ["c"], "c"), helper.make_node("Conv", ["c", "input"], ["logits"], "d"),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4, 1, 1]) for name in ("input", "logits")]
    values = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in value.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_shared_weight_is_known_and_a_computed_one_makes_no_layer():
    found = layers(shared_weight())
    assert [(layer.name, layer.shared) for layer in found] == [("a", True), ("b", True), ("c", False)]


def test_layers_without_names_are_refused():
    model = shared_weight()
    model.graph.node[0].name = model.graph.node[1].name = ""
    with pytest.raises(ValueError, match=r"2 layers are called '': name every node \(`ptq.intake.prepared` does\)"):
        layers(model)


def test_values_are_replaced_in_a_copy():
    model = exported(*MIXED)
    before = model.SerializeToString()
    name, value = next(iter(values_of(model).items()))
    changed = with_values(model, {name: value + 1})
    np.testing.assert_array_equal(values_of(changed)[name], value + 1)
    assert model.SerializeToString() == before
    onnx.checker.check_model(changed)
    with pytest.raises(ValueError, match=r"initializer .* has the shape .* got values of \(1,\)"):
        with_values(model, {name: np.zeros(1)})
