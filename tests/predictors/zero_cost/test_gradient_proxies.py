"""Proxies of gradients on networks small enough to write the answer down."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from predictors.zero_cost.fisher import fisher
from predictors.zero_cost.grad_norm import grad_norm
from predictors.zero_cost.gradsign import gradsign
from predictors.zero_cost.grasp import grasp
from predictors.zero_cost.proxy import CannotScore
from predictors.zero_cost.snip import snip
from predictors.zero_cost.zico import zico

X = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def linear():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def deep():
    torch.manual_seed(2)
    layers = [nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


def errors(net, x=X, y=Y):
    """softmax - one-hot (b, classes): the gradient of each image's loss by its logits."""
    return (torch.softmax(net(x), dim=1) - F.one_hot(y, 3)).detach()


def test_grad_norm_of_a_linear_network():
    net = linear()
    gradient = errors(net).T @ X.flatten(1) / len(X)
    assert grad_norm(net, X, Y) == pytest.approx(gradient.norm().item(), rel=1e-5)


def test_grad_norm_sums_over_layers():
    net = deep()
    F.cross_entropy(net(X), Y).backward()
    assert grad_norm(net, X, Y) == pytest.approx(
        (net[0].weight.grad.norm() + net[4].weight.grad.norm()).item(), rel=1e-5
    )


def test_snip_is_the_gradient_of_a_mask_of_ones():
    net = deep()
    masks = [torch.ones_like(layer.weight, requires_grad=True) for layer in (net[0], net[4])]
    hidden = net[3](net[2](net[1](F.conv2d(X, net[0].weight * masks[0], net[0].bias))))
    F.cross_entropy(F.linear(hidden, net[4].weight * masks[1], net[4].bias), Y).backward()
    assert snip(net, X, Y) == pytest.approx(sum(m.grad.abs().sum().item() for m in masks), rel=1e-5)


def test_grasp_with_the_whole_hessian():
    net = deep()
    shapes = [net[0].weight.shape, net[4].weight.shape]
    sizes = [shape.numel() for shape in shapes]

    def loss(flat):
        first, last = (part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True))
        return F.cross_entropy(torch.func.functional_call(net, {"0.weight": first, "4.weight": last}, (X,)), Y)

    w = torch.cat([net[0].weight.flatten(), net[4].weight.flatten()]).detach()
    gradient = torch.autograd.functional.jacobian(loss, w)
    hessian = torch.autograd.functional.hessian(loss, w)
    assert grasp(net, X, Y) == pytest.approx(-(w @ hessian @ gradient).item(), rel=1e-3)


def test_fisher_of_a_linear_network():
    net = linear()
    products = net(X).detach() * errors(net) / len(X)
    assert fisher(net, X, Y) == pytest.approx((4 * products.square().mean(0).sum() / 2).item(), rel=1e-5)


def test_fisher_sums_over_positions_before_it_squares():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = net[0](X).detach()
    products = (maps * errors(net)[:, :, None, None] / 4 / len(X)).sum((2, 3))
    assert fisher(net, X, Y) == pytest.approx((products.square().mean(0).sum() / 2).item(), rel=1e-5)


def test_fisher_sees_activations_as_they_were_before_the_next_layer_changed_them():
    def net(inplace):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(1, 2, 1), nn.Hardswish(inplace), nn.Flatten(), nn.Linear(8, 3))

    assert fisher(net(True), X, Y) == fisher(net(False), X, Y)


def test_zico_of_a_linear_network():
    net = linear()
    halves = [(errors(net, X[i : i + 3], Y[i : i + 3]).T @ X[i : i + 3].flatten(1) / 3).abs() for i in (0, 3)]
    mean, std = (halves[0] + halves[1]) / 2, (halves[0] - halves[1]).abs() / 2
    assert zico(net, X, Y) == pytest.approx(math.log((mean / std).sum()), rel=1e-4)


def test_zico_needs_batches_that_differ():
    same = torch.cat([X[:3], X[:3]])
    with pytest.raises(CannotScore, match="vary between parts"):
        zico(linear(), same, Y)
    with pytest.raises(CannotScore, match="at least 2 images, got 2"):
        zico(linear(), X[:2], Y[:2])


def test_gradsign_counts_images_that_agree():
    net = linear()
    signs = torch.einsum("bk,bi->bki", errors(net), X.flatten(1)).sign()
    assert gradsign(net, X, Y) == signs.sum(0).abs().sum().item()
    same, label = X[:1].expand(6, -1, -1, -1), torch.zeros(6, dtype=torch.long)
    assert gradsign(net, same, label) == 6 * 12


def test_a_layer_that_the_loss_does_not_need_adds_nothing():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = linear(), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    for score in (grad_norm, snip, grasp, fisher, zico, gradsign):
        assert score(Unused(), X, Y) == score(linear(), X, Y)
