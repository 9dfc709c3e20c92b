"""Operators of torch run programs as native code does, and survive export and compilation."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from native_programs import program_of, some_block, some_codes, some_convolution
from qdq_graphs import Graph
from torch._subclasses import FakeTensorMode

from latency.kernels import opened, torch_ops
from latency.kernels.contract import Add, Rounding
from latency.kernels.intake import program_of as taken_in
from latency.kernels.native import open_program
from latency.kernels.program import encoded
from latency.kernels.torch_ops import FusedLayers, FusedNetwork


def qdq_model(seed=0):
    """A small network as a QDQ file, and images."""
    graph = Graph((3, 9, 7), seed)
    x = graph.codes(graph.conv(graph.start(), 8, 3, 3, 3, pads=[1, 1, 1, 1]), 0.03)
    x = graph.codes(graph.conv(x, 8, 1, 3, 3, group=8, strides=[2, 2], pads=[1, 1, 1, 1]), 0.02)
    return graph.model(graph.pooled(x)), graph.images(5)


@pytest.fixture(scope="module")
def model():
    return qdq_model()


@pytest.fixture(scope="module")
def network(model):
    return FusedNetwork(model[0].SerializeToString())


@pytest.fixture(scope="module")
def expected(model):
    with open_program(taken_in(model[0])) as native:
        outputs = native.run(model[1])
    assert len(np.unique(outputs)) > 10
    return outputs


def test_a_network_runs_as_native_code_does(network, model, expected, tmp_path):
    x = torch.from_numpy(model[1])
    assert network.input_shape == (3, 9, 7) and network.outputs == 8
    np.testing.assert_array_equal(network(x).numpy(), expected)
    np.testing.assert_array_equal(network(x.to(memory_format=torch.channels_last)).numpy(), expected)
    np.testing.assert_array_equal(network(x.requires_grad_()).detach().numpy(), expected)
    assert network(x[:0]).shape == (0, 8)
    onnx.save(model[0], tmp_path / "net.onnx")
    for file in (tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        np.testing.assert_array_equal(FusedNetwork(file, threads=2)(x).detach().numpy(), expected)


def test_operators_are_registered_as_torch_wants_them(network, model):
    x = torch.from_numpy(model[1])
    torch.library.opcheck(torch.ops.hwnas.run_program.default, (network.program, x, 8, 2))
    layers, codes, _ = inverted_residual()
    torch.library.opcheck(torch.ops.hwnas.run_codes.default, (layers.program, codes, list(layers.output_shape)))


def inverted_residual():
    """An inverted residual as a module, codes for it, and what the reference makes of them."""
    rng = np.random.default_rng(0)
    block = some_block(rng, 19, 50, 19, 3, 1, (1, 1, 1, 1), residual=True)
    codes = some_codes(rng, 3, (9, 10, 19)).astype(np.uint8)
    return FusedLayers([block], (9, 10, 19)), torch.from_numpy(codes), block.run(codes)


def test_layers_run_on_codes():
    layers, codes, expected = inverted_residual()
    assert layers(codes).dtype == torch.uint8 and len(np.unique(expected)) > 100
    np.testing.assert_array_equal(layers(codes).numpy(), expected)
    rng = np.random.default_rng(1)
    chain = [some_convolution(rng, 5, 21, (3, 2), 2), some_block(rng, 21, 40, 33, 5, 2, (2, 2, 2, 2))]
    made = FusedLayers(chain, (11, 12, 5), threads=2)
    codes = some_codes(rng, 2, (11, 12, 5)).astype(np.uint8)
    assert made.output_shape == (3, 3, 33)
    np.testing.assert_array_equal(made(torch.from_numpy(codes)).numpy(), chain[1].run(chain[0].run(codes)))


def test_layers_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="for 5 channels"):
        FusedLayers([some_convolution(rng, 4, 7)], (3, 3, 5))
    with pytest.raises(ValueError, match="a Add is no layer from codes to codes"):
        FusedLayers([Add(np.float32(1), Rounding(np.ones(1, np.float32), np.ones(1, np.float32)))], (3, 3, 5))
    with pytest.raises(ValueError, match="no layers were given"):
        FusedLayers([], (3, 3, 5))


LOADED = """
import sys, numpy as np, torch
import latency.kernels.torch_ops
x = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], torch.export.load(sys.argv[1]).module()(x).numpy())
"""


def test_exported_programs_are_saved_and_run_elsewhere_with_any_batch(network, model, expected, tmp_path):
    both = torch.nn.Sequential(network, torch.nn.Softmax(1))
    x = torch.from_numpy(model[1])
    program = torch.export.export(both, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert "hwnas.run_program" in str(program.graph)
    torch.export.save(program, tmp_path / "net.pt2")
    np.save(tmp_path / "x.npy", model[1])
    files = [str(tmp_path / name) for name in ("net.pt2", "x.npy", "y.npy")]
    subprocess.run(
        [sys.executable, "-c", LOADED, *files], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), torch.softmax(torch.from_numpy(expected), 1).numpy())
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    np.testing.assert_array_equal(loaded(x[:1]).numpy(), torch.softmax(torch.from_numpy(expected[:1]), 1).numpy())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_graph_is_compiled_whole(network, model, expected, backend):
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=True)
    for n in (2, 5):
        np.testing.assert_array_equal(compiled(torch.from_numpy(model[1][:n])).numpy(), expected[:n])


def test_a_state_is_that_of_a_network(network, model, expected):
    other, x = FusedNetwork(qdq_model(seed=3)[0].SerializeToString()), torch.from_numpy(model[1])
    assert not np.array_equal(other(x).numpy(), expected)
    other.load_state_dict(network.state_dict())  # in place: what was read of the program before counts no more
    np.testing.assert_array_equal(other(x).numpy(), expected)


@pytest.mark.parametrize("wrong, message", [
    (lambda p, x: (p, x.double(), 8), r"images: got torch\.float64 of 4 dimensions, expected torch\.float32 of 4"),
    (lambda p, x: (p, x[0], 8), r"images: got torch\.float32 of 3 dimensions, expected torch\.float32 of 4"),
    (lambda p, x: (p.float(), x, 8), r"the program: got torch\.float32 of 1 dimensions, expected torch\.uint8 of 1"),
    (lambda p, x: (p, x.mT, 8), r"runs images \(b, 3, 9, 7\) to 8 numbers, got \(b, 3, 7, 9\) to 8 numbers"),
    (lambda p, x: (p, x, 9), r"to 8 numbers, got \(b, 3, 9, 7\) to 9 numbers"),
    (lambda p, x: (p, x, 8, 0), "threads must be at least 1, got 0"),
    (lambda p, x: (p[:100], x, 8), "the program is damaged"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(network, model, wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        torch.ops.hwnas.run_program(*wrong(network.program, torch.from_numpy(model[1])))
    assert "\n" not in str(error.value)


def test_tensors_on_other_devices_are_refused(network):
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(2, 3, 9, 7, device="cuda")
        with pytest.raises(ValueError, match=r"images: got a tensor on cuda:0, and fused kernels run on the CPU"):
            torch.ops.hwnas.run_program(network.program, images, 8)


def test_few_programs_stay_open(monkeypatch):
    monkeypatch.setattr(opened, "_MOST", 2)
    rng = np.random.default_rng(0)
    files = [encoded(program_of((4, 2, 2), some_convolution(rng, 4, n))) for n in (3, 5, 7)]
    digests = [opened.digest_of(data) for data in files]
    first = opened.opened(digests[0], files[0])
    assert opened.opened(digests[0], files[0]) is first
    opened.opened(digests[1], files[1])
    assert opened.opened(digests[0], files[0]) is first
    opened.opened(digests[2], files[2])  # for which the second makes room, not the first
    assert list(opened._kept) == [digests[0], digests[2]]


def test_content_is_not_read_with_every_call(network, model, monkeypatch):
    x = torch.from_numpy(model[1])
    network(x)
    monkeypatch.setattr(torch_ops, "digest_of", None)
    network(x)
    with pytest.raises(TypeError):
        torch.ops.hwnas.run_program(network.program.clone(), x, 8)
