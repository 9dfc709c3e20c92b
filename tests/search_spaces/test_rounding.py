import threading

import pytest
import torch

from search_spaces.elastic import Conv2d, Linear, bound
from search_spaces.network import find_space
from search_spaces.rounding import rounded, rounding
from search_spaces.value import Choice

WIDTH = Choice("width", (4, 8))
LAYERS = {
    "dense": (lambda: Conv2d(WIDTH, WIDTH * 2, 3), (2, 4, 5, 5), (8, 4, 3, 3)),
    "depthwise": (lambda: Conv2d(WIDTH, WIDTH, 5, groups=WIDTH), (2, 4, 4, 4), (4, 1, 5, 5)),
    "linear": (lambda: Linear(WIDTH, 3), (2, 4), (3, 4)),
}


@pytest.fixture(params=LAYERS)
def case(request):
    make, x, weight = LAYERS[request.param]
    torch.manual_seed(0)
    layer = make()
    return layer, torch.randn(x), weight, find_space(layer).smallest()


def test_layers_compute_with_what_they_are_given(case):
    layer, x, shape, arch = case
    seen = []

    def doubled(which, images, weight):
        seen.append((which, images, weight.shape))
        return images + 1, 2 * weight

    with bound(arch):
        before = layer(x)
        with rounding(doubled):
            found = layer(x)
        with torch.no_grad():
            layer.weight.mul_(2)
        expected = layer(x + 1)
    assert [(which, weight) for which, _, weight in seen] == [(layer, shape)] and seen[0][1] is x
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before)


def test_gradients_go_through_to_the_slice(case):
    layer, x, shape, arch = case
    with bound(arch), rounding(lambda _, images, weight: (images, weight * 3)):
        layer(x).sum().backward()
    reached = layer.weight.grad != 0
    assert reached[tuple(slice(n) for n in shape)].any()
    assert reached.sum() == reached[tuple(slice(n) for n in shape)].sum()


def test_it_ends_with_its_block_and_is_of_its_thread():
    layer, x, weight = torch.nn.Identity(), torch.ones(1), torch.ones(2)
    found = []
    with pytest.raises(RuntimeError), rounding(lambda _, images, held: (0 * images, 0 * held)):
        other = threading.Thread(target=lambda: found.append(rounded(layer, x, weight)))
        other.start()
        other.join()
        assert not rounded(layer, x, weight)[0].any()
        raise RuntimeError
    found.append(rounded(layer, x, weight))
    assert all(images is x and held is weight for images, held in found)
