"""`nas quantize` on a device that runs files in int8 throughout, on a network that was really trained."""

import io

import numpy as np
import onnx
import pytest
import torch
from compiled import share_kernels
from rich.console import Console
from taught import teach
from torch import nn

import nas
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.opening import open_session
from nas import quantizing
from nas.errors import CannotBeDone
from nas.quantized import quantized_view, write_quantized
from nas.throughout import check_asked, check_int8, place_of
from quant_search.ptq.fold import fold_constants
from quant_search.sensitivity.subject import by_layer
from supernet.data import load_data
from tests.nas.test_fused_run import GLANCE

FUSED, CPU = parse_device("cpu:fused"), parse_device("cpu")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", image_size=16)


@pytest.fixture(scope="module")
def network(digits):
    """A network that knows digits, most of it 1x1 convolutions."""
    torch.manual_seed(0)
    expand = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 96, 1), nn.ReLU()]
    depthwise = [nn.Conv2d(96, 96, 3, 2, 1, groups=96), nn.ReLU()]
    layers = [nn.Conv2d(96, 96, 1), nn.ReLU(), nn.Conv2d(96, 96, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1536, 10)]
    return to_onnx(teach(nn.Sequential(*expand, *depthwise, *layers), digits, epochs=5), (1, 16, 16))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("throughout")
    share_kernels(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(folder))
        patch.setattr(quantizing, "CAREFUL", GLANCE)
        patch.setattr("nas.layer_costs.QUICK", GLANCE)
        yield folder


def weights(file):
    """Of both 1x1 convolutions from 96 to 96 channels, as a file stores them (2, 96, 96)."""
    model = fold_constants(onnx.load_model_from_string(file))
    wide = [t for t in model.graph.initializer if tuple(t.dims) == (96, 96, 1, 1)]
    return np.stack([onnx.numpy_helper.to_array(tensor)[:, :, 0, 0] for tensor in wide])


def test_all_of_the_file_is_int8_and_it_is_held_against_onnx_runtime(network, digits, tmp_path):
    found = nas.quantize(network, digits, device="cpu:fused", max_drop=0.05, quiet=True)
    record = write_quantized(found, tmp_path, "net.onnx", "digits")
    assert record["chosen"] == "int8" and set(record["final"]) == {"fp32", "int8"} and not record["layers"]
    fp32, int8 = record["final"]["fp32"], record["final"]["int8"]
    assert fp32["device"] == "cpu" and "baseline" not in fp32 and "device" not in int8
    beside = int8["baseline"]
    assert beside["device"] == "cpu" and beside["factor"] == beside["latency_s"] / int8["latency_s"]["median"]
    assert int8["int8_share"] == 1 and not int8["fp32_islands"]
    session = open_session(tmp_path / "model.onnx", FUSED)
    assert np.mean(session.predict_labels(digits.x_test) == digits.y_test) == int8["accuracy"] > 0.8
    said = io.StringIO()
    Console(file=said, width=200).print(quantized_view(record))
    assert "times as fast as fp32 on cpu" in said.getvalue() and "The same file is" in said.getvalue()


def test_zero_blocks_are_kept_where_they_are_faster_than_their_dense_twin(network, digits, monkeypatch):
    monkeypatch.setattr(quantizing, "latencies", lambda files, *_: [1e-6 * np.count_nonzero(weights(f)) for f in files])
    monkeypatch.setattr(quantizing, "is_faster", lambda seconds, than_s: True)
    found = nas.quantize(network, digits, device="cpu:fused", sparsity="16x4:0.25", max_drop=1.0, quiet=True)
    files = {made.name: made for made in found.files}
    assert set(files) == {"fp32", "int8", "sparse fp32", "sparse int8"}
    assert found.chosen.name == "sparse int8" and set(found.final) == {"fp32", "int8", "sparse int8"}
    wide = weights(found.chosen.model)
    assert np.any(wide.reshape(2, 6, 16, 24, 4), axis=(2, 4)).mean() == 0.25


def test_more_lost_than_is_wanted_ends_in_a_line(network, digits, monkeypatch):
    told = {CPU: 3, FUSED: -1}
    monkeypatch.setattr(quantizing, "_classes", lambda model, device, x: np.full(len(x), told[device]))
    with pytest.raises(CannotBeDone, match=r"in int8 throughout .* or give --device cpu, where layers may be in fp32"):
        nas.quantize(network, digits, device="cpu:fused", quiet=True)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((("fp32", "int8"), "latency", "kl"), "'cpu:fused' runs int8 only .*, got 'fp32,int8': give --precision int8"),
        ((("w4a8",), "latency", "kl"), "got 'w4a8': give --precision int8"),
        ((("int8",), "size", "kl"), "chosen by latency, got objective 'size': give --device cpu"),
        ((("int8",), "latency", "hessian"), "leave sensitivity 'hessian' out"),
    ],
)
def test_what_cannot_be_chosen_is_refused(asked, words):
    with pytest.raises(ValueError, match=words):
        check_asked(*asked, FUSED)
    check_asked(*asked, CPU)


def test_a_network_without_kernels_is_refused_before_any_work(digits, monkeypatch):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.classifier = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(256, 10)

        def forward(self, x):
            return self.classifier(torch.cumsum(self.conv(x), 1).flatten(1))

    model = to_onnx(Odd().eval(), (1, 16, 16))
    monkeypatch.setattr("nas.quantize_run.check_sparsity", None)
    with pytest.raises(ValueError, match=r"does not run on cpu:fused .*CumSum.*: give --device cpu"):
        nas.quantize(model, digits, device="cpu:fused", quiet=True)
    check_int8(model, by_layer(model), digits.x_train[:1], CPU)


def test_files_in_fp32_run_on_the_baseline():
    assert place_of({"a": "fp32"}, FUSED) == CPU and place_of({"a": "int8"}, FUSED) == FUSED
    assert place_of({"a": "fp32"}, CPU) == CPU
