import numpy as np
import pytest
import torch
from small_supernet import same, small_dataset, small_net, weights
from torch import nn

from search_spaces.network import extract, find_space
from supernet.calibrate import accuracy, calibrate_, calibration_images, inherited_accuracy


def two_norms():
    torch_generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_generator)
    return net


X = torch.randn(50, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 3 + 2


def test_statistics_become_the_true_ones():
    net = two_norms()
    calibrate_(net, X, batch=50)
    torch.testing.assert_close(net[0].running_mean, X.mean((0, 2, 3)))
    torch.testing.assert_close(net[0].running_var, X.var((0, 2, 3)))
    inner = net[1](nn.BatchNorm2d(3, affine=False)(X) * net[0].weight[:, None, None] + net[0].bias[:, None, None])
    torch.testing.assert_close(net[3].running_mean, inner.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net[3].running_var, inner.var((0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [2, 7, 16, 49])
def test_means_are_exact_for_uneven_batches(batch):
    net = two_norms()
    calibrate_(net, X.numpy(), batch=batch)
    torch.testing.assert_close(net[0].running_mean, X.mean((0, 2, 3)))


def test_weights_momentum_and_old_statistics_do_not_matter():
    net, worn = two_norms(), two_norms()
    worn[0].running_mean.fill_(float("nan"))
    worn.train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    calibrate_(net, X)
    calibrate_(worn, X)
    assert same(weights(net), weights(worn))
    assert not any(module.training for module in worn.modules())
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert net[0].momentum == 0.1


def test_too_few_images():
    with pytest.raises(ValueError, match="at least 2 images"):
        calibrate_(two_norms(), X[:1])


def test_accuracy_counts_hits_in_every_batch_and_restores_the_mode():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Identity()).train()
    x = torch.eye(4).reshape(4, 4, 1, 1)
    assert accuracy(net, x, np.array([0, 1, 2, 0]), batch=3) == 0.75
    assert net.training
    with pytest.raises(ValueError, match="as many labels, got 4 and 3"):
        accuracy(net, x, np.zeros(3, int))


def test_inherited_accuracy_is_that_of_the_calibrated_extract():
    net, data = small_net(), small_dataset()
    before = weights(net)
    arch = find_space(net).smallest()
    plain = extract(net, arch)
    calibrate_(plain, calibration_images(data))
    assert inherited_accuracy(net, arch, data) == accuracy(plain, data.x_val, data.y_val)
    assert same(before, weights(net))


def test_calibration_images_are_training_images_and_the_same_each_time():
    data = small_dataset()
    images = calibration_images(data, 10)
    assert len(images) == 10
    assert {x.tobytes() for x in images} <= {x.tobytes() for x in data.x_train}
    assert np.array_equal(images, calibration_images(data, 10))
