"""Proxies of activations and correlations on networks small enough to write the answer down."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from predictors.zero_cost.counts import macs, parameters
from predictors.zero_cost.jacov import jacov
from predictors.zero_cost.meco import meco
from predictors.zero_cost.naswot import naswot
from predictors.zero_cost.proxy import CannotScore
from predictors.zero_cost.zen import zen

X = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(5, dtype=torch.long)


def head(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)]


def test_the_baselines_count():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *head(6))
    assert parameters(net, X, Y) == 3 * 6 * 9 + 6 + 14
    assert macs(net, X, Y) == 16 * 3 * 6 * 9 + 12


def test_naswot_counts_rectifiers_that_agree():
    on = torch.cat([X.flatten(1) > 0, -X.flatten(1) > 0], dim=1).numpy()
    agree = np.array([[(a == b).sum() for b in on] for a in on])

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(x) + self.relu(-x)

    assert naswot(Both(), X, Y) == pytest.approx(np.linalg.slogdet(agree)[1], rel=1e-9)


def test_naswot_refuses_what_it_cannot_see():
    with pytest.raises(CannotScore, match="modules"):
        naswot(nn.Sequential(nn.Hardswish(), *head(3)), X, Y)
    with pytest.raises(CannotScore, match="-inf"):
        naswot(nn.Sequential(nn.ReLU(), *head(3)), X[:1].expand(5, -1, -1, -1), Y)


def test_jacov_of_a_linear_network_is_that_of_equal_jacobians():
    net, k = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), 1e-5
    expected = -(math.log(5 + k) + 1 / (5 + k)) - 4 * (math.log(k) + 1 / k)
    assert jacov(net, X, Y) == pytest.approx(expected, rel=1e-6)


def test_jacov_of_unrelated_jacobians_is_nearly_minus_b():
    class Square(nn.Module):
        def forward(self, x):
            return x.square().sum((1, 2, 3), keepdim=True).flatten(1)

    large = torch.randn(5, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    assert jacov(Square(), large, Y) == pytest.approx(-5, abs=0.01)


def test_jacov_refuses_outputs_that_do_not_depend_on_the_images():
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    nn.init.zeros_(net[1].weight)
    with pytest.raises(CannotScore, match="depend on every image"):
        jacov(net, X, Y)


def test_zen_of_one_convolution_is_the_size_of_the_step():
    # One weight w of a 1x1 convolution: |w| · 0.01 · |ε| summed over 16 positions, in the mean over 16 images.
    torch.manual_seed(7)
    logs = []
    for _ in range(4):
        w = nn.init.normal_(torch.empty(1, 1, 1, 1))
        nn.init.normal_(torch.empty(2, 1))
        _, noise = torch.randn(2, 16, 1, 4, 4)
        logs.append(((0.01 * w * noise).abs().sum() / 16).log().item())
    net = nn.Sequential(nn.Conv2d(1, 1, 1), *head(1))
    assert zen(net, X[:, :1], Y, seed=7) == pytest.approx(np.mean(logs), rel=1e-3)


def test_zen_is_not_fooled_by_batch_norm():
    def net(*norms):
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), *norms, *head(8))

    plain, normed = (np.mean([zen(n, X, Y, seed) for seed in range(8)]) for n in (net(), net(nn.BatchNorm2d(8))))
    assert normed == pytest.approx(plain, abs=0.1)


def test_zen_refuses_networks_without_global_pooling_or_answer():
    with pytest.raises(CannotScore, match="AdaptiveAvgPool2d"):
        zen(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), X, Y)
    with pytest.raises(CannotScore, match="constant"):
        zen(nn.Sequential(nn.Threshold(math.inf, 0.0), *head(3)), X, Y)


def test_meco_is_the_least_eigenvalue_of_channel_correlations():
    torch.manual_seed(3)
    noise = torch.randn(1, 3, 8, 8)[0].flatten(1).numpy()
    expected = np.linalg.eigvalsh(np.corrcoef(noise))[0]
    assert meco(nn.Sequential(nn.Identity(), *head(3)), X, Y, seed=3) == pytest.approx(expected, rel=1e-4)
    assert meco(nn.Sequential(nn.Identity(), nn.Identity(), *head(3)), X, Y, seed=3) == pytest.approx(
        2 * expected, rel=1e-4
    )


def test_meco_of_channels_that_say_the_same_is_zero():
    assert meco(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 4, 1)), X, Y) == pytest.approx(
        1.0, abs=1e-6
    )  # one channel
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1))
    assert meco(net, X, Y) == pytest.approx(1.0, abs=1e-6)


def test_meco_of_channels_that_are_constant_is_zero():
    conv = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(conv.weight)
    assert meco(nn.Sequential(conv, *head(2)), X, Y) == 0


def test_meco_refuses_networks_without_feature_maps():
    with pytest.raises(CannotScore, match="feature maps"):
        meco(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), X, Y)
    with pytest.raises(CannotScore, match="twice the size"):
        meco(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2)), X, Y)


def test_meco_speaks_of_sizes_only_where_it_is_the_size():
    class Checked(nn.Module):
        def forward(self, x):
            assert x.shape[2:] == (4, 4), "wrong image size"
            return x

    with pytest.raises(CannotScore, match="twice the size: wrong image size"):
        meco(nn.Sequential(Checked(), *head(3)), X, Y)
    with pytest.raises(RuntimeError, match="to have 7 channels, but got 3") as refused:
        meco(nn.Sequential(nn.Conv2d(7, 3, 1), *head(3)), X, Y)
    assert not isinstance(refused.value, CannotScore)
