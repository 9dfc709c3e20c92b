"""LSQ's gradients against equation 3 of the paper and against differences, and that training with them helps."""

import math

import numpy as np
import pytest
import torch

from quant_search.fake import fake_quantize, scales_of
from quant_search.formats import Integer, parse_format, per_channel, per_group
from quant_search.learned_step import LearnedStep, initial_step


def values(shape=(4, 50), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("granularity", [None, per_channel(), per_group(1, 16)], ids=str)
@pytest.mark.parametrize("name", ["int2", "int4", "int8", "uint4", "uint8-symmetric", "int8-reduced"])
def test_values_are_those_of_the_reference(name, granularity):
    number, x = parse_format(name), values()
    scale, zero = scales_of(0.5 * x, number, granularity)
    found = LearnedStep(number, scale, zero, granularity)(x).detach()
    assert torch.equal(found, fake_quantize(x, number, granularity, (scale, zero)))


def test_gradients_are_those_of_the_paper():
    number, step = Integer(3), torch.tensor(0.5)  # codes -4..3
    x = torch.tensor([-9.0, -1.9, -0.2, 0.1, 0.6, 1.2, 2.0], requires_grad=True)
    layer = LearnedStep(number, step)
    weights = torch.arange(1.0, 8.0)
    (layer(x) * weights).sum().backward()
    v = np.array([-18.0, -3.8, -0.4, 0.2, 1.2, 2.4, 4.0])
    to_step = np.where(v <= -4, -4, np.where(v >= 3, 3, np.round(v) - v))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]
    assert layer.scale.grad.item() == pytest.approx((to_step * weights.numpy()).sum() / math.sqrt(7 * 3), rel=1e-5)


def test_the_number_of_values_leaves_the_batch_out_where_there_is_one():
    x, one = values((8, 5, 3)), torch.ones(5)
    gradients = []
    for batched in (False, True):
        layer = LearnedStep(Integer(4), one, granularity=per_channel(1), batched=batched)
        layer(x).sum().backward()
        gradients.append(layer.scale.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * math.sqrt(8))  # N is 3 instead of 24


def test_each_channel_and_each_zero_point_has_its_own_gradient():
    number, x = parse_format("uint4"), values((3, 40))
    scale, zero = scales_of(0.7 * x, number, per_channel())
    layer = LearnedStep(number, scale, zero, per_channel())
    layer(x).sum().backward()
    for i in range(3):
        alone = LearnedStep(number, scale[i], zero[i])
        alone(x[i]).sum().backward()
        torch.testing.assert_close(layer.scale.grad[i], alone.scale.grad)
    assert not layer.zero.requires_grad and "zero" in layer.state_dict()


def test_the_initial_step_is_that_of_the_paper():
    x = values()
    assert initial_step(x, Integer(4)).item() == pytest.approx(2 * x.abs().mean().item() / math.sqrt(7), rel=1e-6)
    by_channel = initial_step(x, Integer(4), per_channel())
    torch.testing.assert_close(by_channel, 2 * x.abs().mean(1) / math.sqrt(7))
    last = initial_step(x, Integer(4), per_group(1, 16))[:, -1]  # a group of two
    torch.testing.assert_close(last, 2 * x[:, 48:].abs().mean(1) / math.sqrt(7))
    assert initial_step(torch.zeros(2, 3), Integer(4), per_channel()).tolist() == [1, 1]


def test_learned_steps_and_weights_fit_better_than_rounding_afterwards():
    torch.manual_seed(0)
    x, number = values((256, 16)), Integer(2)
    weight = values((8, 16), seed=1)
    y = x @ weight.T
    layer = LearnedStep(number, initial_step(weight, number, per_channel()), granularity=per_channel())
    trained = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.Adam([trained, layer.scale], 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(x @ layer(trained).T, y).backward()
        optimizer.step()
    rounded = fake_quantize(weight, number, per_channel())
    before, after = (((x @ w.T - y) ** 2).mean().item() for w in (rounded, layer(trained)))
    assert after < 0.6 * before


def test_a_step_that_crosses_zero_stays_in_use():
    layer = LearnedStep(Integer(4), torch.tensor(0.1))
    with torch.no_grad():
        layer.scale.fill_(-0.1)
    assert layer.steps().item() == pytest.approx(0.1) and torch.isfinite(layer(values())).all()
    with torch.no_grad():
        layer.scale.fill_(0)
    x = values().requires_grad_()
    layer(x).sum().backward()
    assert torch.isfinite(layer(x)).all() and torch.isfinite(layer.scale.grad).all()


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ValueError, match=r"steps must be above 0, got 0\.0: take initial_step"):
        LearnedStep(Integer(4), torch.zeros(3))
    with pytest.raises(ValueError, match="up to 16 bits, got int32"):
        LearnedStep(Integer(32), torch.ones(()))
    with pytest.raises(ValueError, match="needs a symmetric format, got uint8"):
        initial_step(values(), parse_format("uint8"))
