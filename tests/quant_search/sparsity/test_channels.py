import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sparse_subject import digits_model, run
from torch import nn

from latency.lowering import to_onnx
from quant_search.sparsity.channels import channel_groups, prune_channels, survivors
from tests.quant_search.sparsity.zeroed_channels import mask_channels

RNG = np.random.default_rng(0)


def weights(model):
    return {n.name: shape_of(model, n.input[1]) for n in model.graph.node if n.op_type in ("Conv", "Gemm")}


def shape_of(model, name):
    return next(tuple(t.dims) for t in model.graph.initializer if t.name == name)


def test_groups_of_a_chain_are_its_layers_and_the_last_is_none():
    groups = channel_groups(digits_model())
    assert [(g.name, g.layers, g.size, g.width) for g in groups] == [
        ("/0/Conv", ("/0/Conv",), 16, 16),
        ("/2/Conv", ("/2/Conv",), 32, 32),
        ("/6/Conv", ("/6/Conv",), 32, 32),
    ]
    roles = {(part.node, part.role) for part in groups[1].parts}
    assert roles == {("/2/Conv", "made"), ("/4/Conv", "made"), ("/6/Conv", "read")}  # /4 is depthwise
    (flat,) = (part for part in groups[2].parts if part.role == "read")
    assert flat.units == tuple(np.arange(32).repeat(4))  # of 2 x 2 pixels


def test_pruned_tensors_are_really_smaller():
    pruned = prune_channels(digits_model(), {"/0/Conv": [0, 3], "/2/Conv": [1, 2, 30], "/6/Conv": [5]})
    assert weights(pruned) == {
        "/0/Conv": (2, 1, 3, 3),
        "/2/Conv": (3, 2, 1, 1),
        "/4/Conv": (3, 1, 3, 3),
        "/6/Conv": (1, 3, 1, 1),
        "/10/Gemm": (10, 4),
    }
    onnx.checker.check_model(pruned, full_check=True)
    assert len(pruned.SerializeToString()) < len(digits_model().SerializeToString()) / 4


def test_kept_units_keep_their_order_whatever_order_they_are_given_in():
    model = digits_model()
    a, b = (prune_channels(model, {"/0/Conv": units}) for units in ([1, 4, 9], [9, 1, 4]))
    assert a.SerializeToString() == b.SerializeToString()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"/x": [0]}, "unknown group of channels '/x': there are /0/Conv, /2/Conv, /6/Conv"),
        ({"/0/Conv": [16]}, "group '/0/Conv' has units 0 to 15, got 16"),
        ({"/0/Conv": [-1]}, "got -1"),
        ({"/0/Conv": []}, r"must be given, each once, got \[\]"),
        ({"/0/Conv": [1, 1]}, r"each once, got \[1, 1\]"),
    ],
)
def test_what_is_no_choice_of_units_is_refused(keep, message):
    for change in (prune_channels, mask_channels, survivors):
        with pytest.raises(ValueError, match=message):
            change(digits_model(), keep)


class Parts(nn.Module):
    """Channels that are cut in parts, of which one could be left empty."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a, b = self.first(x).relu().split([4, 4], 1)
        return self.last(a * b)


class Flat(nn.Module):
    """Sizes of a Reshape that are written down, and a slice of channels."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Linear(5 * 16, 2)

    def forward(self, x):
        return self.last(self.first(x)[:, 2:7].reshape(-1, 5 * 16))


def test_halves_that_are_multiplied_go_together():
    model = to_onnx(Parts(), (3, 4, 4))
    (group,) = channel_groups(model)
    assert (group.size, group.width) == (4, 8)
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    keep = {group.name: [0, 3]}
    assert np.allclose(run(prune_channels(model, keep), x), run(mask_channels(model, keep), x), atol=1e-5)
    assert weights(prune_channels(model, keep)) == {"/first/Conv": (4, 3, 1, 1), "/last/Conv": (2, 2, 1, 1)}


def test_sizes_that_are_written_down_follow():
    model = to_onnx(Flat(), (3, 4, 4))
    (group,) = channel_groups(model)
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    keep = {group.name: [0, 3, 4, 7]}
    assert {"Slice", "Reshape"} <= {node.op_type for node in model.graph.node}
    assert np.allclose(run(prune_channels(model, keep), x), run(mask_channels(model, keep), x), atol=1e-5)
    assert weights(prune_channels(model, keep)) == {"/first/Conv": (4, 3, 1, 1), "/last/Gemm": (2, 2 * 16)}
    with pytest.raises(ValueError, match=r"no channel of '.*' would be left"):
        prune_channels(model, {group.name: [0, 1, 7]})


