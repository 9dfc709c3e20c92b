"""A small network two of whose convolutions, `one` and `two`, share a weight and a bias, and images for it."""

import functools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quant_search.ptq.intake import prepared


@functools.cache
def tied() -> onnx.ModelProto:
    """In the form of `prepared`."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (4, 3, 3, 3), "w": (4, 4, 3, 3), "b": (4,), "wl": (256, 10)}
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["x0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["x0"], ["r0"], "relu0"),
        helper.make_node("Conv", ["r0", "w", "b"], ["x1"], "one", pads=[1] * 4),
        helper.make_node("Relu", ["x1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w", "b"], ["x2"], "two", pads=[1] * 4),
        helper.make_node("Flatten", ["x2"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "wl"], ["logits"], "last"),
    ]
    values = [numpy_helper.from_array((0.2 * rng.standard_normal(s)).astype(np.float32), n) for n, s in shapes.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", ["n", 3, 8, 8]), ("logits", ["n", 10]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], values)
    return prepared(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def some_images(n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 8, 8) float32 and classes (n,) of noise."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, 3, 8, 8)).astype(np.float32), rng.integers(0, 10, n)
