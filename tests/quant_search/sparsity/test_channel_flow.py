import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sparse_subject import digits_model
from torch import nn

from latency.lowering import to_onnx
from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges
from quant_search.sparsity.channel_flow import channel_flow

C, SIDE = 6, 4


def conv(x, weight, y, name, **settings):
    return helper.make_node("Conv", [x, weight], [y], name, **settings)


def graph(*nodes, constants=None, outputs=("y",)):
    """Two convolutions, x (6 channels) by one and z (6) by the other, and more nodes after them."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((C, 3, 1, 1)).astype(np.float32) for name in ("w", "v")}
    first = [
        helper.make_node("Conv", ["input", "w"], ["x"], "first"),
        helper.make_node("Conv", ["input", "v"], ["z"], "other"),
    ]
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights | (constants or {})).items()]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 3, SIDE, SIDE))
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    body = helper.make_graph([*first, *nodes], "g", [given], made, tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def classes(flow, name):
    return flow.tied[flow.tensors[name]]


def free(flow, name):
    return ~flow.fast[classes(flow, name)]


READ = helper.make_node("Conv", ["u", "r"], ["y"], "reader")
READER = {"r": np.ones((2, C, 1, 1), np.float32)}


def test_each_channel_is_free_until_the_ends_of_the_graph_hold_it():
    flow = channel_flow(graph(helper.make_node("Relu", ["x"], ["u"]), READ, constants=READER))
    assert free(flow, "x").all() and (classes(flow, "u") == classes(flow, "x")).all()
    assert not free(flow, "input").any() and not free(flow, "y").any()
    assert [node for node, _ in flow.makers] == ["first", "other", "reader"]
    held = channel_flow(graph(helper.make_node("Relu", ["x"], ["u"]), READ, constants=READER, outputs=("y", "u")))
    assert not free(held, "x").any()


def test_sums_tie_channels_at_one_place():
    flow = channel_flow(graph(helper.make_node("Add", ["x", "z"], ["u"]), READ, constants=READER))
    assert (classes(flow, "x") == classes(flow, "z")).all() and len(set(classes(flow, "x"))) == C


def test_joined_channels_stay_apart_and_are_picked_by_place():
    join = helper.make_node("Concat", ["x", "z"], ["j"], axis=1)
    pick = helper.make_node("Gather", ["j", "at"], ["u"], axis=1)
    flow = channel_flow(graph(join, pick, READ, constants=READER | {"at": np.array([0, 6, 1, 7, 2, -1])}))
    x, z = classes(flow, "x"), classes(flow, "z")
    assert classes(flow, "u").tolist() == [x[0], z[0], x[1], z[1], x[2], z[5]]
    assert not set(x) & set(z)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Softmax", ["x"], ["u"], axis=1)],  # what goes would still weigh
        [helper.make_node("Transpose", ["x"], ["u"], perm=[0, 2, 1, 3])],
        [helper.make_node("MatMul", ["x", "z"], ["u"])],
        [helper.make_node("ReduceMean", ["x"], ["m"], axes=[1]), helper.make_node("Mul", ["x", "m"], ["u"])],
        [helper.make_node("Reshape", ["x", "halves"], ["u"])],
        [helper.make_node("LayerNormalization", ["x", "scale"], ["u"], axis=1)],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_what_mixes_channels_holds_them(nodes):
    constants = {"halves": np.array([0, C // 2, 2 * SIDE, SIDE]), "scale": np.ones((C, SIDE, SIDE), np.float32)}
    flow = channel_flow(graph(*nodes, helper.make_node("Relu", ["u"], ["y"]), constants=constants))
    assert not free(flow, "x").any()


def test_one_value_for_all_channels_holds_its_own_alone():
    nodes = [helper.make_node("Conv", ["x", "one"], ["m"], "mask"), helper.make_node("Mul", ["x", "m"], ["u"]), READ]
    flow = channel_flow(graph(*nodes, constants=READER | {"one": np.ones((1, C, 1, 1), np.float32)}))
    assert free(flow, "x").all() and not free(flow, "m").any()


def test_places_of_groups_are_tied_and_depthwise_channels_handed_on():
    group = helper.make_node("Conv", ["x", "g"], ["u"], "grouped", group=2)
    flow = channel_flow(graph(group, READ, constants=READER | {"g": np.ones((C, C // 2, 1, 1), np.float32)}))
    for name in ("x", "u"):
        tied = classes(flow, name).reshape(2, -1)
        assert (tied[0] == tied[1]).all() and len(set(tied[0])) == C // 2
    depthwise = helper.make_node("Conv", ["x", "d"], ["y"], group=C)
    flow = channel_flow(graph(depthwise, constants={"d": np.ones((2 * C, 1, 1, 1), np.float32)}, outputs=("y",)))
    assert (classes(flow, "y") == classes(flow, "x").repeat(2)).all()


def test_a_weight_that_two_nodes_read_ties_their_channels():
    nodes = [helper.make_node("Conv", ["x", "s"], ["a"], "a"), helper.make_node("Conv", ["z", "s"], ["b"], "b")]
    nodes += [helper.make_node("Concat", ["a", "b"], ["j"], axis=1), helper.make_node("Conv", ["j", "t"], ["y"], "end")]
    constants = {"s": np.ones((4, C, 1, 1), np.float32), "t": np.ones((2, 8, 1, 1), np.float32)}
    flow = channel_flow(graph(*nodes, constants=constants))
    assert (classes(flow, "a") == classes(flow, "b")).all() and (classes(flow, "x") == classes(flow, "z")).all()
    assert free(flow, "a").all() and free(flow, "x").all()


def test_a_weight_that_is_also_read_otherwise_stays():
    nodes = [helper.make_node("Relu", ["x"], ["u"]), READ, helper.make_node("ReduceSum", ["w"], ["total"], keepdims=0)]
    flow = channel_flow(graph(*nodes, constants=READER, outputs=("y", "total")))
    assert not free(flow, "x").any() and free(flow, "z").all()


def test_behind_what_is_not_known_channels_are_free_again():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Conv", ["t", "n"], ["u"], "new"),
    ]
    flow = channel_flow(graph(*nodes, READ, constants=READER | {"n": np.ones((C, SIDE, 1, 1), np.float32)}))
    assert not free(flow, "x").any() and free(flow, "u").all()


def test_what_cannot_be_followed_is_refused():
    model = digits_model()
    with pytest.raises(ValueError, match="quantized: prune the fp32 model"):
        channel_flow(quantize(model, [n.name for n in model.graph.node], neutral_ranges(model)))
    old = graph(helper.make_node("Relu", ["x"], ["y"]))
    old.opset_import[0].version = 12
    with pytest.raises(ValueError, match="opset 12, channels are followed from 13 on"):
        channel_flow(old)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["k"])], "b", [], [helper.make_empty_tensor_value_info("k")]
    )
    choice = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
    with pytest.raises(ValueError, match=r"'choice' \(If\) holds a graph of its own"):
        channel_flow(graph(choice, constants={"yes": np.array(True)}))


def test_zeros_in_the_shape_of_a_tensor_have_its_channels():
    class Zeros(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, C, 1), nn.Conv2d(C, 2, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.head(torch.cat([y, torch.zeros_like(y)], 2))

    model = to_onnx(Zeros(), (3, SIDE, SIDE))
    flow = channel_flow(model)
    assert "ConstantOfShape" in {node.op_type for node in model.graph.node}
    assert not flow.fast[flow.tied[dict(flow.makers)["/conv/Conv"]]].any()
