import pytest
import torch
import torch.nn.functional as F

from search_spaces import depthwise as module
from search_spaces.depthwise import depthwise


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 3), (6, 6), (7, 7), (8, 8)])
def test_it_equals_the_convolution_forward_and_backward(shape, kernel, stride):
    torch.manual_seed(0)
    results = []
    x, weight, bias = torch.randn(3, 4, *shape), torch.randn(4, 1, kernel, kernel), torch.randn(4)
    for function in (depthwise, lambda x, w, b, s: F.conv2d(x, w, b, s, kernel // 2, 1, 4)):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        y = function(*leaves, stride)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize(("shape", "chunk"), [((16, 16), 1), ((9, 12), 5000), ((17, 15), 2**20)])
def test_large_maps_take_the_weights_gradient_from_their_images(shape, chunk, kernel, stride, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_MACS", 0)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_from_products", None)
    torch.manual_seed(0)
    x, weight = torch.randn(6, 8, *shape).to(memory_format=torch.channels_last), torch.randn(8, 1, kernel, kernel)
    results = []
    for function in (depthwise, lambda x, w, b, s: F.conv2d(x, w, b, s, kernel // 2, 1, 8)):
        leaves = [t.clone().requires_grad_() for t in (x, weight)]
        y = function(*leaves, None, stride)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append([leaf.grad for leaf in leaves])
    assert module._long(x, kernel, stride)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_only_long_gradients_are_taken_apart(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "_from_images", lambda g, x, k, s: asked.append(k) or torch.zeros(96, 1, k, k))
    for kernel, images in ((3, 64), (5, 2), (5, 64)):
        weight = torch.ones(96, 1, kernel, kernel, requires_grad=True)
        depthwise(torch.ones(images, 96, 16, 16), weight, None, 1).sum().backward()
    assert asked == [5]


@pytest.mark.parametrize(("side", "products"), [(3, 1), (4, 0)])
def test_small_maps_take_the_weights_gradient_from_a_product(side, products, monkeypatch):
    calls, product = [], torch.bmm
    monkeypatch.setattr(module.torch, "bmm", lambda *args: calls.append(args) or product(*args))
    weight = torch.ones(2, 1, 3, 3, requires_grad=True)
    y = depthwise(torch.ones(1, 2, side, side), weight, None, 1)
    y.sum().backward()
    assert y[0, :, 1, 1].tolist() == [9.0, 9.0] and weight.grad[0, 0, 1, 1] == side**2
    assert len(calls) == products


def test_small_maps_keep_the_order_of_memory():
    x = torch.ones(2, 4, 3, 3).to(memory_format=torch.channels_last)
    y = depthwise(x, torch.ones(4, 1, 5, 5, requires_grad=True), None, 1)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_it_computes_in_the_precision_of_autocast():
    torch.manual_seed(0)
    x, weight = torch.randn(8, 4, 3, 3, requires_grad=True), torch.randn(4, 1, 5, 5, requires_grad=True)
    exact = torch.autograd.grad(depthwise(x, weight, None, 1).square().sum(), (x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, weight, None, 1)
    found = torch.autograd.grad(y.float().square().sum(), (x, weight))
    assert y.dtype == torch.bfloat16 and {g.dtype for g in found} == {torch.float32}
    for near, gradient in zip(found, exact, strict=True):
        assert (near - gradient).norm() < 0.02 * gradient.norm()


def test_an_inference_before_does_not_spoil_training():
    weight = torch.ones(2, 1, 5, 5, requires_grad=True)
    with torch.inference_mode():
        depthwise(torch.ones(1, 2, 4, 5), weight, None, 1)
    depthwise(torch.ones(1, 2, 4, 5), weight, None, 1).sum().backward()
    assert weight.grad is not None
