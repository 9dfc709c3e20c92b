import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from latency.device import Device, at_batch, parse_device
from latency.runtimes.onnx_runtime import (
    _in_order,
    executed_graph,
    int8_share,
    open_session,
    optimised_graph,
    tensors_of,
)

CPU = parse_device("cpu")


def model_of(nodes, weights, shape=("batch", 3, 8, 8), names=("input", "logits"), kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(names[0], kind, shape)],
        [helper.make_tensor_value_info(names[1], kind, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def identity(**changes):
    """Logits are the input itself (batch, 4)."""
    names = changes.get("names", ("input", "logits"))
    return model_of([helper.make_node("Identity", [names[0]], [names[1]])], {}, **({"shape": ("batch", 4)} | changes))


def small_network():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
    ]
    shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 1, 1), "b2": (16,), "w3": (5, 16), "b3": (5,)}
    return model_of(nodes, {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()})


@pytest.fixture
def int8(tmp_path):
    """The small network quantized: op types to leave in fp32 → bytes."""

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [np.random.default_rng(i).standard_normal((4, 3, 8, 8)).astype(np.float32) for i in range(3)]

        def get_next(self):
            return {"input": self.left.pop()} if self.left else None

    def make(op_types):
        (tmp_path / "fp32.onnx").write_bytes(small_network())
        quantize_static(
            tmp_path / "fp32.onnx", tmp_path / "int8.onnx", Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=op_types,
        )  # fmt: skip
        return (tmp_path / "int8.onnx").read_bytes()

    return make


def test_a_session_runs_bytes_and_files_alike(tmp_path):
    (tmp_path / "m.onnx").write_bytes(small_network())
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    a, b = open_session(small_network(), CPU), open_session(tmp_path / "m.onnx", CPU)
    assert a.input_shape == (3, 8, 8) and a.run(x).shape == (3, 5)
    assert np.array_equal(a.run(x), b.run(x))


def test_a_session_has_the_settings_of_the_device():
    options = open_session(identity(), Device("cpu:threads=2", "cpu", 2, "onnxruntime"))._session.get_session_options()
    assert options.intra_op_num_threads == 2 and options.inter_op_num_threads == 1
    assert options.graph_optimization_level.name == "ORT_ENABLE_ALL" and options.log_severity_level == 3
    assert open_session(identity(), CPU)._session.get_providers() == ["CPUExecutionProvider"]


def two_inputs():
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 4))  # noqa: E731
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", [value("a"), value("b")], [value("c")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_names_and_further_outputs_are_anybodys():
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 4))  # noqa: E731
    nodes = [helper.make_node("Neg", ["x"], ["first"]), helper.make_node("Abs", ["x"], ["second"])]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("first"), value("second")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.ones((3, 4), np.float32)
    assert np.array_equal(open_session(model, CPU).run(x), -x)


@pytest.mark.parametrize("model", [identity(kind=TensorProto.DOUBLE), two_inputs()])
def test_other_inputs_than_one_float32_are_refused(model):
    with pytest.raises(ValueError, match=r"has inputs .*, expected one float32 input"):
        open_session(model, CPU)


def test_the_shape_of_a_batch():
    assert open_session(identity(), CPU).batch_shape(3) == (3, 4)
    assert open_session(identity(shape=(2, 4)), CPU).batch_shape(2) == (2, 4)
    with pytest.raises(ValueError, match=r"fixed shape \[2, 4\]: a batch of 3 does not fit"):
        open_session(identity(shape=(2, 4)), CPU).batch_shape(3)
    with pytest.raises(ValueError, match="a batch of 1 does not fit"):
        open_session(identity(shape=()), CPU).batch_shape(1)


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ONNX Runtime cannot open the model of 4 bytes"):
        open_session(b"junk", CPU)
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"cannot open the model .*junk\.onnx"):
        open_session(tmp_path / "junk.onnx", CPU)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        open_session(tmp_path / "none.onnx", CPU)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is one")
def test_a_provider_that_is_not_there_is_no_fall_back():
    with pytest.raises(ValueError, match=r"'gpu': ONNX Runtime .* did not start CUDAExecutionProvider"):
        open_session(identity(), Device("gpu", "gpu", 1, "onnxruntime"))


def test_an_open_size_besides_the_batch_is_refused():
    with pytest.raises(ValueError, match="fixed sizes"):
        _ = open_session(identity(shape=("batch", "any")), CPU).input_shape


def test_the_optimised_graph_is_fused():
    kinds = [node.op_type for node in optimised_graph(small_network(), CPU).graph.node]
    assert "Relu" not in kinds and len(kinds) < 7


def test_int8_share_counts_what_runs_in_int8(int8):
    assert int8_share(small_network(), CPU) == 0
    assert int8_share(identity(), CPU) == 0
    assert int8_share(int8(["Conv", "Gemm"]), CPU) == 1
    assert int8_share(int8(["Gemm"]), CPU) == pytest.approx(1 / 3)
    assert int8_share(int8(["Conv"]), CPU) == pytest.approx(2 / 3)


def test_the_executed_graph_is_the_optimised_one_in_an_order_that_can_be_executed(int8):
    for model in (small_network(), int8(["Conv"])):
        optimised, executed = optimised_graph(model, CPU), executed_graph(model, at_batch(CPU, 3))
        assert sorted(n.op_type for n in executed.graph.node) == sorted(n.op_type for n in optimised.graph.node)
        known = {"input", ""} | {i.name for i in executed.graph.initializer}
        for node in executed.graph.node:
            assert known.issuperset(node.input)
            known.update(node.output)


def test_nodes_without_a_name_find_their_place():
    a, b, c = (helper.make_node("Relu", [x], [y]) for x, y in (("x", "a"), ("a", "b"), ("x", "c")))
    d = helper.make_node("Add", ["b", "c"], ["d"], name="sum")
    assert _in_order([a, b, c, d], ["Relu_7", "Relu_9", "Relu_8", "sum"]) == [a, b, c, d]
    assert _in_order([d, c, b, a], ["Relu_7", "Relu_9", "Relu_8", "sum"]) == [c, a, b, d]
    assert _in_order([a, b, c, d], ["Relu_7", "Relu_9", "sum", "Relu_8"]) is None  # not in this order
    assert _in_order([a, b, c, d], ["Relu_7", "Relu_9"]) is None


def test_tensors_have_the_shapes_of_a_run(int8):
    plain = tensors_of(onnx.load_model_from_string(small_network()), batch=3)
    assert plain["input"] == ((3, 3, 8, 8), "float32") and plain["c2"] == ((3, 16, 8, 8), "float32")
    assert plain["f"] == ((3, 16), "float32") and "w1" not in plain
    quantized = tensors_of(executed_graph(int8(["Conv", "Gemm"]), CPU))
    assert quantized["logits"] == ((1, 5), "float32") and "uint8" in {dtype for _, dtype in quantized.values()}


def test_tensors_of_other_batches_and_open_sizes_are_refused():
    with pytest.raises(ValueError, match=r"'input' must have fixed sizes and take the batch 3, got \[1, 4\]"):
        tensors_of(onnx.load_model_from_string(identity(shape=(1, 4))), batch=3)
    with pytest.raises(ValueError, match="must have fixed sizes"):
        tensors_of(onnx.load_model_from_string(identity(shape=("batch", "any"))))
    nodes = [helper.make_node("Reshape", ["input", "s"], ["logits"])]
    only_one = model_of(nodes, {"s": np.array([1, 4])}, ("batch", 4))
    with pytest.raises(ValueError, match="does not run at batch 2"):
        tensors_of(onnx.load_model_from_string(only_one), batch=2)
