"""Models of a row of nodes, and arrays for them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def numbers(*values):
    return np.array(values, np.float32)


def file_of(row, shape=(3, 7, 9), opset=21, batch=1):
    """The model of a row of nodes, flattened at its end."""
    nodes, weights, last = [], [], "input"
    for i, (operator, further, attributes) in enumerate(row):
        names = [f"w{i}_{j}" if value is not None else "" for j, value in enumerate(further)]
        weights += [
            numpy_helper.from_array(np.asarray(v), n) for v, n in zip(further, names, strict=True) if v is not None
        ]
        nodes.append(helper.make_node(operator, [last, *names], [f"t{i}"], name=f"{operator}_{i}", **attributes))
        last = f"t{i}"
    nodes.append(helper.make_node("Reshape", [last, "all"], ["logits"]))
    weights.append(numpy_helper.from_array(ints(0, -1), "all"))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, (batch, *shape))
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [given], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
