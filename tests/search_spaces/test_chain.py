import torch
from torch import nn

from search_spaces.chain import Chain, extract_links
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf, Sequence
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice

WIDTH = Choice("width", (4, 8))
OP, KERNEL, DEPTH = Choice("op", ("conv", "skip")), Choice("kernel", (1, 3)), Choice("depth", (0, 1, 2))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = Conv2d(WIDTH, WIDTH, KERNEL)

    def forward(self, x):
        return x + self.conv(x)


class Opened(Network):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv2d(1, WIDTH), nn.ReLU(inplace=True))
        self.op = OneOf(OP, {"conv": nn.Sequential(Own(), nn.ReLU()), "skip": nn.Identity()})
        self.body = Sequence(Conv2d(WIDTH, WIDTH, 3), Sequence(Conv2d(WIDTH, WIDTH), nn.ReLU()), depth=DEPTH)


def links_at(net, **values):
    return Chain(net).links(find_space(net).architecture(values))


def test_a_network_opens_into_the_layers_that_an_architecture_runs():
    net = Opened()
    links = links_at(net, width=8, op="conv", kernel=3, depth=2)
    own, relu = net.op.get_submodule("0")
    first, inner = net.body.children()
    assert [link.layer for link in links] == [*net.stem, own, relu, first, *inner.children()]
    assert [link.options for link in links] == [(8,), (), (8, 3), (), (8,), (8,), ()]
    short = links_at(net, width=8, op="skip", depth=0)
    assert [link.layer for link in short] == [*net.stem, net.op.get_submodule("1")]
    assert short[:2] == links[:2] and short[2] != links[2]
    assert links_at(net, width=4, op="skip", depth=0)[0] != short[0]


def test_links_run_as_the_extracted_network_wherever_the_chain_is_cut():
    net = Opened().eval()
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    for arch in find_space(net).enumerate():
        links = Chain(net).links(arch)
        expected = extract(net, arch)(x)
        for cut in range(len(links) + 1):
            first, second = extract_links(links[:cut], arch), extract_links(links[cut:], arch)
            assert torch.equal(second(first(x)), expected)


def test_a_network_of_its_own_forward_is_one_link_that_reads_all_choices():
    own = Own()
    assert [(link.layer, link.options) for link in links_at(own, width=4, kernel=3)] == [(own, (4, 3))]


def test_a_batch_norm_at_two_places_keeps_the_network_whole():
    norm = BatchNorm2d(4)
    net = nn.Sequential(Conv2d(4, 4, KERNEL), norm, nn.ReLU(), nn.Sequential(nn.ReLU(), norm))
    assert [link.layer for link in links_at(net, kernel=1)] == [net]
    shared = Linear(4, 4)
    net = nn.Sequential(Conv2d(4, 4, KERNEL), shared, shared)
    assert [link.layer for link in links_at(net, kernel=1)] == list(net)
