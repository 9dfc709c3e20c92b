"""Gradients of fake quantization; that its values are the reference's stands in tests/laws/test_format_laws.py."""

import numpy as np
import pytest
import torch

from quant_search.fake import TorchScales, covering, fake_quantize, scales_of
from quant_search.formats import FORMATS, PER_TENSOR, Format, Integer, parse_format, per_channel, per_group


def gradient(values, number, granularity=None, scales=None):
    values = values.clone().requires_grad_()
    weights = torch.arange(1.0, 1 + values.numel()).reshape(values.shape)
    (fake_quantize(values, number, granularity, scales) * weights).sum().backward()
    return values.grad / weights


@pytest.mark.parametrize("name", FORMATS)
def test_values_inside_of_the_range_have_the_gradient_of_the_identity(name):
    number = FORMATS[name]
    values = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) + 0.01
    for granularity in (PER_TENSOR, per_channel(0), per_group(1, 7), per_group(1, 16), per_group(1, 32)):
        if number.accepts(granularity) and name != "int32":
            inside = gradient(values, number, granularity)
            whole = name.startswith(("int", "uint", "e", "fp", "bf16", "nvfp4"))  # others cut the largest of a block
            assert (inside == 1).all() if whole else (inside == 1).float().mean() > 0.9


@pytest.mark.parametrize(("name", "last"), [("int4", 7), ("uint4", 15), ("e2m1", 6), ("e4m3", 448)])
def test_values_that_are_cut_have_none(name, last):
    number = parse_format(name)
    one = TorchScales(torch.tensor(1.0), torch.tensor(0.0))
    half = 0.5 if name != "e2m1" else 1.0
    half = 16.0 if name == "e4m3" else half  # half the distance to the next number, were there one
    values = torch.tensor([last, last + half * 0.9, last + half * 1.1, last + 1e6, 0.3])
    assert gradient(values, number, scales=one).tolist() == [1, 1, 0, 0, 1]
    below = gradient(-values, number, scales=one).tolist()
    assert below == ([0, 0, 0, 0, 1] if name == "uint4" else [1, 1, 1, 0, 1] if name == "int4" else [1, 1, 0, 0, 1])


def test_scales_given_are_used_and_get_no_gradient():
    values = torch.tensor([[0.3, -0.7], [2.0, 5.0]])
    scales = TorchScales(torch.tensor([0.1, 1.0], requires_grad=True), torch.zeros(2))
    rounded = fake_quantize(values.requires_grad_(), parse_format("int4"), per_channel(), scales)
    np.testing.assert_allclose(rounded.detach(), [[0.3, -0.7], [2.0, 5.0]], rtol=1e-6)
    rounded.sum().backward()
    assert scales.scale.grad is None


def test_a_range_gives_the_scales_of_values_with_these_ends():
    values = torch.tensor([-0.7, 0.1, 2.0])
    for number in (parse_format(name) for name in ("uint8", "int8", "int4", "e4m3", "fp16")):
        assert covering(values.min(), values.max(), number) == scales_of(values, number)


def test_lower_precision_is_rounded_in_float32():
    values = torch.tensor([0.1, 0.2, 0.3], dtype=torch.bfloat16)
    for name in ("int8", "e4m3"):
        expected = fake_quantize(values.float(), parse_format(name))
        assert torch.equal(fake_quantize(values, parse_format(name)), expected)


def test_the_values_given_stay_as_they_are():
    values = torch.tensor([0.11, -0.52, 3.0])
    before = values.clone()
    for number in FORMATS.values():
        fake_quantize(values, number)
        assert torch.equal(values, before)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="give group:AXIS:32, got 'channel:0'"):
        fake_quantize(torch.ones(3, 4), parse_format("mxfp4"), per_channel())
    with pytest.raises(ValueError, match=r"needs axis 2, got a tensor of shape \(3, 4\)"):
        fake_quantize(torch.ones(3, 4), Integer(8), per_channel(2))

    class Other(Format):
        bits, name, dtype = 8, "other", np.dtype(np.int8)
        covering = encode = decode = storage_bits = lambda *arguments: None

    with pytest.raises(TypeError, match="knows integers, minifloats and blocks of them, got Other"):
        fake_quantize(torch.ones(3), Other())
