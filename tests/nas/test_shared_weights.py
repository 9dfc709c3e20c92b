"""Weights kept once for many models."""

import itertools
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session, optimised_graph
from nas.profiling import neutral_
from nas.shared_weights import share_weights_, write_weights
from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges


@pytest.fixture(params=["fp32", "int8"])
def model(request):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Flatten(), nn.Linear(576, 10)
    )
    found = to_onnx(neutral_(network), (3, 8, 8))
    if request.param == "int8":
        found = quantize(found, [node.name for node in found.graph.node], neutral_ranges(found))
    return found


def kinds(session_of, path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.intra_op_num_threads = str(path), 1
    options.log_severity_level = 3
    onnxruntime.InferenceSession(session_of, options)
    return Counter(node.op_type for node in onnx.load_model(path, load_external_data=False).graph.node)


def test_a_model_with_shared_weights_runs_the_same_kernels(model, tmp_path):
    whole = model.SerializeToString()
    write_weights(tmp_path / "weights.bin", share_weights_(model, "weights.bin"))
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    assert file.stat().st_size < len(whole) / 2
    device = parse_device("cpu")
    expected = Counter(node.op_type for node in optimised_graph(whole, device).graph.node)
    assert kinds(str(file), tmp_path / "optimised.onnx") == expected
    logits = open_session(file, device).run(np.ones((1, 3, 8, 8), np.float32))
    assert np.isfinite(logits).all() and np.abs(logits).max() > 1e-3


def test_every_weight_has_a_place_of_its_own_and_what_decides_stays(model):
    share_weights_(model, "weights.bin")
    places = []
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            places.append((int(entry["offset"]), int(entry["length"])))
            assert len(tensor.dims) >= 2 and not tensor.raw_data
        else:
            assert len(tensor.dims) < 2 or onnx.numpy_helper.to_array(tensor).nbytes < 256
    assert len(places) >= 1 and all(offset % 64 == 0 for offset, _ in places)
    places.sort()
    assert all(offset + length <= after for (offset, length), (after, _) in itertools.pairwise(places))


def test_the_numbers_are_ordinary(tmp_path):
    write_weights(tmp_path / "w.bin", 10_001)
    numbers = np.fromfile(tmp_path / "w.bin", "<f4")
    assert numbers.nbytes >= 10_001 and np.isfinite(numbers).all() and np.abs(numbers).max() < 1
    assert (np.abs(numbers) > np.finfo(np.float32).tiny).all()
