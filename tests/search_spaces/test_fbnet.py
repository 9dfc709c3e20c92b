import re

import numpy as np
import pytest
import torch
from torch import nn

from latency.count import count
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from search_spaces.fbnet import OPERATIONS, PUBLISHED, _layer, fbnet, fbnet_architecture
from search_spaces.network import extract, find_space
from search_spaces.parts import InvertedBottleneck
from search_spaces.value import Choice


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        return fbnet(224, 3, 1000)


def test_there_are_nine_operations_in_each_of_22_layers(full):
    space = find_space(full)
    assert space.size == 9**22 and {c.options for c in space.choices} == {OPERATIONS}
    assert set(PUBLISHED) == set(OPERATIONS)


def test_published_indices_are_read(full):
    space = find_space(full)
    arch = fbnet_architecture(space, [*range(9), *[8] * 13])
    assert [arch[f"layer{i}"] for i in range(1, 10)] == list(PUBLISHED)
    assert arch.indices[9:] == (0,) * 13
    for wrong in ([0] * 21, [9] * 22, [-1] * 22):
        with pytest.raises(ValueError, match=re.escape("is 22 indices from 0 to 8, got")):
            fbnet_architecture(space, wrong)


def test_operations_are_listed_from_the_cheapest():
    layer = _layer(Choice("layer", OPERATIONS), 24, 24, 1)
    archs = find_space(layer).enumerate()
    found = [count(extract(layer, arch), (24, 14, 14)).macs for arch in archs]
    assert found == sorted(set(found)) and found[0] == 0 and len(found) == 9


def test_the_table_of_the_paper_is_what_is_built(full):
    widths = [full.get_submodule(f"layer{i}.0") for i in range(1, 23)]
    skips = [i for i, layer in enumerate(widths, start=1) if not isinstance(layer, nn.Identity)]
    assert skips == [2, 6, 10, 14, 18, 22]
    shapes = [tuple(full.get_submodule(f"layer{i}.0.0").weight.shape[:2]) for i in skips]
    assert shapes == [(24, 16), (32, 24), (64, 32), (112, 64), (184, 112), (352, 184)]
    assert [full.get_submodule(f"layer{i}.0.0").stride for i in skips] == [2, 2, 2, 1, 2, 1]
    assert tuple(full.head[0].weight.shape) == (1984, 352, 1, 1)


@torch.no_grad()
def test_a_grouped_block_shuffles_what_its_groups_made_and_its_file_does_too():
    block = InvertedBottleneck(4, 4, 3, 1, 2, groups=2)
    plain = extract(nn.Sequential(block), find_space(_layer(Choice("any", OPERATIONS), 4, 4, 1)).smallest()).eval()
    for conv, centre in ((plain[0].expand[0], 0), (plain[0].depthwise[0], 1), (plain[0].project[0], 0)):
        conv.weight.zero_()
        for i in range(4):  # every channel is handed on as it is
            conv.weight[i, i % conv.weight.shape[1], centre, centre] = 1
    x = torch.arange(1.0, 5).view(1, 4, 1, 1).expand(3, 4, 4, 4).contiguous()
    y = plain(x)
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor([1.0, 3, 2, 4]), rtol=1e-4, atol=0)
    file = to_onnx(plain, (4, 4, 4))
    found = open_session(file.SerializeToString(), parse_device("cpu")).run(x.numpy())
    assert np.allclose(found, y.numpy(), atol=1e-5)
