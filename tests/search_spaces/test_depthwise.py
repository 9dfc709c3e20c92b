import pytest
import torch
import torch.nn.functional as F

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


def test_small_maps_do_without_a_convolution(monkeypatch):
    monkeypatch.setattr(F, "conv2d", None)
    assert depthwise(torch.ones(1, 2, 3, 3), torch.ones(2, 1, 3, 3), None, 1)[0, :, 1, 1].tolist() == [9.0, 9.0]


def test_an_inference_before_does_not_spoil_training():
    weight = torch.ones(2, 1, 5, 5, requires_grad=True)
    with torch.inference_mode():
        depthwise(torch.ones(1, 2, 4, 5), weight, None, 1)
    depthwise(torch.ones(1, 2, 4, 5), weight, None, 1).sum().backward()
    assert weight.grad is not None
