"""Lowering of plain networks; the laws over ready-made spaces stand in tests/laws/test_export_laws.py."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import open_session

CPU = parse_device("cpu")


def conv(kernel=1):
    return nn.Conv2d(4, 4, kernel, padding=kernel // 2)


class Composite(nn.Module):
    """A plain module with a list, and a sequence in a sequence, that add up."""

    def __init__(self):
        super().__init__()
        self.conv, self.blocks = conv(), nn.ModuleList([conv(3), conv()])
        self.seq = nn.Sequential(conv(), nn.Sequential(conv(), nn.ReLU()))

    def forward(self, x):
        y = self.conv(x)
        for block in self.blocks:
            y = block(y)
        return x + self.seq(y)


class SameName(nn.Module):
    """Its list has the name that it has itself in `Zoo`, and that a sequence has there too."""

    def __init__(self):
        super().__init__()
        self.stage = nn.ModuleList([conv(), Composite()])

    def forward(self, x):
        for layer in self.stage:
            x = layer(x)
        return x


class Zoo(nn.Module):
    """Every way of nesting; `inner.conv` is also run from up here."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stage = SameName()
        self.inner = Composite()
        self.list = nn.ModuleList([nn.Sequential(conv(), Composite()), Composite(), nn.ModuleList([conv()])])
        self.deep = nn.Sequential(nn.Sequential(nn.Sequential(conv()), Composite()), conv())
        self.named = nn.ModuleDict({"stem": conv(), "b": Composite()})
        self.conv = conv()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.inner(self.stage(self.stem(x)))
        x = self.list[2][0](self.list[1](self.list[0](x)))
        x = self.named["b"](self.named["stem"](self.deep(x)))
        return self.fc(self.conv(self.inner.conv(x)).mean((2, 3)))


def outputs(model, x):
    return open_session(model.SerializeToString(), CPU).run(x.numpy())


def images(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def test_outputs_are_torchs_and_the_batch_is_free():
    net = Zoo().eval()
    model = to_onnx(net, (3, 6, 6))
    onnx.checker.check_model(model, full_check=True)
    for x in (images(3, 6, 6), images(3, 6, 6)[:1]):
        np.testing.assert_allclose(outputs(model, x), net(x).detach(), atol=1e-5)


def test_every_weighted_node_belongs_to_the_module_that_holds_its_weight():
    net = Zoo()
    model = to_onnx(net, (3, 6, 6))
    found = Counter()
    for path, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            runs = 2 if path == "inner.conv" else 1
            nodes = [n for n in model.graph.node if n.name in nodes_of(model, (path,)) and len(n.input) > 1]
            assert len(nodes) == runs, path
            assert all(node.input[1].startswith(f"{path}.weight") for node in nodes)
            found.update(node.name for node in nodes)
    assert set(found.values()) == {1} and len(found) == sum(len(n.input) == 3 for n in model.graph.node)


def test_members_take_in_what_is_below_them_and_no_namesakes():
    model = to_onnx(Zoo(), (3, 6, 6))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    parts = [name for child, _ in Zoo().named_children() for name in nodes_of(model, (child,))]
    assert sorted(parts) == sorted(names)  # each node in one part
    assert nodes_of(model, ("deep.0", "deep.1")) == nodes_of(model, ("deep",))
    assert nodes_of(model, ("dee",)) == nodes_of(model, ("deep.01",)) == nodes_of(model, ()) == []
    assert nodes_of(model, ("inner.seq.1",)) == ["/inner.seq.1.0/Conv", "/inner.seq.1.1/Relu"]


class Functional(nn.Module):
    """As people write it: one activation run again and again, functions, a layer run twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), conv(), conv()
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.act(self.first(x))
        y = self.act(self.second(x))
        y = self.second(self.third(F.relu(y)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x + y, 1), 1))


def test_what_no_module_stands_for_goes_with_the_node_before_it():
    model = to_onnx(Functional(), (3, 6, 6))
    assert [node.name for node in model.graph.node] == [
        "/first/Conv", "/act/Relu", "/second/Conv", "/second/Relu", "/second/Relu_1", "/third/Conv", "/second/Conv_1",
        "/second/Add", "/second/GlobalAveragePool", "/second/Flatten", "/fc/Gemm",
    ]  # fmt: skip


def check_each_initializer_is_used_once(model):
    used = Counter(name for node in model.graph.node for name in node.input)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(set(names)) == len(names) > 0 and {used[name] for name in names} == {1}


def test_equal_and_tied_weights_are_initializers_of_their_own():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), conv(), conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layer in net[1:3]:
        nn.init.zeros_(layer.bias)
        nn.init.ones_(layer.weight)
    for module in (net, Functional()):
        model = to_onnx(module, (3, 5, 5))
        onnx.checker.check_model(model)
        check_each_initializer_is_used_once(model)
        assert not any(node.op_type == "Identity" for node in model.graph.node)
        np.testing.assert_allclose(outputs(model, images(3, 5, 5)), module.eval()(images(3, 5, 5)).detach(), atol=1e-5)


def test_an_identity_is_a_model_too():
    x = images(3, 4, 4)
    assert np.array_equal(outputs(to_onnx(nn.Identity(), (3, 4, 4)), x), x)


def test_norms_are_folded_and_bytes_repeat():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Hardswish(), nn.Flatten())
    for _, tensor in net[1].named_parameters():
        nn.init.uniform_(tensor, 0.5, 1.5)
    model = to_onnx(net, (3, 5, 5))
    assert [node.op_type for node in model.graph.node] == ["Conv", "HardSwish", "Flatten"]
    assert to_onnx(net.train(), (3, 5, 5)).SerializeToString() == model.SerializeToString()
    np.testing.assert_allclose(outputs(model, images(3, 5, 5)), net.eval()(images(3, 5, 5)).detach(), atol=1e-5)


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.ReLU())).train()
    net[1].eval()
    net[2].training = False
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    assert modes == [True, True, False, False, True, True]
    to_onnx(net, (3, 4, 4))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Broken(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.error, self.drop = error, nn.Dropout()

    def forward(self, x):
        if self.error:
            raise self.error
        return torch.fft.fft(x).real


@pytest.mark.parametrize(
    ("module", "reason"),
    [(Broken(), "fft"), (Broken(RuntimeError()), "RuntimeError$"), (Broken(RuntimeError("\nlate")), "late$")],
)
def test_what_has_no_onnx_form_is_named_in_one_line(module, reason):
    module.train()
    with pytest.raises(ValueError, match=f"Broken cannot be exported to ONNX: .*{reason}") as caught:
        to_onnx(module, (3, 4, 4))
    assert "\n" not in str(caught.value)
    assert module.training and module.drop.training
