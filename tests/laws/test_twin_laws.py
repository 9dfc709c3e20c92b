"""The law of believed accuracy, over every ready-made space: torch's twin gives the codes that the file gives."""

import numpy as np
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.onnx_qdq import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from quant_search.twin import Twin
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space
from tests.laws.entries import SMALLEST

SHAPE = (3, 32, 32)
# Layers in fp32 between such in int8 are left out: ONNX Runtime rounds the weights of those by itself.
OPTIONS = ("int8", "w4a8", "w7a8", "w3a8")


def images(n, seed):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


def drawn(name, preset):
    """A random network of a space, whose norms have the statistics of a batch."""
    torch.manual_seed(0)
    network = SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset)
    space = find_space(network)
    plain = extract(network, space.row(space.sample(1, np.random.default_rng(0))[0]))
    for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        plain.train()(torch.from_numpy(images(64, 1)))
    return to_onnx(plain.eval(), SHAPE)


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def model(request):
    return drawn(*request.param)


@pytest.mark.parametrize("options", [("int8",), OPTIONS], ids=["int8", "mixed"])
def test_the_twin_gives_the_logits_of_the_file(model, options):
    groups = by_layer(model)
    chosen = {group: options[i % len(options)] for i, group in enumerate(groups)}
    ranges = activation_ranges(model, images(32, 2), nodes=nodes_in_int8(groups, chosen))
    twin, x = Twin(model, groups, chosen, ranges), images(32, 3)
    file = in_precisions(twin.fp32(model), groups, chosen, twin.ranges(), twin.codes())
    fp32, int8 = (open_session(m.SerializeToString(), parse_device("cpu")).run(x) for m in (model, file))
    with torch.no_grad():
        off = np.abs(twin(torch.from_numpy(x)).numpy() - int8)
    # A tie in one of 10,000 codes goes the other way in sums of floats, and deep random networks amplify it.
    assert off.mean() < 0.3 * np.abs(int8 - fp32).mean() or off.max() < 3 * np.ptp(fp32) / 255
