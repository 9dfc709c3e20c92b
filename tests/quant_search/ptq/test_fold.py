import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers
from quant_search.ptq.fold import fold_constants, fold_norms, with_biases

CPU = parse_device("cpu")
RNG = np.random.default_rng(0)


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def graph_of(nodes, values, channels=4, side=6, opset=17):
    """A model of nodes (op_type, inputs, output, attributes), on maps or, with side 0, on vectors."""
    made = [helper.make_node(op, i, [o], f"/{n}/{op}", **attributes) for n, (op, i, o, attributes) in enumerate(nodes)]
    shape = ["batch", channels, side, side] if side else ["batch", channels]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, list("bcyx"[: len(shape)])),
    ]
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


NORM = {"gamma": drawn(4), "beta": drawn(4), "mean": drawn(4), "variance": RNG.uniform(0.5, 2, 4).astype(np.float32)}
STATISTICS = list(NORM)
W = {"w": drawn(4, 4, 3, 3), "v": drawn(4, 4, 3, 3), "bias": drawn(4)}


def norm(x, y):
    return ("BatchNormalization", [x, *STATISTICS], y, {"epsilon": 0.01})


PAD = {"pads": [1, 1, 1, 1]}
K = {"k": drawn(1, 4, 1, 1), "k3": drawn(4, 1, 1), "one": np.float32(0.3)}
# Nodes, and how many of them are left.
FOLDED = {
    "behind a convolution": ([("Conv", ["input", "w"], "a", PAD), norm("a", "logits")], 1),
    "behind one with a bias": ([("Conv", ["input", "w", "bias"], "a", {}), norm("a", "logits")], 1),
    "before one": ([norm("input", "a"), ("Conv", ["a", "w", "bias"], "logits", {})], 1),
    "two in a row": ([("Conv", ["input", "w"], "a", PAD), norm("a", "b"), norm("b", "logits")], 1),
    "between two": ([("Conv", ["input", "w"], "a", PAD), norm("a", "b"), ("Conv", ["b", "v"], "logits", PAD)], 2),
    "a grouped one": ([("Conv", ["input", "dw"], "a", {"group": 2, **PAD}), norm("a", "logits")], 1),
    "before a grouped one": ([norm("input", "a"), ("Conv", ["a", "dw"], "logits", {"group": 2})], 1),
    "products and sums": (
        [("Conv", ["input", "w"], "a", PAD), ("Mul", ["a", "k"], "b", {}), ("Sub", ["k3", "b"], "c", {}),
         ("Div", ["c", "one"], "d", {}), ("Add", ["one", "d"], "logits", {})], 1,
    ),
    "a scaled input": ([("Div", ["input", "one"], "a", {}), ("Conv", ["a", "w"], "logits", PAD)], 1),
}  # fmt: skip
# Nodes that all stay.
LEFT = {
    "before padding": [norm("input", "a"), ("Conv", ["a", "w"], "logits", PAD)],
    "behind a ReLU": [("Conv", ["input", "w"], "a", PAD), ("Relu", ["a"], "b", {}), norm("b", "logits")],
    "read twice": [("Conv", ["input", "w"], "a", PAD), norm("a", "b"), ("Add", ["a", "b"], "logits", {})],
    "two inputs": [("Conv", ["input", "w"], "a", PAD), ("Mul", ["a", "a"], "logits", {})],
    "by position": [("Conv", ["input", "w"], "a", PAD), ("Mul", ["a", "row"], "logits", {})],
    "a number over it": [("Conv", ["input", "w"], "a", PAD), ("Div", ["one", "a"], "logits", {})],
}


@pytest.mark.parametrize("case", [*FOLDED, *LEFT])
def test_outputs_stay_whether_folded_or_left(case):
    nodes, count = FOLDED.get(case) or (LEFT[case], len(LEFT[case]))
    model = graph_of(nodes, W | NORM | K | {"dw": drawn(4, 2, 3, 3), "row": drawn(1, 1, 1, 6)})
    before, x = model.SerializeToString(), drawn(3, 4, 6, 6)
    folded = fold_norms(model)
    assert len(folded.graph.node) == count
    expected = run(model, x)
    np.testing.assert_allclose(run(folded, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert model.SerializeToString() == before
    onnx.checker.check_model(folded, full_check=True)


@pytest.mark.parametrize("bias", [(4,), (1, 4), (1,), ()])
@pytest.mark.parametrize("back", [True, False])
def test_norms_fold_into_matrix_products_with_alpha_and_beta(bias, back):
    settings = {"alpha": 0.5, "beta": 2.0, "transB": 1}
    gemm = [("Gemm", ["input", "w", "c"], "a", settings), norm("a", "logits")]
    front = [norm("input", "a"), ("Gemm", ["a", "w", "c"], "logits", settings)]
    model = graph_of(gemm if back else front, NORM | {"w": drawn(4, 4), "c": drawn(*bias)}, side=0)
    folded, x = fold_norms(model), drawn(5, 4)
    assert [node.op_type for node in folded.graph.node] == ["Gemm"]
    np.testing.assert_allclose(run(folded, x), run(model, x), atol=1e-5)


def test_a_weight_that_two_layers_share_is_changed_for_one():
    nodes = [("Conv", ["input", "w"], "a", PAD), norm("a", "b"), ("Conv", ["b", "w"], "logits", PAD)]
    model, x = graph_of(nodes, W | NORM), drawn(2, 4, 6, 6)
    folded = fold_norms(model)
    np.testing.assert_allclose(run(folded, x), run(model, x), rtol=1e-4, atol=1e-3)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Conv"]
    assert len({layer.weight for layer in layers(folded)}) == 2


def test_what_does_not_depend_on_the_input_is_computed_once():
    nodes = [
        ("Constant", [], "half", {"value_float": 0.5}), ("Mul", ["w", "half"], "w2", {}),
        ("Add", ["w2", "w2"], "w3", {}), ("Conv", ["input", "w3"], "logits", {}),
    ]  # fmt: skip
    model, x = graph_of(nodes, W), drawn(2, 4, 6, 6)
    folded = fold_constants(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert [t.name for t in folded.graph.initializer] == ["w3"]
    np.testing.assert_array_equal(run(folded, x), run(model, x))


def test_every_layer_gets_a_bias_of_its_own():
    nodes = [
        ("Conv", ["input", "w"], "a", PAD),
        ("Conv", ["a", "v", "bias"], "b", PAD),
        ("Conv", ["b", "v", "bias"], "logits", PAD),
    ]
    model, x = graph_of(nodes, W), drawn(2, 4, 6, 6)
    with_ = with_biases(model)
    assert len({layer.bias for layer in layers(with_)} - {""}) == 3
    np.testing.assert_array_equal(run(with_, x), run(model, x))
