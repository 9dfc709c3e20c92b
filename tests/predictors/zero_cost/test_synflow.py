import math

import pytest
import torch
from torch import nn

from predictors.zero_cost.proxy import CannotScore
from predictors.zero_cost.synflow import synflow

X, Y = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)


def net(*between):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), *between, nn.Linear(3, 2, bias=False))


def test_every_layer_carries_the_whole_flow():
    layers = net()
    flow = (layers[2].weight.abs().double() @ layers[1].weight.abs().double()).sum().item()
    assert synflow(layers, X, Y) == pytest.approx(math.log(2 * flow))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.LayerNorm(3), nn.ReLU()])
def test_norms_are_left_out_and_activations_let_flow_pass(norm):
    assert synflow(net(norm), X, Y) == synflow(net(), X, Y)


def test_only_the_shape_of_the_images_counts():
    assert synflow(net(), X + 3, Y) == synflow(net(), X, Y)


def test_buffers_that_are_no_flow_stay_as_they_are():
    layers = net()
    layers.register_buffer("mask", torch.ones(2, 2, dtype=torch.bool))
    layers.register_buffer("index", torch.tensor([-1]))
    assert synflow(layers, X, Y) == synflow(net(), X, Y)


def test_very_deep_networks_do_not_overflow():
    layers = [nn.Linear(4, 4) for _ in range(300)]
    for layer in layers:
        nn.init.constant_(layer.weight, 2.0)
    assert synflow(nn.Sequential(nn.Flatten(), *layers), X, Y) == pytest.approx(
        300 * math.log(8) + math.log(4 * 300), 0.01
    )


def test_a_network_without_a_path_is_refused():
    layers = net()
    nn.init.zeros_(layers[1].weight)
    with pytest.raises(CannotScore, match="a path of weights"):
        synflow(layers, X, Y)
