import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from quant_search.islands import meant_for_int8, share_in_int8
from quant_search.layers import layer_macs, layers
from quant_search.onnx_qdq import neutral_ranges, quantize
from quant_search.weight_codes import packed_tensor, rounded
from tests.quant_search.small_digits import CPU, every, trained


@pytest.fixture(scope="module")
def fp32():
    return trained()


def test_all_or_nothing(fp32):
    ranges = neutral_ranges(fp32)
    nothing, all_ = (share_in_int8(quantize(fp32, nodes, ranges), CPU) for nodes in ([], every(fp32)))
    assert (nothing.share, nothing.islands) == (0, ()) and (all_.share, all_.islands) == (1, ())
    assert all_.macs == sum(layer_macs(fp32).values())


def test_the_share_is_that_of_the_layers_chosen(fp32, tmp_path):
    chosen = [name for name in every(fp32) if name.startswith("/block")]
    int8 = quantize(fp32, chosen, neutral_ranges(fp32))
    macs = {name: count for name, count in layer_macs(fp32).items() if name in chosen}
    found = share_in_int8(int8, CPU)
    assert found.int8_macs == sum(macs.values()) and found.islands == ()
    assert set(meant_for_int8(int8)) == set(macs)
    onnx.save_model(int8, tmp_path / "m.onnx")
    assert share_in_int8(tmp_path / "m.onnx", CPU) == share_in_int8(int8.SerializeToString(), CPU) == found


def test_int4_codes_that_are_dequantized_as_they_are_make_an_island(fp32):
    """What the exporter avoids by a Cast: ONNX Runtime has no int8 kernel for four-bit codes."""
    name = "/block.3/Conv"
    model = quantize(fp32, every(fp32), neutral_ranges(fp32), rounded(fp32, {name: 4}))
    assert share_in_int8(model, CPU).islands == ()
    graph = model.graph
    cast = next(node for node in graph.node if node.op_type == "Cast")
    wide = next(node for node in graph.node if cast.output[0] in node.input)
    wide.input[0] = cast.input[0]
    zero = next(t for t in graph.initializer if t.name == wide.input[2])
    zero.CopyFrom(packed_tensor(np.zeros(zero.dims, np.int8), zero.name))
    graph.node.remove(cast)
    found = share_in_int8(model, CPU)
    assert found.islands == (name,)
    assert found.macs - found.int8_macs == layer_macs(fp32)[name]


def test_an_activation_in_the_way_is_no_island_of_its_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, 1))
    model = to_onnx(net, (3, 8, 8))
    found = share_in_int8(quantize(model, every(model), neutral_ranges(model)), CPU)
    assert found.share == 1 and not found.islands and len(layers(model)) == 3
