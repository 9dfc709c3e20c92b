import numpy as np
import pytest
import torch
from onnx import TensorProto
from rows import file_of, floats

from latency.device import Device, parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session as open_onnx
from latency.runtimes.torch_runtime import CudaSession, TorchSession, open_session
from search_spaces.mbconv import mbconv
from search_spaces.network import extract, find_space

DEVICE = parse_device("cpu:torch")
ROW = [("Conv", [floats(4, 3, 1, 1)], {}), ("GlobalAveragePool", [], {})]
SMALL = file_of(ROW, (3, 4, 4), batch="b").SerializeToString()
GPU = Device("gpu:torch", "gpu", 1, "torch")


def test_a_network_of_mbconv_gives_the_same_logits_run_and_timed():
    torch.manual_seed(0)
    network = mbconv(8, 1, 10, "tiny")
    content = to_onnx(extract(network, find_space(network).scaled(0.5)), (1, 8, 8)).SerializeToString()
    x = floats(3, 1, 8, 8)
    expected = open_onnx(content, parse_device("cpu")).run(x)
    session = open_session(content, DEVICE)
    assert session.input_shape == (1, 8, 8)
    assert np.abs(session.run(x) - expected).max() < 1e-4 * np.abs(expected).max()
    call = session.call(x[:1])
    for _ in range(3):  # the first ones are watched by torch, and what it makes of them runs later
        assert np.abs(call() - expected[:1]).max() < 1e-4 * np.abs(expected).max()


def test_a_session_runs_bytes_and_files_alike(tmp_path):
    (tmp_path / "m.onnx").write_bytes(SMALL)
    x = floats(2, 3, 4, 4)
    assert np.array_equal(open_session(SMALL, DEVICE).run(x), open_session(tmp_path / "m.onnx", DEVICE).run(x))


def test_threads_are_those_of_the_device_and_of_training_again():
    before, seen = torch.get_num_threads(), []

    class Counting(torch.nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x

    session = TorchSession(Counting().eval(), (4,), 2)
    session.run(np.zeros((1, 4), np.float32))
    assert seen == [2] and torch.get_num_threads() == before
    try:
        session.call(np.zeros((1, 4), np.float32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"junk", "torch cannot open the model of 4 bytes: it is no ONNX file"),
        (file_of([("QuantizeLinear", [np.float32(0.1)], {})]).SerializeToString(), "quantized, .*--precision fp32"),
        (file_of([("Conv", [floats(4, 2, 3, 3)], {})]).SerializeToString(), r"node 'Conv_0' \(Conv\) cannot be"),
        (file_of([("Relu", [], {})], shape=("any", 9)).SerializeToString(), "fixed sizes besides the batch"),
    ],
)
def test_what_cannot_be_opened_is_refused(content, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_session(content, DEVICE)
    assert "\n" not in str(caught.value)


def test_a_file_of_anybody_has_any_names_and_perhaps_one_batch():
    other = file_of([("Relu", [], {})], batch=2)
    other.graph.input[0].name = other.graph.node[0].input[0] = "x"
    session, x = open_session(other.SerializeToString(), DEVICE), floats(2, 3, 7, 9)
    assert np.array_equal(session.call(x)(), x.clip(0).reshape(2, -1)) and session.batch_shape(2) == x.shape
    with pytest.raises(ValueError, match=r"fixed shape .2, 3, 7, 9.: a batch of 1 does not fit"):
        session.batch_shape(1)


def test_other_inputs_and_missing_files_are_refused(tmp_path):
    other = file_of([("Relu", [], {})])
    other.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(ValueError, match="expected one float32 input"):
        open_session(other.SerializeToString(), DEVICE)
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        open_session(tmp_path / "none.onnx", DEVICE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_does_not_see_is_named():
    with pytest.raises(ValueError, match=r"'gpu:torch': torch .* sees no GPU .*install a build of torch"):
        open_session(SMALL, GPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_run_and_graph_give_the_same_logits():
    x = floats(2, 3, 4, 4)
    expected = open_onnx(SMALL, parse_device("cpu")).run(x)
    session = open_session(SMALL, GPU)
    assert isinstance(session, CudaSession)
    assert np.abs(session.run(x) - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(session.call(x)() - expected).max() < 1e-4 * np.abs(expected).max()