class Padded(nn.Module):
    """A shortcut with constant channels on both sides, as ResNets for CIFAR have it (arXiv:1512.03385, option A)."""

    def __init__(self):
        super().__init__()
        self.first, self.wide, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        y = self.wide(x) + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.last(y.relu().mean((2, 3)))


def test_constant_channels_go_with_those_that_they_are_added_to():
    model = to_onnx(Padded(), (3, 4, 4))
    both, added = channel_groups(model)
    assert (both.name, both.layers, both.size) == ("/first/Conv", ("/first/Conv", "/wide/Conv"), 4)
    assert (added.name, added.layers, added.size) == ("/wide/Conv", ("/wide/Conv",), 4)
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    for keep in ({both.name: [1, 2], added.name: [0]}, {both.name: [3]}, {added.name: [1, 2, 3]}):
        pruned = prune_channels(model, keep)
        assert np.allclose(run(pruned, x), run(mask_channels(model, keep), x), atol=1e-5)
        left = {group.name: len(keep.get(group.name, range(4))) for group in (both, added)}
        assert {group.name: group.size for group in channel_groups(pruned)} == left
        assert weights(pruned)["/wide/Conv"][0] == weights(pruned)["/last/Gemm"][1] == sum(left.values())


class Overlapping(nn.Module):
    """One layer whose channels meet others in part: it makes three groups."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 4, 1)
        self.grouped, self.last = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(20, 2)

    def forward(self, x):
        x, y = self.first(x), self.second(x)
        parts = [x[:, :4], x[:, 4:8] + y, self.grouped(x[:, 8:]), y]
        return self.last(torch.cat(parts, 1).relu().mean((2, 3)))


def test_units_that_different_layers_make_are_groups_of_their_own():
    model = to_onnx(Overlapping(), (3, 4, 4))
    groups = {group.name: (group.size, group.width, group.layers) for group in channel_groups(model)}
    assert groups == {
        "/first/Conv": (4, 4, ("/first/Conv",)),
        "/first/Conv#2": (4, 4, ("/first/Conv", "/second/Conv")),
        "/first/Conv#3": (4, 8, ("/first/Conv",)),  # places of two groups
        "/grouped/Conv": (4, 8, ("/grouped/Conv",)),
    }
    x = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
    keep = {"/first/Conv": [2], "/first/Conv#2": [3, 1], "/first/Conv#3": [1, 3]}
    pruned = prune_channels(model, keep)
    assert np.allclose(run(pruned, x), run(mask_channels(model, keep), x), atol=1e-5)
    sizes = {group.name: group.size for group in channel_groups(pruned)}
    assert sizes == {"/first/Conv": 1, "/first/Conv#2": 2, "/first/Conv#3": 2, "/grouped/Conv": 4}


def test_masked_models_keep_their_size_and_are_zero_where_channels_go():
    model, keep = digits_model(), {"/0/Conv": range(0, 16, 2)}
    masked = mask_channels(model, keep)
    assert weights(masked) == weights(model)
    tensors = {t.name: numpy_helper.to_array(t) for t in masked.graph.initializer}
    nodes = {n.name: n for n in masked.graph.node}
    assert not any(tensors[name][1::2].any() for name in nodes["/0/Conv"].input[1:])
    assert not tensors[nodes["/2/Conv"].input[1]][:, 1::2].any()
    assert tensors[nodes["/2/Conv"].input[1]][:, ::2].all()


def test_survivors_say_which_channels_each_layer_has_left():
    found = survivors(digits_model(), {"/2/Conv": [1, 2]})
    assert found["/0/Conv"][1].all() and found["/2/Conv"][0].all() and found["/6/Conv"][1].all()
    assert found["/2/Conv"][1].nonzero()[0].tolist() == found["/6/Conv"][0].nonzero()[0].tolist() == [1, 2]


def test_the_model_given_is_left_alone():
    model = digits_model()
    before = model.SerializeToString()
    keep = {"/0/Conv": [0]}
    for change in (prune_channels, mask_channels):
        assert change(model, keep).SerializeToString() != before == model.SerializeToString()


def test_networks_of_one_layer_have_no_groups():
    torch.manual_seed(0)
    model = to_onnx(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (3, 4, 4))
    assert channel_groups(model) == ()
    with pytest.raises(ValueError, match="there are none"):
        prune_channels(model, {"/0/Conv": [0]})
