"""Pads of zeros as pads of convolutions."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.ptq.intake import prepared
from quant_search.ptq.pads import fold_pads

CPU = parse_device("cpu")


class Padded(nn.Module):
    """A pad that is not the same on both sides, and whatever reads it."""

    def __init__(self, pad, *readers):
        super().__init__()
        self.pad, self.readers = pad, nn.ModuleList(readers)

    def forward(self, x):
        x = self.pad(x)
        return sum(reader(x).mean((1, 2, 3), keepdim=True).flatten(1) for reader in self.readers)


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def kinds(model):
    return [node.op_type for node in model.graph.node]


def folded(network):
    torch.manual_seed(0)
    model = to_onnx(network.eval(), (3, 9, 8))
    result = prepared(model)
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    np.testing.assert_allclose(run(result, x), run(model, x), rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(result, full_check=True)
    return result


def test_a_pad_joins_the_pads_of_the_convolutions_that_read_it():
    network = Padded(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 5, 1, 1))
    result = folded(network)
    assert "Pad" not in kinds(result)
    pads = [list(a.ints) for n in result.graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "pads"]
    assert sorted(pads) == [[2, 0, 3, 1], [3, 1, 4, 2]]


@pytest.mark.parametrize(
    "network",
    [
        Padded(nn.ConstantPad2d(1, 2.0), nn.Conv2d(3, 4, 3)),
        Padded(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)),
        Padded(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.AvgPool2d(3)),
        Padded(nn.ZeroPad2d(-1), nn.Conv2d(3, 4, 3)),
    ],
    ids=["of twos", "of reflections", "that a pool reads, too", "that cuts"],
)
def test_other_pads_stay(network):
    model = to_onnx(network.eval(), (3, 9, 8))
    before = kinds(model)
    assert ("Pad" in kinds(prepared(model))) == ("Pad" in before)
    folded(network)


def test_the_model_given_is_left_as_it_was():
    model = prepared(to_onnx(Padded(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)).eval(), (3, 9, 8)))
    before = model.SerializeToString()
    fold_pads(model)
    assert model.SerializeToString() == before
