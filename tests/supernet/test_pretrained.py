import copy
import re

import pytest
import safetensors.torch
import timm
import torch
from small_supernet import small_net
from torch import nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, Sequence, add_kernel_transforms_, bound
from search_spaces.mbconv import mbconv
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice
from supernet.checkpoint import Checkpoint, save_checkpoint
from supernet.importance import channel_importance
from supernet.pretrained import load_pretrained_


class Small(Network):
    """A residual stream under depthwise convolutions of elastic kernel, depth and groups."""

    def __init__(self, classes=3, eps=1e-5) -> None:
        super().__init__()
        width = Choice("width", (4, 8))
        self.stem = nn.Sequential(Conv2d(3, width, 3), BatchNorm2d(width, eps), nn.ReLU())
        blocks = [self.block(i, width) for i in range(2)]
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2)))
        self.grouped = nn.Sequential(Conv2d(width, 16), Conv2d(16, 16, groups=Choice("groups", (4, 2))))
        self.project = Conv2d(16, Choice("out", (8, 16)))
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(Choice("out", (8, 16)), classes)

    def block(self, i, width):
        return nn.Sequential(Conv2d(width, width, Choice(f"kernel{i}", (3, 5, 7)), groups=width), nn.ReLU())


def small(seed, **arguments):
    torch.manual_seed(seed)
    return randomised(Small(**arguments), seed)


