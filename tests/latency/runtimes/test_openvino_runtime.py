import numpy as np
import pytest
from onnx import TensorProto
from rows import file_of, floats

from latency.device import Device, parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session as open_onnx
from quant_search.onnx_qdq import activation_ranges, quantize

pytest.importorskip("openvino")
from torch import nn

from latency.runtimes.openvino_runtime import int8_share, open_session

DEVICE = Device("cpu:openvino", "cpu", 1, "openvino")
NET = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(scope="module")
def fp32():
    return to_onnx(NET, (3, 8, 8))


def test_a_network_gives_what_onnx_runtime_gives_run_and_timed(fp32, tmp_path):
    content, x = fp32.SerializeToString(), floats(3, 3, 8, 8)
    expected = open_onnx(content, parse_device("cpu")).run(x)
    (tmp_path / "m.onnx").write_bytes(content)
    session = open_session(tmp_path / "m.onnx", DEVICE)
    assert session.input_shape == (3, 8, 8)
    assert np.abs(session.run(x) - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(session.call(x[:1])()[0] - expected[:1]).max() < 1e-4 * np.abs(expected).max()


def test_a_model_is_compiled_with_the_settings_of_the_device(fp32):
    compiled = open_session(fp32.SerializeToString(), DEVICE).compiled(1)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert list(compiled.input(0).shape) == [1, 3, 8, 8]


def test_int8_share_is_read_from_the_compiled_graph(fp32):
    nodes = [node.name for node in fp32.graph.node]
    ranges = activation_ranges(fp32, floats(16, 3, 8, 8))
    assert int8_share(fp32.SerializeToString(), DEVICE) == 0
    assert int8_share(quantize(fp32, nodes[:1], ranges).SerializeToString(), DEVICE) == 0.5
    assert int8_share(quantize(fp32, nodes, ranges).SerializeToString(), DEVICE) == 1


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ValueError, match="OpenVINO cannot open the model of 4 bytes") as caught:
        open_session(b"junk", DEVICE)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        open_session(tmp_path / "none.onnx", DEVICE)
    other = file_of([("Relu", [], {})])
    other.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(ValueError, match="expected one float32 input"):
        open_session(other.SerializeToString(), DEVICE)
    with pytest.raises(ValueError, match="fixed sizes besides the batch"):
        _ = open_session(file_of([("Relu", [], {})], shape=("any", 9)).SerializeToString(), DEVICE).input_shape
