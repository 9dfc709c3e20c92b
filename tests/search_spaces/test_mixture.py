import pytest
import torch
from torch import nn

from search_spaces import mixture
from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf, Resize, Sequence, bound
from search_spaces.mixture import Gates, relaxed
from search_spaces.network import find_space, relaxable, run
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

X = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def each(module, x=X):
    """The outputs of a module of one choice, option by option."""
    return [run(module, x, arch) for arch in find_space(module).enumerate()]


def mix(module, weights, x=X):
    space = find_space(module)
    with relaxed({space.choices[0].name: weights}):
        return run(module, x, space.smallest())


def weighted(outputs, weights=WEIGHTS):
    return sum(w * y for w, y in zip(weights, outputs, strict=True))


class Counted(nn.Conv2d):
    """Counts its calls, and those with history."""

    def __init__(self):
        super().__init__(4, 4, 1, dtype=torch.float64)
        self.calls = self.learning = 0

    def forward(self, x):
        self.calls += 1
        self.learning += torch.is_grad_enabled()
        return super().forward(x)


def one_of():
    return OneOf(Choice("op", ("a", "b", "c")), {name: Counted() for name in "abc"})


def test_layers_are_mixed_by_their_outputs():
    module = one_of()
    torch.testing.assert_close(mix(module, WEIGHTS), weighted(each(module)))


def test_layers_that_are_off_are_not_called_and_silent_ones_keep_no_history():
    module = one_of()
    weights = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
    y = mix(module, Gates(weights, (0, 2), silent=(0,)))
    layers = list(module.children())
    assert [layer.calls for layer in layers] == [1, 0, 1] and [layer.learning for layer in layers] == [0, 0, 1]
    torch.testing.assert_close(y, layers[2](X))
    y.sum().backward()
    first, second = (layers[i](X).sum().item() for i in (0, 2))
    torch.testing.assert_close(weights.grad, torch.tensor([first, 0.0, second], dtype=torch.float64))
    assert layers[0].weight.grad is None


def scaled_norm(gamma, beta):
    norm = BatchNorm2d(4).double()
    nn.init.constant_(norm.weight, gamma)
    nn.init.constant_(norm.bias, beta)
    return norm


def test_norms_in_mixed_layers_scale_only_where_they_may():
    """Without, γ = 1 and β = 0, which learn nothing; a norm outside has its own."""
    inner, outer = scaled_norm(3.0, 2.0), scaled_norm(5.0, 0.0)
    module = nn.Sequential(OneOf(Choice("op", ("norm", "skip")), {"norm": inner, "skip": nn.Identity()}), outer)
    arch = find_space(module).smallest()
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    for affine in (True, False):
        with relaxed({"op": weights}, affine):
            y = run(module, X, arch)
        normed = scaled_norm(3.0, 2.0)(X) if affine else scaled_norm(1.0, 0.0)(X)
        torch.testing.assert_close(y, outer(0.75 * normed + 0.25 * X))
    y.square().sum().backward()
    assert inner.weight.grad is None and inner.bias.grad is None and outer.weight.grad is not None
    torch.testing.assert_close(run(module, X, arch), outer(inner(X)))  # where nothing is mixed, all scale


def test_depths_are_mixed_by_their_outputs_and_none_beyond_the_deepest_is_called():
    module = Sequence(Counted(), Counted(), depth=Choice("depth", (0, 1, 2)))
    torch.testing.assert_close(mix(module, WEIGHTS), weighted(each(module)))
    calls = [layer.calls for layer in module.children()]
    mix(module, Gates(torch.tensor([0.5, 0.5, 0.0]), (0, 1)))
    assert [layer.calls for layer in module.children()] == [calls[0] + 1, calls[1]]


def test_layers_beyond_the_deepest_depth_that_is_not_silent_keep_no_history():
    module = Sequence(Counted(), Counted(), Counted(), depth=Choice("depth", (0, 1, 2, 3)))
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    y = mix(module, Gates(weights, (1, 3), silent=(3,)))
    layers = list(module.children())
    assert [layer.calls for layer in layers] == [1, 1, 1] and [layer.learning for layer in layers] == [1, 0, 0]
    y.sum().backward()
    outputs = each(module)
    expected = torch.tensor([0.0, outputs[1].sum().item(), 0.0, outputs[3].sum().item()], dtype=torch.float64)
    torch.testing.assert_close(weights.grad, expected)