def randomised(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.dim() == 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.eval()


def images(size=9):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


SPACE = find_space(Small())
ARCH = SPACE.architecture({"width": 8, "depth": 1, "kernel0": 3, "groups": 4, "out": 8})


@pytest.mark.parametrize("arch", [SPACE.largest(), SPACE.smallest(), ARCH], ids=["largest", "smallest", "between"])
@pytest.mark.parametrize("sort", [False, True])
@torch.no_grad()
def test_the_found_architecture_computes_what_the_pretrained_network_does(arch, sort):
    pretrained, net = extract(small(1), arch), small(2)
    found = load_pretrained_(net, pretrained.state_dict(), sort=sort)
    assert found.arch == arch and (found.undetermined, found.left) == ((), None)
    torch.testing.assert_close(extract(net, arch)(images()), pretrained(images()))
    assert bool(found.order) == (sort and arch["width"] == 8)


@torch.no_grad()
def test_what_the_pretrained_network_does_not_have_keeps_its_initialisation():
    net, pretrained = small(2), extract(small(1), ARCH)
    before = copy.deepcopy(net.state_dict())
    load_pretrained_(net, pretrained.state_dict(), sort=False)
    stem = net.body.get_submodule("0.0").weight
    assert torch.equal(stem[:, :, 2:5, 2:5], pretrained.body[0][0].weight)
    stem[:, :, 2:5, 2:5] = 0
    assert not stem.any()  # the rim
    for name in ("body.1.0.weight", "body.1.0.bias"):
        assert torch.equal(net.state_dict()[name], before[name])
    assert torch.equal(net.project.weight[8:], before["project.weight"][8:])
    assert torch.equal(net.classifier.weight[:, 8:], before["classifier.weight"][:, 8:])


@torch.no_grad()
def test_larger_kernels_compute_the_same():
    net, pretrained = small(2), extract(small(1), ARCH)
    add_kernel_transforms_(net)
    nn.init.normal_(net.body.get_submodule("0.0").transform_5to3)
    load_pretrained_(net, pretrained.state_dict())
    for kernel in (3, 5, 7):
        arch = SPACE.architecture({**ARCH.values, "kernel0": kernel})
        torch.testing.assert_close(net(images(), arch), pretrained(images()))


@torch.no_grad()
def test_a_head_of_other_classes_keeps_its_initialisation_and_is_named():
    net = small(2, classes=5)
    before = copy.deepcopy(net.classifier.state_dict())
    found = load_pretrained_(net, extract(small(1), ARCH).state_dict(), sort=False)
    assert found.left == "classifier" and found.arch["out"] == 8
    assert all(torch.equal(v, before[k]) for k, v in net.classifier.state_dict().items())


@torch.no_grad()
def test_another_epsilon_goes_into_the_variances():
    pretrained, net = extract(small(1, eps=0.3), ARCH), small(2)
    load_pretrained_(net, pretrained.state_dict(), eps=0.3)
    torch.testing.assert_close(net(images(), ARCH), pretrained(images()))


@torch.no_grad()
def test_timms_efficientnet_lite0_is_in_the_lite_space():
    torch.manual_seed(0)
    pretrained, net = randomised(timm.create_model("efficientnet_lite0")), mbconv(64, 3, 1000, "lite").eval()
    found = load_pretrained_(net, pretrained.state_dict(), options={"resolution": 64})
    expected = pretrained(images(64))
    close = {"rtol": 1e-4, "atol": 1e-4 * expected.abs().max().item()}
    torch.testing.assert_close(extract(net, found.arch)(images(64)), expected, **close)
    torch.testing.assert_close(net(images(64), find_space(net).largest()), expected, **close)
    assert found.undetermined == () and {found.arch[f"stage{i}.width"] for i in (3, 7)} == {40, 320}
    assert all((i.diff() <= 1e-4 * i[0]).all() for i in channel_importance(net).values())


# -- files -------------------------------------------------------------------------------------------


def test_a_safetensors_file_of_a_subnet_is_put_in_order(tmp_path):
    file, pretrained, net = tmp_path / "subnet.safetensors", extract(small(1), ARCH), small(2)
    safetensors.torch.save_file(pretrained.state_dict(), file)
    assert load_pretrained_(net, file).arch == ARCH
    safetensors.torch.save_file({f"net.{name}": t for name, t in pretrained.state_dict().items()}, file)
    with pytest.raises(ValueError, match=r"is no network of this space: .* does not keep the order of layers: give"):
        load_pretrained_(net, file)


def test_a_supernets_checkpoint_is_taken_over_whole(tmp_path):
    source, net, file = small(1), small(2), tmp_path / "checkpoint.safetensors"
    tensors = {f"average/{name}": value for name, value in source.state_dict().items()}
    save_checkpoint(Checkpoint({**tensors, "weights/x": torch.zeros(1)}, {"step": 3}), file)
    found = load_pretrained_(net, file)
    assert found.arch == SPACE.largest() and not found.order
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in source.state_dict().items())
    with pytest.raises(ValueError, match="is the checkpoint of another supernet: ") as caught:
        load_pretrained_(small_net(), file)
    assert "\n" not in str(caught.value)


def test_other_networks_and_options_are_refused_before_anything_changes():
    net = small(2)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=re.escape("the state dict is no network of this space: layer 1, 'conv1'")):
        load_pretrained_(net, timm.create_model("resnet18").state_dict())
    with pytest.raises(ValueError, match="has no choice 'colour'"):
        load_pretrained_(net, {}, options={"colour": 1})
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Doubled(Elastic):
    """A layer of one's own that does not keep its weights as slices."""

    def __init__(self) -> None:
        super().__init__()
        self.width = Choice("width", (2, 4))
        self.values, self.weight = (self.width,), nn.Parameter(torch.ones(4, 4))

    def plain(self):
        layer = nn.Linear(4, self.weight.shape[0], bias=False)
        layer.weight.data = 2 * self.weight.data
        return layer


def test_a_layer_that_takes_no_slices_is_named():
    net = nn.Sequential(Doubled())
    with bound(find_space(net).smallest()):
        assert net[0].plain().weight[0, 0] == 2
    with pytest.raises(ValueError, match="'0' cannot be put into the supernet: Doubled takes its weights"):
        load_pretrained_(net, {"0.weight": torch.full((4, 4), 3.0)}, sort=False)
