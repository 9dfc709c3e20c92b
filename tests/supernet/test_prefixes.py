import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_supernet import same, small_dataset, small_net, weights
from torch import nn

from search_spaces.cell import Cell
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf, Sequence
from search_spaces.mbconv import mbconv
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice
from supernet import prefixes
from supernet.calibrate import calibrate_, calibration_images, inherited_accuracy
from supernet.prefixes import inherited_accuracies

DATA = small_dataset(n=240)
RUNS = []


class Noted(nn.Module):
    """A layer of its own that notes each run, and changes its input in place, as some users' layers do."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.conv, self.norm = Conv2d(6, 6, 3), BatchNorm2d(6)

    def forward(self, x):
        RUNS.append(self.name)
        return x.mul_(0.5) + self.norm(self.conv(x)).relu_()


class Layers(Network):
    """Three layers, each of two operations or none."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv2d(1, 6, 3), BatchNorm2d(6), nn.ReLU(inplace=True))
        for i in range(3):
            layers = {"a": Noted(f"{i}a"), "b": Noted(f"{i}b"), "none": nn.Identity()}
            self.add_module(f"layer{i}", OneOf(Choice(f"op{i}", tuple(layers)), layers))
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(6, 3)


class Cells(Network):
    """Two equal cells in a row, as in the cells space."""

    def __init__(self):
        super().__init__()
        edges = [Choice(f"edge{i}", ("none", "skip_connect", "nor_conv_3x3")) for i in range(6)]
        self.stem = nn.Sequential(Conv2d(1, 4, 3, bias=False), BatchNorm2d(4))
        self.stage = nn.Sequential(Cell(edges, 4), Cell(edges, 4))
        self.head = nn.Sequential(BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(4, 3)


class Vote(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = Linear(36, 3), BatchNorm2d(3)

    def forward(self, x):
        """(b, c, 6, 6) or (b, 3) → (b, 3)."""
        return self.norm(self.linear(x.flatten(1) if x.dim() > 2 else x.repeat(1, 12))[..., None, None])[..., 0, 0]


class Ends(Sequence):
    """A network whose shorter chains are the beginnings of its longer ones."""

    def __init__(self):
        super().__init__(Vote(), Vote(), Vote(), depth=Choice("depth", (1, 2, 3)))


class Centred(nn.Module):
    """Logits in which no class is ahead on average, so that accuracies hang on everything before."""

    def __init__(self):
        super().__init__()
        self.norm = BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x[..., None, None])[..., 0, 0]


def tiny():
    return mbconv(6, 1, 3, "tiny")


@functools.lru_cache
def made(kind):
    """A network with norms far from their start, some architectures, data and the accuracies taken one by one.

    The validation labels are what the first architecture says, so that the others differ widely.
    """
    torch.manual_seed(0)
    net = kind() if kind is Ends else nn.Sequential(kind(), Centred())
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1 and not name.startswith("1."):
            nn.init.uniform_(parameter, 0.3, 1.2, generator=torch.Generator().manual_seed(len(name)))
    space = find_space(net)
    rows = space.sample(4, np.random.default_rng(0))
    near = np.repeat(rows[:1], 3, axis=0)
    near[:, -1] = range(3)
    rows = space.canonical(np.minimum(np.concatenate([rows, near, rows[:1]]), space.cardinalities - 1))
    archs = [space.row(row) for row in rows]
    plain = extract(net, archs[0])
    calibrate_(plain, calibration_images(DATA, 60), 32)
    data = replace(DATA, y_val=plain(torch.from_numpy(DATA.x_val)).argmax(1).numpy())
    return net, archs, data, [inherited_accuracy(net, arch, data, 60, 32) for arch in archs]


@pytest.mark.parametrize("kept_bytes", [2**30, 2**17])
@pytest.mark.parametrize("kind", [tiny, Layers, Cells, small_net, Ends])
def test_accuracies_are_those_taken_one_by_one(kind, kept_bytes):
    net, archs, data, expected = made(kind)
    before, images = weights(net), data.x_val.copy()
    found = inherited_accuracies(net, archs, data, 60, 32, kept_bytes=kept_bytes)
    assert found == pytest.approx(expected, abs=1.5 / len(images))  # another order of sums may turn one image round
    assert np.ptp(expected) > 0.1
    assert same(before, weights(net)) and np.array_equal(images, data.x_val)


def count_runs(archs, net, **options):
    RUNS.clear()
    inherited_accuracies(net, archs, DATA, 32, 60, **options)
    return {name: RUNS.count(name) for name in dict.fromkeys(RUNS)}


def test_every_node_of_the_tree_is_run_once():
    net = Layers()
    archs = list(find_space(net).enumerate())
    batches = 2  # one of calibration and one of validation images; probing for the size is a third
    runs = count_runs(archs, net)
    assert runs["2a"] == runs["2b"] == batches * 9
    assert runs["1a"] == runs["1b"] == (batches + 1) * 3
    assert runs["0a"] == runs["0b"] == batches + 1


def test_without_room_it_is_as_one_by_one():
    net = Layers()
    archs = list(find_space(net).enumerate())
    runs = count_runs(archs, net, kept_bytes=0)
    assert runs["2a"] == 2 * 9
    assert runs["0a"] <= 2 * 9 + 1 + 3  # and what probes


def test_activations_kept_never_exceed_the_bound(monkeypatch):
    net = Layers()
    archs = list(find_space(net).enumerate())
    one = (32 + 60) * 6 * 36 * 4
    kept = []
    make_room = prefixes._Tree._make_room

    def spied(tree, node):
        make_room(tree, node)
        kept.append(sum(n.bytes for n in tree.path if n.kept is not None) + node.bytes)

    monkeypatch.setattr(prefixes._Tree, "_make_room", spied)
    full = count_runs(archs, net)
    assert max(kept) == 3 * one  # after the stem and two layers
    kept.clear()
    assert count_runs(archs, net, kept_bytes=2 * one)["2a"] == full["2a"]
    assert max(kept) == 2 * one


def test_each_is_told_as_it_is_known():
    net, archs, *_ = made(Layers)
    told = []
    found = inherited_accuracies(net, archs, DATA, 32, on_each=lambda i, value: told.append((i, value)))
    assert sorted(told) == list(enumerate(found))
    assert len(inherited_accuracies(net, [], DATA)) == 0


def test_no_images_are_refused():
    net, archs, *_ = made(Layers)
    with pytest.raises(ValueError, match="need validation images, got none"):
        inherited_accuracies(net, archs, replace(DATA, x_val=DATA.x_val[:0], y_val=DATA.y_val[:0]))
    with pytest.raises(ValueError, match="at least 2 images"):
        inherited_accuracies(net, archs, DATA, 1)