@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "depthwise"])
def test_kernels_are_mixed_by_their_weights(groups):
    module = Conv2d(4, 4, Choice("kernel", (1, 3, 5)), groups=groups).double()
    torch.testing.assert_close(mix(module, WEIGHTS), weighted(each(module)))


def test_weights_are_multiplied_only_where_they_are_read(monkeypatch):
    """Of a convolution: those of its kernels and of the channels that it reads, not of those that it gives."""
    seen, product = [], mixture._product
    monkeypatch.setattr(mixture, "_product", lambda gates: seen.append(gates) or product(gates))
    width, kernel = Choice("width", (2, 4)), Choice("kernel", (1, 3, 5))
    conv = Conv2d(width, width, kernel).double()
    with relaxed({"width": WEIGHTS[:2], "kernel": WEIGHTS}):
        run(conv, X, find_space(conv).largest())
    assert len(seen) == 2


def test_channels_are_weighed_where_they_are_read():
    """Without norm or activation between them, two layers mix as their outputs do."""
    width = Choice("width", (1, 2, 4))
    convolutions = nn.Sequential(Conv2d(4, width, 3), Conv2d(width, width, 3, groups=width), Conv2d(width, 3)).double()
    torch.testing.assert_close(mix(convolutions, WEIGHTS), weighted(each(convolutions)))
    linear = nn.Sequential(Linear(5, width * 2), Linear(width * 2, 3)).double()
    torch.testing.assert_close(mix(linear, WEIGHTS), weighted(each(linear)))


def test_options_of_two_choices_are_independent():
    first, second = Choice("first", (1, 2)), Choice("second", (1, 3))
    module = nn.Sequential(Conv2d(4, first * second), Conv2d(first * second, 3)).double()
    p, q = (torch.tensor(values, dtype=torch.float64) for values in ([0.3, 0.7], [0.6, 0.4]))
    space = find_space(module)
    with relaxed({"first": p, "second": q}):
        mixed = run(module, X, space.smallest())
    torch.testing.assert_close(mixed, weighted(each(module), (p[:, None] * q).flatten()))
    with relaxed({"first": p}):  # what is not relaxed stands as it is bound
        mixed = run(module, X, space.largest())
    torch.testing.assert_close(mixed, weighted(each(module)[1::2], p))


def test_gradients_reach_the_weights_of_options():
    weights = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    width = Choice("width", (1, 2, 4))
    module = nn.Sequential(Conv2d(4, width), BatchNorm2d(width), nn.ReLU(), Conv2d(width, 3)).double()
    mix(module, weights).square().sum().backward()
    assert (weights.grad != 0).all()


def test_relaxed_ends_with_its_block_and_nests():
    module = one_of()
    with bound(find_space(module).smallest()):
        alone = module(X)
        with relaxed({"op": WEIGHTS}):
            with relaxed({}):
                torch.testing.assert_close(module(X), alone)
            assert not torch.allclose(module(X), alone)
        torch.testing.assert_close(module(X), alone)


def test_gates_need_an_option_that_is_on():
    with pytest.raises(ValueError, match="at least one option that is on"):
        Gates(WEIGHTS, ())


class Mine(Elastic):
    def __init__(self, choice):
        super().__init__()
        self.values = (choice,)


def test_only_what_every_layer_can_mix_is_relaxable():
    free, size, stride, width, mine = (
        Choice(name, (2, 4)) for name in ("free", "resolution", "stride", "width", "mine")
    )
    network = nn.Sequential(
        Resize(size, 4),
        Conv2d(4, free, stride=stride),
        Conv2d(free, free * 2, groups=free),
        Conv2d(4, width, groups=2),  # fewer channels are not the first of each group
        Mine(mine),
    )
    space = find_space(network)
    assert [choice.name for choice in relaxable(network, space)] == ["free"]
    assert relaxable(one_of(), SearchSpace("op", [Choice("op", ("a", "b", "c"))]))[0].name == "op"
