"""Laws of quantization, over every ready-made space: small errors, and int8 exactly where the policy says."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from latency.blocks import block_modules
from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import open_session, optimised_graph
from quant_search.onnx_qdq import activation_ranges, quantize, weight_bits
from quant_search.policy import PRECISIONS, describe, joint_space, policy_of, uniform
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_blocks, find_space
from tests.laws.entries import SMALLEST

CPU = parse_device("cpu")
SHAPE = (3, 32, 32)
LAW = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def images(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


def calibrated(network):
    """A plain network whose norms have the statistics of a batch, and weights of their own."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(0)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(images(64, seed=9)))
    return network.eval()


class Sample:
    """An architecture with a mixed policy, as fp32, as int8 and as the policy says."""

    def __init__(self, network, arch):
        self.blocks = find_blocks(network)
        self.policy = policy_of(arch, self.blocks, PRECISIONS)
        self.fp32 = to_onnx(calibrated(extract(network, arch)), SHAPE)
        self.ranges = activation_ranges(self.fp32, images(48))
        self.int8 = self.in_int8(self.policy)
        self.mixed = self.in_int8([name for name, precision in self.policy.items() if precision == "int8"])

    def nodes(self, names):
        return nodes_of(self.fp32, tuple(m for b in self.blocks if b.name in names for m in b.members))

    def in_int8(self, names):
        return quantize(self.fp32, self.nodes(names), self.ranges)


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def samples(request):
    name, preset = request.param
    torch.manual_seed(0)
    network = SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset)
    space = joint_space(find_space(network), find_blocks(network), PRECISIONS)
    archs = [space.row(row) for row in space.sample(2, np.random.default_rng(0))]
    return [Sample(network, arch) for arch in archs]


def weighted(model):
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def int8_weights(model):
    """Weight name to (codes, scale of each channel, zero point) of every layer whose weight is stored in int8."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    sources = {node.name: made_by[node.input[1]].input for node in weighted(model) if node.input[1] in made_by}
    return {name: tuple(tensors[part] for part in parts) for name, parts in sources.items()}


def floats(model):
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {node.name: tensors[node.input[1]] for node in weighted(model) if node.input[1] in tensors}


def test_weights_are_off_by_half_a_step_of_their_channel_at_most(samples):
    for sample in samples:
        original, quantized = floats(sample.fp32), int8_weights(sample.int8)
        assert set(quantized) == set(original)
        for name, (codes, scale, zero) in quantized.items():
            assert codes.dtype == np.int8 and not zero.any()
            assert scale.shape == (len(codes),)  # one for each output channel
            step = scale.reshape(-1, *[1] * (codes.ndim - 1))
            assert (np.abs(original[name] - codes * step) <= 0.5001 * step).all(), name
            largest = 127 if weight_bits() == 8 else 64  # the whole range is used
            assert (np.abs(codes.reshape(len(codes), -1)).max(axis=1) == largest).all(), name


def test_a_mixed_policy_quantizes_exactly_the_chosen_blocks(samples):
    for sample in samples:
        chosen = {name for name, precision in sample.policy.items() if precision == "int8"}
        assert 0 < len(chosen) < len(sample.policy)
        inside = set(sample.nodes(chosen)).intersection(node.name for node in weighted(sample.fp32))
        assert set(int8_weights(sample.mixed)) == inside
        assert set(floats(sample.mixed)) == {node.name for node in weighted(sample.fp32)} - inside


def test_onnx_runtime_runs_integer_kernels_exactly_there(samples):
    for sample in samples:
        for model in (sample.fp32, sample.mixed, sample.int8):
            kinds = Counter(n.op_type for n in optimised_graph(model.SerializeToString(), CPU).graph.node)
            integer = kinds["QLinearConv"] + kinds["QGemm"] + kinds["QLinearMatMul"]
            float_ = sum(kinds[kind] for kind in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"))
            enclosed = enclosed_by_int8(model)
            assert integer == len(int8_weights(model)) + enclosed
            norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)  # may run as convolutions
            assert 0 <= float_ - (len(floats(model)) - enclosed) <= norms


def enclosed_by_int8(model):
    """Float layers between codes and, behind ReLU at most, codes: ONNX Runtime rounds their weights itself."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    read_by = {}
    for node in model.graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)

    def readers(name):
        found = read_by.get(name, [])
        return readers(found[0].output[0]) if [n.op_type for n in found] == ["Relu"] else [n.op_type for n in found]

    layers = [node for node in weighted(model) if node.name in floats(model)]
    takes = [node for node in layers if made_by.get(node.input[0]) == "DequantizeLinear"]
    return sum(readers(node.output[0]) == ["QuantizeLinear"] for node in takes)


def test_files_are_valid(samples):
    for sample in samples:
        for model in (sample.mixed, sample.int8):
            onnx.checker.check_model(model, full_check=True)


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def test_outputs_are_off_by_no_more_than_a_little_noise_in_the_images_does(samples):
    x = images(64, seed=1)
    # Deep random networks amplify whatever is added; what differs from pixel to pixel is averaged away by pools.
    noisy = x + 0.01 * images(64, seed=2)[:, :, :1, :1]
    for sample in samples:
        y = run(sample.fp32, x)
        by_noise = np.sqrt(np.mean((run(sample.fp32, noisy) - y) ** 2))
        for model in (sample.mixed, sample.int8):
            step = 2 ** (8 - weight_bits())  # of weights with a bit less it is twice as large
            assert 0 < np.sqrt(np.mean((run(model, x) - y) ** 2)) < 6 * step * by_noise


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def joint(request):
    name, preset = request.param
    network = SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset)
    blocks = find_blocks(network)
    return network, joint_space(find_space(network), blocks, PRECISIONS), blocks


@LAW
@given(seed=st.integers(0, 2**32 - 1))
def test_a_policy_is_active_exactly_where_the_blocks_exist(joint, seed):
    network, space, blocks = joint
    (row,) = space.sample(1, np.random.default_rng(seed))
    arch = space.row(row)
    policy = policy_of(arch, blocks, PRECISIONS)
    there = [b.name for b in blocks if b.has_weights(arch.values)]
    if seed % 5 == 0:  # slow
        plain = block_modules(network, arch, blocks)
        assert there == [name for name, module in plain.items() if any(p.dim() > 1 for p in module.parameters())]
    assert list(policy) == there
    assert {n for n in arch.values if n.endswith(".precision")} == {f"{name}.precision" for name in there}
    for precision in PRECISIONS:
        assert describe(policy_of(uniform(arch, precision), blocks, PRECISIONS)) == precision
