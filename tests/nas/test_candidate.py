"""Files of subnets: batch norms are calibrated with the weights that the file has."""

import numpy as np
import pytest
import torch
from small_space import Small

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from nas.candidate import Builder, with_policy
from nas.spec import build_network
from quant_search.layer_rounding import round_layers_
from quant_search.policy import joint_space, policy_of, uniform
from search_spaces.network import extract, find_blocks
from supernet.calibrate import calibrate_, calibration_images
from supernet.data import load_data

PRECISIONS = ("fp32", "int8", "w2a8")


@pytest.fixture(scope="module")
def made():
    data = load_data("digits")
    network, space = build_network(Small, data.image_shape, data.num_classes)
    builder = Builder(network, BlockTracer(network, data.image_shape), data, PRECISIONS)
    return network, joint_space(space, find_blocks(network), PRECISIONS), builder, data


def test_weights_and_in_fp32_statistics_are_as_ever(made):
    network, space, builder, data = made
    for precision in PRECISIONS:
        arch = uniform(space.largest(), precision)
        expected = extract(network, arch)
        calibrate_(expected, calibration_images(data))
        found = builder.network(arch, policy_of(arch, find_blocks(network), PRECISIONS))
        state = expected.state_dict()
        moved = [n for n, value in found.state_dict().items() if not torch.equal(value, state[n])]
        assert all("running" in name for name in moved) and bool(moved) == (precision != "fp32")
        assert not any(layer._forward_pre_hooks for layer in found.modules())


def test_what_a_file_of_few_bits_computes_is_normalised(made):
    """The stem's outputs in two bits have the mean and deviation of its norm, as those in fp32 have."""
    network, space, builder, data = made
    arch = uniform(space.largest(), "w2a8")
    policy = policy_of(arch, find_blocks(network), PRECISIONS)
    x = torch.from_numpy(calibration_images(data))
    off = {}
    for name, plain in (("fp32", builder.network(arch)), ("as filed", builder.network(arch, policy))):
        round_layers_(plain, find_blocks(network), policy)
        with torch.no_grad():
            y = plain.stem[1](plain.stem[0](x))
        off[name] = float((y.std((0, 2, 3)) - 1).abs().max())
    assert off["as filed"] < 0.05 < 0.2 < off["fp32"]


def test_the_same_weights_give_the_same_bytes(made):
    network, space, builder, data = made
    arch = space.smallest()
    candidate = builder.build(arch)
    assert candidate.model == builder.build(arch).model and set(candidate.policy.values()) == {"w2a8"}
    logits = open_session(candidate.model, parse_device("cpu")).run(data.x_val[:8])
    assert logits.shape == (8, data.num_classes) and np.isfinite(logits).all()
    blocks, images = find_blocks(network), calibration_images(data)
    files = [
        with_policy(to_onnx(plain, data.image_shape), blocks, candidate.policy, images).SerializeToString()
        for plain in (builder.network(arch, candidate.policy), builder.network(arch))
    ]
    assert candidate.model == files[0] != files[1]
