import copy
import re

import pytest
import torch
from small_supernet import small_net
from torch import nn

from search_spaces.catalog import SPACES
from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf
from search_spaces.network import Network, find_space, run
from search_spaces.value import Choice
from supernet.importance import channel_importance, channel_order, permute_, sort_channels_
from tests.laws.entries import EVERY

WIDTH = Choice("width", (4, 8))
IMAGE = 32


def images(channels=3, size=8):
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(0))


def randomised(network, seed=0):
    """`network` in evaluation mode, its norms' weights and statistics random too."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.dim() == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


class Layers(Network):
    """Children that run in order, given by name."""

    def __init__(self, **layers) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def sorted_names(network, **given):
    return set(channel_order(network, **given))


# -- laws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "preset"), EVERY)
@torch.no_grad()
def test_sorting_leaves_the_largest_architecture_unchanged_and_importance_descending(name, preset):
    torch.manual_seed(0)
    net = randomised(SPACES[name].build(IMAGE, 3, 10, preset)).double()
    arch = find_space(net).largest()
    x = torch.randn(2, 3, IMAGE, IMAGE).double()
    before, widths = net(x, arch), channel_importance(net)
    order = sort_channels_(net)
    after = net(x, arch)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * before.abs().max().item())
    for value, importance in channel_importance(net).items():
        assert (importance.diff() <= 1e-9 * importance[0]).all(), value
        assert not (widths[value].diff() <= 0).all() or importance.numel() < 3
    assert bool(order) == bool(widths)


# -- what is sorted ----------------------------------------------------------------------------------


def residual_net():
    """A residual stream of elastic width, in it a depthwise convolution of a width that depends on two choices."""
    torch.manual_seed(0)
    hidden = WIDTH * Choice("expansion", (1, 2))
    return randomised(
        Layers(
            stem=nn.Sequential(Conv2d(3, WIDTH, 3, bias=False), BatchNorm2d(WIDTH), nn.ReLU()),
            block=Residual(
                Conv2d(WIDTH, hidden),
                Conv2d(hidden, hidden, 3, groups=hidden),
                BatchNorm2d(hidden),
                Conv2d(hidden, WIDTH),
            ),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            classifier=Linear(WIDTH, 5),
        )
    )


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@torch.no_grad()
def test_importance_is_the_sum_of_the_weights_that_read_a_channel():
    net = residual_net()
    importance = {value if isinstance(value, Choice) else "hidden": i for value, i in channel_importance(net).items()}
    expand, _, _, project = net.block
    for c in range(8):
        expected = expand.weight[:, c].abs().sum() + net.classifier.weight[:, c].abs().sum()
        assert importance[WIDTH][c].item() == pytest.approx(expected.item())
    torch.testing.assert_close(importance["hidden"], project.weight[:, :, 0, 0].abs().sum(0))


@torch.no_grad()
def test_a_residual_stream_shares_one_order_and_statistics_go_along():
    net = residual_net()
    order = channel_order(net)
    stream = order["classifier.weight"][0][1]
    assert {axis for axis, _ in order["block.0.weight"]} == {0, 1}
    for name in ("stem.0.weight", "stem.1.running_mean", "stem.1.running_var", "block.3.weight", "block.3.bias"):
        assert torch.equal(order[name][0][1], stream), name
    assert "stem.0.bias" not in order and "classifier.bias" not in order
    before = net.stem[1].running_var.clone()
    permute_(net.state_dict(), order)
    assert torch.equal(net.stem[1].running_var, before[stream]) and not torch.equal(stream, torch.arange(8))


@torch.no_grad()
def test_a_narrow_subnet_loses_less_of_the_output():
    net = residual_net()
    planted = torch.tensor([1e-3, 1, 1e-3, 1e-3, 1, 1, 1e-3, 1])  # half of the channels hardly matter
    net.classifier.weight *= planted
    net.block[0].weight *= planted[:, None, None]
    net.block[3].weight *= planted.repeat(2)[:, None, None]
    space = find_space(net)
    narrow = space.architecture({"width": 4, "expansion": 2})
    wide = net(images(), space.largest())
    lost = [(net(images(), narrow) - wide).square().sum().item()]
    sort_channels_(net)
    lost.append((net(images(), narrow) - wide).square().sum().item())
    assert lost[1] < 0.05 * lost[0], lost


def test_the_weights_of_the_network_stay_as_they_are():
    net = residual_net()
    before = copy.deepcopy(net.state_dict())
    channel_order(net.train())
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_of_an_architecture_only_widths_at_their_largest_are_sorted():
    net = residual_net()
    wide = find_space(net).architecture({"width": 8, "expansion": 1})
    names = sorted_names(net, arch=wide)
    assert "stem.0.weight" in names and "block.2.weight" not in names
    assert not channel_order(net, arch=find_space(net).smallest())


@torch.no_grad()
def test_channels_stay_on_their_side_of_open_widths():
    net = residual_net()
    space, x = find_space(net), images()
    taken = [space.architecture({"width": w, "expansion": e}) for w in (4, 8) for e in (1, 2)]  # inner widths 4, 8, 16
    before = [net(x, arch) for arch in taken]
    order = channel_order(net, opened={"width": (4, 8), "expansion": (1, 2)})
    permute_(net.state_dict(), order)
    for arch, was in zip(taken, before, strict=True):
        torch.testing.assert_close(net(x, arch), was)
    inner = order["block.0.bias"][0][1]
    assert not torch.equal(inner, torch.arange(16))
    assert [sorted(group.tolist()) for group in inner.split([4, 4, 8])] == [
        [*range(4)],
        [*range(4, 8)],
        [*range(8, 16)],
    ]


# -- what is left as it is ---------------------------------------------------------------------------


class Concatenated(Layers):
    """The same channels twice, beside a second width that nothing holds."""

    def forward(self, x):
        x = self.stem(x)
        x = self.after(torch.cat([x, x], 1))
        return self.classifier(x.mean((2, 3)))


class Shift(Elastic):
    """A layer of one's own with a weight for each channel, of which no one else knows."""

    def __init__(self, width) -> None:
        super().__init__()
        self.values, self.bias = (width,), nn.Parameter(torch.rand(8))

    def forward(self, x):
        return x + self.bias[: x.shape[1], None, None]


