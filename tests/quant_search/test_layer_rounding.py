import numpy as np
import pytest
import torch
from torch import nn

from quant_search.fake import fake_quantize
from quant_search.formats.granularity import per_channel
from quant_search.formats.number import Scales
from quant_search.layer_rounding import round_layers_, rounded_activation, rounded_weight
from quant_search.layers import layers, values_of
from quant_search.ranges import UINT8
from quant_search.realise import rounded_weights
from quant_search.weight_codes import scales_of_least_error, weight_format
from search_spaces.network import Block
from tests.quant_search.small_digits import every, trained

SHAPES = [(24, 8, 1, 1), (24, 1, 5, 5), (10, 64), (3, 700)]


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
def test_weights_are_those_of_the_exported_file(bits):
    model = trained()
    values, codes = values_of(model), rounded_weights(model, every(model), bits)
    for layer in layers(model):
        weight = torch.from_numpy(np.moveaxis(values[layer.weight], layer.out_axis, 0).copy())
        expected = np.moveaxis(codes[layer.name].weight(layer.out_axis), layer.out_axis, 0)
        np.testing.assert_array_equal(rounded_weight(weight, bits).numpy(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_scales_have_the_least_error_however_many_are_tried_at_once(shape, monkeypatch):
    weight, number = drawn(shape), weight_format(3)
    scale = scales_of_least_error(weight.numpy(), number, per_channel(0))
    expected = number.round_trip(weight.numpy(), per_channel(0), Scales(scale, np.zeros(scale.shape, np.int8)))
    np.testing.assert_array_equal(rounded_weight(weight, 3).numpy(), expected)
    monkeypatch.setattr("quant_search.layer_rounding._AT_ONCE", 5000)
    np.testing.assert_array_equal(rounded_weight(weight, 3).numpy(), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_norms_factors_may_be_folded_in_before_or_after(bits):
    weight = drawn((16, 6, 3, 3))
    factors = torch.exp(drawn((16, 1, 1, 1), seed=1))
    if bits == 8:  # codes of fewer bits reach one further below zero
        factors[::2] *= -1
    torch.testing.assert_close(rounded_weight(weight * factors, bits), rounded_weight(weight, bits) * factors)


def test_gradients_of_weights_are_straight_but_where_codes_are_cut():
    weight = drawn((4, 64)).requires_grad_()
    rounded_weight(weight, 8).sum().backward()
    assert torch.equal(weight.grad, torch.ones(4, 64))
    weight.grad = None
    rounded = rounded_weight(weight, 2)
    rounded.sum().backward()
    assert 0 < (weight.grad == 0).sum() < 64 and set(weight.grad.unique().tolist()) == {0.0, 1.0}
    assert (weight.detach().abs() > rounded.detach().abs())[weight.grad == 0].all()


def test_activations_are_in_eight_bits_over_their_range_with_straight_gradients():
    x = drawn((3, 4, 5, 5)).to(memory_format=torch.channels_last).requires_grad_()
    rounded = rounded_activation(x)
    assert torch.equal(rounded, fake_quantize(x.detach(), UINT8)) and len(rounded.unique()) > 100
    assert rounded.is_contiguous(memory_format=torch.channels_last)
    (rounded * 2).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_float_types_stay_what_they_are(kind):
    assert rounded_activation(drawn((2, 3)).to(kind)).dtype == kind
    assert rounded_weight(drawn((2, 3)).to(kind), 4).dtype == kind


def plain():
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.ModuleDict({"stem": conv, "head": nn.Linear(4, 2), "aside": nn.Linear(4, 2)})


BLOCKS = [Block("stem", ("stem",), (), True), Block("head", ("head",), (), True), Block("gone", ("gone",), (), True)]


def test_layers_of_blocks_round_until_they_are_given_back():
    net, x, y = plain(), drawn((2, 1, 6, 6)), drawn((2, 4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net["stem"](x), net["head"](y), net["aside"](y)
    give_back = round_layers_(net, BLOCKS, {"stem": "w2", "head": "int8", "gone": "int8"})
    assert torch.equal(net["stem"][0].weight, rounded_weight(before["stem.0.weight"], 2))
    held = rounded_weight(before["head.weight"], 8)
    torch.testing.assert_close(net["head"](y), nn.functional.linear(rounded_activation(y), held, before["head.bias"]))
    assert not torch.equal(net["stem"](x), expected[0]) and torch.equal(net["aside"](y), expected[2])
    give_back()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items() if "running" not in name
               and "tracked" not in name)  # fmt: skip
    assert torch.equal(net["head"](y), expected[1])


def test_inputs_may_stay_as_they_are():
    net, y = plain(), drawn((2, 4))
    held = rounded_weight(net["head"].weight.detach(), 8)
    round_layers_(net, BLOCKS, {"head": "int8"}, activations=False)
    assert torch.equal(net["head"](y), nn.functional.linear(y, held, net["head"].bias))
    with pytest.raises(ValueError, match="unknown precision 'int9'"):
        round_layers_(net, BLOCKS, {"head": "int9"})
