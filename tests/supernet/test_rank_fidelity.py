import functools
import re

import numpy as np
import pytest
import torch
from small_supernet import RECIPE, same, small_dataset, small_net, weights
from torch import nn

from search_spaces.mbconv import mbconv
from search_spaces.network import extract, find_space
from supernet.calibrate import calibrate_, inherited_accuracy
from supernet.data import Dataset
from supernet.fidelity import Fidelity, Gaps, advice, extremes, fidelity, gaps, stand_alone, uncalibrated
from supernet.rank_correlation import Correlation
from supernet.recipe import Recipe
from supernet.strategies.sandwich import Sandwich
from supernet.train import train_supernet

DATA = small_dataset()


def test_fidelity_is_of_the_accuracies_given():
    found = fidelity(np.array([0.1, 0.3, 0.2, 0.4]), np.array([0.5, 0.7, 0.6, 0.8]))
    assert (found.n, found.kendall_tau.value, found.spearman.value) == (4, pytest.approx(1), pytest.approx(1))
    swapped = fidelity(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.7, 0.6, 0.8]))
    assert swapped.kendall_tau.value == pytest.approx(2 / 3) and swapped.spearman.value == pytest.approx(0.8)
    with pytest.raises(ValueError, match="equally long"):
        fidelity(np.zeros(3), np.zeros(4))


# -- stand-alone training ----------------------------------------------------------------------------


def test_stand_alone_trains_one_architecture_and_goes_on_in_its_folder(tmp_path):
    net, arch = small_net(3), find_space(small_net()).smallest()
    fresh = weights(net)
    found = stand_alone(net, arch, DATA, RECIPE, tmp_path)
    trained = weights(net)
    assert not torch.equal(trained["stem.0.weight"][:4], fresh["stem.0.weight"][:4])
    torch.testing.assert_close(trained["stem.0.weight"][4:], fresh["stem.0.weight"][4:], rtol=1e-2, atol=0)  # decayed
    assert torch.equal(trained["body.1.0.weight"], fresh["body.1.0.weight"])
    assert found == inherited_accuracy(net, arch, DATA)
    again = small_net(5)
    assert stand_alone(again, arch, DATA, RECIPE, tmp_path) == found and same(weights(again), trained)


# -- gaps --------------------------------------------------------------------------------------------


def test_gaps_are_points_by_which_inheriting_falls_short():
    found = gaps([0.5, 0.6, 0.7], [0.6, 0.65, 0.69])
    assert (found.smallest, found.middle, found.largest) == pytest.approx((10, 5, -1))
    space = find_space(small_net())
    assert extremes(space) == (space.smallest(), space.scaled(0.5), space.largest())


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [0.5, 0.6, float("nan")]])
def test_gaps_need_three_finite_accuracies(wrong):
    with pytest.raises(ValueError, match="of the smallest, middle and largest"):
        gaps(wrong, [0.5, 0.6, 0.7][: len(wrong)])


# -- batch norms -------------------------------------------------------------------------------------


@functools.lru_cache
def trained() -> tuple[nn.Module, Dataset]:
    data = small_dataset(n=240)
    torch.manual_seed(0)
    net = mbconv(6, 1, 3, "tiny")
    train_supernet(net, data, Recipe(Sandwich(1), epochs=1, batch=24, evaluations=1, ema_decay=0.0))
    return net, data


@pytest.mark.parametrize("which", range(3))
def test_batch_norms_of_an_extracted_network_are_uncalibrated_until_calibrated(which):
    net, data = trained()
    plain = extract(net, extremes(find_space(net))[which])
    before = weights(plain)
    names = uncalibrated(plain, data.x_val)
    assert same(before, weights(plain))
    assert names and all(isinstance(plain.get_submodule(name), nn.BatchNorm2d) for name in names)
    calibrate_(plain, data.x_train)
    assert uncalibrated(plain, data.x_val) == uncalibrated(plain, data.x_test) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.running_mean.add_(5),
        lambda norm: norm.running_var.mul_(9),
        lambda norm: norm.running_var.div_(9),
        lambda norm: norm.running_mean.fill_(float("nan")),
    ],
)
def test_only_the_norm_that_is_far_is_named(change):
    net, data = trained()
    plain = extract(net, find_space(net).smallest())
    calibrate_(plain, data.x_train)
    name = "stage1.0.depthwise.1"
    change(plain.get_submodule(name))
    assert uncalibrated(plain, data.x_val) == (name,)


def test_a_channel_that_is_always_zero_is_no_alarm():
    plain = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2))
    x = -torch.rand(8, 2, 3, 3)
    calibrate_(plain, x)
    assert uncalibrated(plain, x) == ()


# -- advice ------------------------------------------------------------------------------------------


def at_tau(tau):
    return Fidelity(12, Correlation(tau, tau - 0.3, min(1, tau + 0.3)), Correlation(tau, -1, 1))


def test_nothing_is_advised_where_nothing_is_wrong():
    assert advice(at_tau(0.6), Gaps(30, 30, 30)) is None


@pytest.mark.parametrize(
    ("gap", "what"),
    [
        (Gaps(8, 4, 1), "The smallest is 8.0 points behind .*: train the smallest in every step"),
        (Gaps(1, 8, 4), "The middle is 8.0 points .*: train more random architectures"),
        (Gaps(-1, 4, 8), "The largest is 8.0 points .*: train longer, or distil"),
        (Gaps(8, 9, 8), "All gaps are large, up to 9.0 points: train the supernet longer"),
        (Gaps(3, -20, 3), r"exceeds the 3.1 points that 2048 validation images leave open.*compare more"),
    ],
)
def test_a_low_tau_is_explained_by_what_is_wrong(gap, what):
    with_tau = r"rank 12 architectures with tau 0.59 \(0.29 to 0.89\), below 0.6. "
    text = advice(at_tau(0.59), gap)
    assert re.search(with_tau + ".*" + what, text)


def test_without_gaps_the_networks_that_would_tell_are_asked_for():
    assert re.search(
        "with tau 0.10 .* the smallest, the middle and the largest .*: add these", advice(at_tau(0.1), None)
    )
    assert advice(at_tau(0.6), None) is None


def test_few_validation_images_excuse_a_larger_gap():
    assert "behind" in advice(at_tau(0.1), Gaps(5, 0, 0))
    assert "14.1 points that 100 validation images" in advice(at_tau(0.1), Gaps(5, 0, 0), images=100)


def test_batch_norms_out_of_date_come_first_at_any_tau():
    text = advice(at_tau(0.9), Gaps(0, 0, 0), ("a", "b", "c", "d", "e"))
    assert text == (
        "The statistics of batch norms are out of date (a, b, c and 2 more): calibrate each extracted network."
    )