OTHER = Choice("other", (4, 8))


def pooled(width, **layers):
    """A network that ends with the mean of channels and a classifier."""
    return Layers(**layers, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), classifier=Linear(width, 5))


def unsortable():
    stem, after, op = Conv2d(3, WIDTH), Conv2d(WIDTH, OTHER), Choice("op", ("a", "b"))
    flat = {"pool": nn.AdaptiveAvgPool2d(2), "flat": nn.Flatten(), "mid": Linear(WIDTH * 4, OTHER)}
    grouped = nn.Sequential(Conv2d(WIDTH, OTHER * 2, groups=2), Conv2d(OTHER * 2, OTHER))
    option = OneOf(op, {"a": Shift(WIDTH), "b": nn.ReLU()})
    return {
        "flattened": Layers(stem=stem, **flat, classifier=Linear(OTHER, 5)),
        "concatenated": Concatenated(stem=stem, after=Conv2d(WIDTH * 2, OTHER), classifier=Linear(OTHER, 5)),
        "in groups": pooled(OTHER, stem=stem, mid=grouped),
        "of a layer of one's own": pooled(OTHER, stem=stem, own=Shift(WIDTH), after=after),
        "under one option": pooled(OTHER, stem=stem, op=option, after=after),
    }


@pytest.mark.parametrize("kind", unsortable())
@torch.no_grad()
def test_widths_that_cannot_be_sorted_stay_and_the_others_are_sorted(kind):
    torch.manual_seed(0)
    net = randomised(unsortable()[kind])
    arch = find_space(net).largest()
    before = run(net, images(), arch)
    order = sort_channels_(net)
    assert "stem.weight" not in order and "classifier.weight" in order
    torch.testing.assert_close(run(net, images(), arch), before)


def test_zero_norms_hide_no_wrong_order():
    branch = nn.Sequential(Conv2d(3, WIDTH), Shift(WIDTH), Conv2d(WIDTH, 3), BatchNorm2d(3))
    nn.init.zeros_(branch[-1].weight)  # as a residual block starts
    net = pooled(OTHER, block=Residual(*branch), after=Conv2d(3, OTHER))
    assert "block.0.weight" not in channel_order(net.eval())


class Failing(Network):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2d(3, WIDTH)
        self.end = Linear(WIDTH, 2)

    def forward(self, x):
        raise KeyError("no such image")


def test_a_network_that_does_not_run_is_left_as_it_is():
    assert channel_order(Failing()) == {}
    assert channel_order(small_net(), torch.zeros(1, 7, 6, 6)) == {}
    assert channel_order(small_net(), torch.rand(1, 1, 6, 6))


# -- other tensors -----------------------------------------------------------------------------------


def test_other_tensors_follow_the_weights():
    net, start = small_net(), small_net()
    squares = {name: p.detach().square() for name, p in net.named_parameters()}
    order = sort_channels_(net)
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), start.parameters(), strict=True))
    permute_(squares, order)
    for name, p in net.named_parameters():
        assert torch.equal(squares[name], p.square())
    with pytest.raises(ValueError, match=re.escape("stem.0.weight has 8 channels on axis 0, got a tensor of shape ()")):
        permute_({"stem.0.weight": torch.tensor(3.0)}, order)


@torch.no_grad()
def test_a_layer_with_two_names_is_permuted_once():
    torch.manual_seed(0)
    shared = Conv2d(WIDTH, WIDTH)
    net = Layers(
        stem=Conv2d(3, WIDTH), a=shared, b=shared, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), end=Linear(WIDTH, 2)
    )
    arch = find_space(net).largest()
    before = net(images(), arch)
    assert {"a.weight", "b.weight"} <= set(sort_channels_(net))
    torch.testing.assert_close(net(images(), arch), before)
