"""What layers take in place, and what a change of precision costs."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.parts import Node, Parts, ProfilerCost
from latency.runtimes.onnx_runtime import executed_graph
from nas.layer_costs import LayerCosts, _places, _seconds, measure_layers
from quant_search.ptq.intake import prepared
from quant_search.ranges import neutral_ranges
from quant_search.realise import in_precisions
from quant_search.sensitivity.subject import by_layer

COSTS = LayerCosts(
    {"a": {"fp32": 8.0, "int8": 5.0}, "b": {"fp32": 4.0, "int8": 6.0}, "c": {"fp32": 2.0, "int8": 1.0}},
    {"a": {"fp32": 0.5, "int8": 0.25}, "b": {"fp32": 1.0, "int8": 2.0}, "c": {"fp32": 64.0, "int8": 64.0}},
)


@pytest.mark.parametrize(
    ("chosen", "seconds"),
    [
        (("fp32", "fp32", "fp32"), 14.0),
        (("int8", "int8", "int8"), 12.0),
        (("int8", "fp32", "fp32"), 11.25),
        (("int8", "fp32", "int8"), 11.25),
        (("fp32", "int8", "fp32"), 18.5),
    ],
)
def test_a_change_costs_where_the_next_layer_differs(chosen, seconds):
    assert COSTS.predict(dict(zip("abc", chosen, strict=True))) == seconds


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU6()]
    layers += [nn.Conv2d(16, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)]
    body = nn.Sequential(*layers)
    model = prepared(to_onnx(body.eval(), (3, 32, 32)))
    groups = by_layer(model)
    return model, groups, lambda plan: in_precisions(model, groups, plan, neutral_ranges(model))


def test_executed_nodes_find_their_layers(network):
    model, groups, build = network
    places, names = _places(model, groups), list(groups)
    for kinds in (["fp32"] * 4, ["int8"] * 4, ["fp32", "int8"] * 2):
        nodes = executed_graph(
            build(dict(zip(names, kinds, strict=True))).SerializeToString(), parse_device("cpu")
        ).graph.node
        parts = Parts(tuple(Node(n.name, n.op_type, 2, (1.0,)) for n in nodes), 1, 1.0)
        seconds = _seconds(parts, places, names, ProfilerCost(0.0, 0.0, 0.0))
        assert sum(seconds.values()) == len(nodes) and all(seconds.values())  # each layer has its own node at least
        weighted = {}
        for node in nodes:
            if node.op_type in ("Conv", "FusedConv", "QLinearConv", "Gemm", "FusedGemm", "QGemm"):
                one = Parts((Node(node.name, node.op_type, 2, (1.0,)),), 1, 1.0)
                (found,) = (k for k, s in _seconds(one, places, names, ProfilerCost(0, 0, 0)).items() if s)
                weighted[found] = weighted.get(found, 0) + 1
        assert weighted == dict.fromkeys(names, 1)


def test_layers_are_measured_in_every_precision(network):
    model, groups, build = network
    costs = measure_layers(model, groups, build, parse_device("cpu"))
    assert list(costs.seconds) == list(costs.change) == list(groups) and len(costs.checked) == 2
    for table in (costs.seconds, costs.change):
        assert all(set(row) == {"fp32", "int8"} and min(row.values()) >= 0 for row in table.values())
    assert np.isfinite(costs.error) and isinstance(build(dict.fromkeys(groups, "int8")), onnx.ModelProto)
