import re
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.elastic import (
    BatchNorm2d,
    Conv2d,
    Elastic,
    Linear,
    OneOf,
    Resize,
    Sequence,
    SqueezeExcite,
    _joint_norm,
    activation,
    add_kernel_transforms_,
    bound,
    current,
    plain_copy,
)
from search_spaces.network import find_space
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

INPUT = Choice("input", (4, 8))
OUTPUT = Choice("output", (8, 16))
KERNEL = Choice("kernel", (1, 3, 5))
DEPTH = Choice("depth", (1, 2, 3))


def architectures(module):
    return find_space(module).enumerate()


def images(channels, size=7):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


# -- the bound architecture --------------------------------------------------------------------------


def test_without_an_architecture_an_elastic_layer_says_how_to_call_it():
    with pytest.raises(RuntimeError, match=re.escape("call the network as net(x, arch)")):
        Linear(INPUT, 3)(torch.zeros(1, 4))
    assert current(3) == 3


def test_an_architecture_of_another_space_is_named():
    other = SearchSpace("other", (OUTPUT,)).smallest()
    with bound(other), pytest.raises(ValueError, match="the bound architecture has no choice 'input', which an"):
        Linear(INPUT, 3)(torch.zeros(1, 4))


def test_bound_nests_and_ends_with_an_exception():
    small, large = SearchSpace("s", (INPUT,)).enumerate()
    with bound(small):
        with pytest.raises(KeyError), bound(large):
            assert current(INPUT * 2) == 16
            raise KeyError
        assert current(INPUT * 2) == 8
    with pytest.raises(RuntimeError):
        current(INPUT)


def test_threads_hold_architectures_of_their_own():
    layer = Linear(INPUT, OUTPUT)
    meet = threading.Barrier(4, timeout=20)
    seen = {}

    def call(arch):
        with bound(arch):
            for _ in range(20):
                meet.wait()
                seen.setdefault(arch, set()).add(layer(torch.zeros(1, arch["input"])).shape[1])

    threads = [threading.Thread(target=call, args=(arch,)) for arch in architectures(layer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4 and all(widths == {arch["output"]} for arch, widths in seen.items())


# -- convolution -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_is_the_centre_of_the_first_filters(stride, dilation):
    layer = Conv2d(INPUT, OUTPUT, KERNEL, stride, dilation=dilation)
    nn.init.normal_(layer.bias)
    for arch in architectures(layer):
        i, o, k = arch["input"], arch["output"], arch["kernel"]
        inner = slice((5 - k) // 2, (5 + k) // 2)
        expected = F.conv2d(
            images(i), layer.weight[:o, :i, inner, inner], layer.bias[:o], stride, dilation * (k // 2), dilation
        )
        with bound(arch):
            assert torch.equal(layer(images(i)), expected)
            assert torch.equal(layer.plain()(images(i)), expected)


def test_elastic_stride_and_same_padding():
    layer = Conv2d(3, 4, KERNEL, Choice("stride", (2, 1)))
    for arch in architectures(layer):
        with bound(arch):
            assert (
                layer(images(3)).shape[2:] == layer.plain()(images(3)).shape[2:] == ((7, 7), (4, 4))[arch["stride"] - 1]
            )


def blockwise(layer, x, outputs, groups, fewest):
    """The slow twin of elastic groups: a dense weight in which only the groups' own blocks are not zero."""
    inputs = x.shape[1]
    dense = torch.zeros(outputs, inputs, *layer.weight.shape[2:])
    for row in range(outputs):
        stored, group = row * fewest // outputs, row * groups // outputs
        for column in range(inputs):
            if column * groups // inputs == group:
                dense[row, column] = layer.weight[row, column - stored * (inputs // fewest)]
    return F.conv2d(x, dense, None if layer.bias is None else layer.bias[:outputs], padding=layer.weight.shape[2] // 2)


@pytest.mark.parametrize("groups", [(4, 2, 1), (4, 2), (8, 4)])
def test_more_groups_are_the_diagonal_blocks_of_the_fewest(groups):
    layer = Conv2d(Choice("in", (8, 16)), Choice("out", (8, 24)), 3, groups=Choice("groups", groups))
    nn.init.normal_(layer.bias)
    for arch in architectures(layer):
        x = images(arch["in"])
        expected = blockwise(layer, x, arch["out"], arch["groups"], min(groups))
        with bound(arch):
            torch.testing.assert_close(layer(x), expected)
            torch.testing.assert_close(layer.plain()(x), expected)


@pytest.mark.parametrize(
    ("outputs", "groups"),
    [(INPUT, INPUT), (INPUT * 2, INPUT), (OUTPUT, INPUT // 4), (INPUT, INPUT // 2), (OUTPUT, 2)],
    ids=["depthwise", "multiplier", "group width 4", "group width 2", "two groups"],
)
def test_fixed_groups_or_fixed_group_widths_are_slices(outputs, groups):
    layer = Conv2d(INPUT, outputs, 3, groups=groups, bias=False)
    for arch in architectures(layer):
        with bound(arch):
            i, o, g = current(INPUT), current(outputs), current(groups)
            expected = F.conv2d(images(i), layer.weight[:o, : i // g], padding=1, groups=g)
            assert torch.equal(layer(images(i)), expected)
            assert torch.equal(layer.plain()(images(i)), expected)


@pytest.mark.parametrize(
    "layer",
    [Conv2d(INPUT, OUTPUT, KERNEL), Conv2d(INPUT, INPUT, KERNEL, groups=INPUT), Conv2d(INPUT, OUTPUT, groups=2)],
    ids=["dense", "depthwise", "two groups"],
)
def test_weights_are_views(layer):
    for arch in architectures(layer):
        with bound(arch):
            view = layer._weight()
            assert view.untyped_storage().data_ptr() == layer.weight.untyped_storage().data_ptr()
            assert view.shape == layer.plain().weight.shape


def test_convolutions_start_with_the_variance_of_he_by_fan_out():
    torch.manual_seed(0)
    dense, depthwise = Conv2d(8, 256, 3), Conv2d(512, 512, 3, groups=512)
    assert dense.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.03)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03)


# -- kernel transforms -------------------------------------------------------------------------------

SEVEN = Choice("seven", (3, 5, 7))


def active_filter(layer, channels, kernel):
    """The slow twin of kernel transforms: once-for-all's `get_active_filter`, channel by channel."""
    filters = layer.weight[:channels, 0]
    for source, target in ((7, 5), (5, 3)):
        if kernel <= target:
            matrix = getattr(layer, f"transform_{source}to{target}")
            centres = [f[1:-1, 1:-1].reshape(-1) for f in filters]
            filters = torch.stack([(matrix @ centre).view(target, target) for centre in centres])
    return filters[:, None]


def transformed(layer):
    """`layer` with kernel transforms that are not identities."""
    add_kernel_transforms_(layer)
    for name, matrix in layer.named_parameters():
        if "transform" in name:
            nn.init.normal_(matrix, std=0.3)
    return layer


def test_kernel_transforms_are_once_for_alls():
    torch.manual_seed(0)
    layer = transformed(Conv2d(INPUT, INPUT, SEVEN, groups=INPUT, bias=False))
    for arch in architectures(layer):
        channels, kernel = arch["input"], arch["seven"]
        expected = active_filter(layer, channels, kernel)
        with bound(arch):
            torch.testing.assert_close(layer.plain().weight, expected)
            y = F.conv2d(images(channels), expected, padding=kernel // 2, groups=channels)
            torch.testing.assert_close(layer(images(channels)), y)


def test_kernel_transforms_change_nothing_at_first_and_stand_where_the_kernel_size_varies():
    net = nn.Sequential(Conv2d(3, 8, SEVEN), Conv2d(8, 8, 3), Conv2d(8, 8, KERNEL))
    arch = find_space(net).smallest()
    with bound(arch):
        before = net(images(3))
        add_kernel_transforms_(net)
        assert torch.equal(net(images(3)), before)
    added = {name: p.shape[0] for name, p in net.named_parameters() if "transform" in name}
    assert added == {"0.transform_7to5": 25, "0.transform_5to3": 9, "2.transform_5to3": 9, "2.transform_3to1": 1}
    kept = net[0].transform_7to5
    add_kernel_transforms_(net)
    assert net[0].transform_7to5 is kept and "0.transform_7to5" in net.state_dict()


def test_a_kernel_trains_the_transforms_on_its_way_and_the_centre_that_it_reads():
    torch.manual_seed(0)
    for kernel, names in ((3, {"7to5", "5to3"}), (5, {"7to5"}), (7, set())):
        layer = transformed(Conv2d(4, OUTPUT, SEVEN, bias=False))
        with bound(SearchSpace("s", layer.choices()).architecture({"output": 8, "seven": kernel})):
            layer(images(4)).square().sum().backward()
        trained = {n for n, p in layer.named_parameters() if p.grad is not None and p.grad.any()}
        assert trained == {"weight", *(f"transform_{name}" for name in names)}
        used = torch.zeros_like(layer.weight, dtype=torch.bool)
        margin = 0 if kernel == 7 else 1  # of a smaller one, all of the next size's centre
        used[:8, :, margin : 7 - margin, margin : 7 - margin] = True
        assert torch.equal(layer.weight.grad != 0, used)


def test_groups_transform_their_blocks():
    layer = transformed(Conv2d(8, 8, SEVEN, groups=Choice("groups", (2, 1)), bias=False))
    for arch in architectures(layer):
        groups, dense = arch["groups"], Conv2d(8, 8, SEVEN, bias=False)
        transformed(dense).load_state_dict(layer.state_dict())
        with bound(arch):
            expected = dense._weight()
            if groups == 2:
                expected = torch.cat([expected[:4, :4], expected[4:, 4:]])
            torch.testing.assert_close(layer._weight(), expected)


# -- the other layers --------------------------------------------------------------------------------


def test_a_linear_layer_uses_the_first_features():
    layer = Linear(INPUT, OUTPUT)
    nn.init.normal_(layer.bias)
    for arch in architectures(layer):
        x, o = torch.randn(2, 3, arch["input"]), arch["output"]
        with bound(arch):
            assert torch.equal(layer(x), F.linear(x, layer.weight[:o, : arch["input"]], layer.bias[:o]))
            assert torch.equal(layer(x), layer.plain()(x))


def test_batch_norm_normalises_by_the_batch_in_training_and_keeps_its_statistics():
    layer = BatchNorm2d(INPUT)
    for name in ("weight", "bias", "running_mean", "running_var"):
        nn.init.uniform_(getattr(layer, name), 0.5, 2)
    before = layer.running_mean.clone()
    for arch in architectures(layer):
        x = images(arch["input"])
        with bound(arch):
            plain = layer.train().plain()
            torch.testing.assert_close(layer(x), plain(x))
            torch.testing.assert_close(layer.eval()(x), layer.plain().eval()(x))
    assert torch.equal(layer.running_mean, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_joint_statistics_are_as_precise_as_those_of_one_process(monkeypatch, dtype, tolerance):
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("search_spaces.elastic.all_reduce", lambda x: x)
    x = (images(4) + 20).to(dtype)  # far from zero, where bfloat16 has steps of 1/8
    weight, bias = torch.rand(4, dtype=dtype) + 0.5, torch.rand(4, dtype=dtype)
    got = _joint_norm(x, weight, bias, 1e-5)
    expected = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


def test_plain_layers_keep_dtype_and_mode():
    net = nn.Sequential(Conv2d(INPUT, OUTPUT), BatchNorm2d(OUTPUT), nn.Flatten(), Linear(OUTPUT, 2)).double()
    net[1].eval()
    with bound(find_space(net).smallest()):
        plain = plain_copy(net)
    assert all(p.dtype == torch.float64 for p in plain.parameters())
    assert [m.training for m in plain] == [True, False, True, True]


class Add(nn.Module):
    def __init__(self, amount):
        super().__init__()
        self.amount = amount

    def forward(self, x):
        return x + self.amount


@pytest.mark.parametrize("depth", [DEPTH, Choice("half", (0, 1)) * 3, Choice("deep", (0, 2)) + 1, 3, None])
def test_a_sequence_runs_its_first_layers(depth):
    layer = Sequence(Add(1), Add(10), Add(100), depth=depth)
    archs = architectures(layer) if layer.choices() else [SearchSpace("s", (DEPTH,)).smallest()]
    for arch in archs:
        with bound(arch):
            taken = current(layer.depth)
            assert layer(0) == sum([1, 10, 100][:taken])
            assert layer.plain()(0) == layer(0) and len(layer.plain()) == taken


def test_a_layer_that_stands_twice_in_a_sequence_runs_twice():
    twice = Add(1)
    layer = Sequence(twice, twice, Add(10), depth=DEPTH)
    for arch, expected in zip(architectures(layer), (1, 2, 12), strict=True):
        with bound(arch):
            assert layer(0) == layer.plain()(0) == expected


@pytest.mark.parametrize(
    ("depth", "conditions"),
    [
        (DEPTH, {"1": ("depth", (2, 3)), "2": ("depth", (3,))}),
        (Choice("half", (0, 1)) * 3, {"0": ("half", (1,)), "1": ("half", (1,)), "2": ("half", (1,))}),
        (3, {}),
    ],
)
def test_a_layer_is_used_where_the_depth_exceeds_its_place(depth, conditions):
    found = Sequence(Add(1), Add(1), Add(1), depth=depth).branch_conditions()
    assert {name: (c.choice, c.options) for name, c in found.items()} == conditions


def test_one_of_runs_the_picked_layer():
    layer = OneOf(Choice("op", (False, 2, "x")), {False: Add(1), 2: Add(10), "x": Linear(1, 1)})
    outputs = []
    for arch in architectures(layer):
        with bound(arch):
            outputs.append(layer(torch.zeros(1, 1)))
            assert torch.equal(layer.plain()(torch.zeros(1, 1)), outputs[-1])
            assert not isinstance(layer.plain(), Elastic)
    assert outputs[:2] == [1, 10]


def test_resize_does_nothing_at_the_native_resolution():
    layer = Resize(Choice("resolution", (5, 7, 9)), native=7)
    x = images(3)
    for arch in architectures(layer):
        with bound(arch):
            y = layer(x)
            assert y.shape == (2, 3, arch["resolution"], arch["resolution"])
            assert torch.equal(layer.plain()(x), y)
            native = arch["resolution"] == 7
            assert (y is x) == isinstance(layer.plain(), nn.Identity) == native


def test_squeeze_and_excite_has_one_shape_for_a_number_and_a_choice_of_that_width():
    widths = (24, 100)
    layer = SqueezeExcite(Choice("width", widths))
    for arch in architectures(layer):
        fixed = SqueezeExcite(arch["width"])
        with bound(arch):
            plain = plain_copy(layer)
            assert plain.reduce.weight.shape == plain_copy(fixed).reduce.weight.shape
            assert torch.equal(plain(images(arch["width"])), layer(images(arch["width"])))


def test_an_activation_may_be_a_choice():
    layer = activation(Choice("act", ("relu", "h-swish")))
    x = torch.linspace(-4, 4, 9)
    for arch, expected in zip(architectures(layer), (F.relu(x), F.hardswish(x)), strict=True):
        with bound(arch):
            assert torch.equal(layer(x), expected)
    assert isinstance(activation("relu"), nn.ReLU)


# -- plain copies ------------------------------------------------------------------------------------


class Shared(nn.Module):
    """One elastic and one plain layer, each under two names, in a list, and with a tied parameter."""

    def __init__(self):
        super().__init__()
        self.first = Linear(INPUT, INPUT)
        self.plain_first = nn.Linear(4, 4)
        self.inner = Sequence(self.first, nn.Sequential(self.first), depth=Choice("depth", (1, 2)))
        self.second = self.first
        self.plain_second = self.plain_first
        self.order = [self.first, self.plain_first]
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.plain_first.weight

    def forward(self, x):
        for layer in self.order:
            x = layer(x)
        return self.tied(x)


def test_what_is_shared_stays_shared_in_a_copy_and_lists_hold_the_copies():
    net = Shared()
    arch = find_space(net).architecture({"input": 4, "depth": 2})
    with bound(arch):
        expected = net(torch.ones(1, 4))
        copied = plain_copy(net)
    assert copied.first is copied.second is copied.order[0] is copied.inner[0] is copied.inner[1][0]
    assert copied.plain_first is copied.plain_second is copied.order[1]
    assert copied.tied.weight is copied.plain_first.weight
    assert copied.first is not net.first and copied.order[1] is not net.plain_first
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(torch.nan)  # nothing of the copy lives in the original
    assert torch.equal(copied(torch.ones(1, 4)), expected)


def test_copies_of_one_module_share_nothing_with_each_other():
    net = Shared()
    with bound(find_space(net).largest()):
        assert plain_copy(net).first is not plain_copy(net).first


class Counted(nn.Module):
    """A module that says itself how it is copied."""

    def __init__(self):
        super().__init__()
        self.copied = 0

    def __deepcopy__(self, memo):
        made = Counted()
        made.copied = self.copied + 1
        return made


def test_a_copy_has_what_a_module_has_and_asks_those_that_copy_themselves():
    net = nn.Sequential(nn.Sequential(), Counted(), nn.BatchNorm1d(4, affine=False)).eval()
    net.register_parameter("none", None)
    net[0].add_module("none", None)
    net[2].register_forward_hook(lambda _module, _inputs, y: y + 1)
    copied = plain_copy(net)
    assert copied[1].copied == 1 and [vars(a).keys() for a in copied.modules()] == [
        vars(a).keys() for a in net.modules()
    ]
    assert (
        repr(copied) == repr(net) and not copied[2].training and copied.state_dict().keys() == net.state_dict().keys()
    )
    assert copied[0]._modules == {"none": None} and copied[2]._forward_hooks is not net[2]._forward_hooks
    assert torch.equal(copied[2](torch.zeros(2, 4)), torch.ones(2, 4))
    copied[0]._buffers["mine"] = torch.zeros(1)
    assert not net[0]._buffers


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(4, 4, 2), "kernel_size must be odd, got (2,): an even kernel has no centre"),
        (lambda: Conv2d(4, 4, KERNEL + 1), "kernel_size must be odd, got (2, 4, 6)"),
        (lambda: Conv2d(0, 4), "in_channels must be a positive whole number, got 0"),
        (lambda: Conv2d(4, 4.0), "out_channels must be a positive whole number, got 4.0"),
        (lambda: Conv2d(4, 4, groups="4"), "groups must be a positive whole number, got '4'"),
        (lambda: Conv2d(4, 6, groups=4), "6 channels do not divide into 4 groups; for depthwise give the same"),
        (lambda: Conv2d(12, 12, groups=Choice("g", (3, 2))), "groups must be multiples of the fewest, got (2, 3)"),
        (lambda: Linear(INPUT, 0), "out_features must be a positive whole number, got 0"),
        (lambda: BatchNorm2d(-1), "num_features must be a positive whole number, got -1"),
        (lambda: Resize(Choice("r", (0, 1)), 8), "resolution must be a positive whole number, got 0"),
        (lambda: Sequence(Add(1), depth=2), "depth must lie between 0 and the 1 layers, got 2"),
        (lambda: Sequence(Add(1), depth=Choice("d", (-1, 1))), "depth must lie between 0 and the 1 layers, got -1"),
        (lambda: Sequence(Add(1), depth=True), "depth must lie between 0 and the 1 layers, got True"),
        (
            lambda: Sequence(Add(1), Add(2), Add(3), depth=Choice("d", (1, 2))),
            "no depth of (1, 2) reaches all 3 layers: leave out those it never does",
        ),
        (
            lambda: Sequence(Add(1), depth=Choice("a", (0, 1)) * Choice("b", (0, 1))),
            "depth must depend on one choice at most, got one over a, b",
        ),
        (
            lambda: OneOf(Choice("op", (1, 2)), {1: Add(1)}),
            "choice 'op' has options (1, 2), got layers for (1,)",
        ),
        (lambda: activation("relux"), "unknown activation 'relux': there are relu, h-swish"),
        (lambda: activation(Choice("act", ("relu", "sine"))), "unknown activation 'sine': there are relu, h-swish"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_an_elastic_layer_without_a_plain_counterpart_is_named():
    class Mine(Elastic):
        pass

    with pytest.raises(TypeError, match=re.escape("Mine does not say what its plain counterpart is: define plain()")):
        plain_copy(nn.Sequential(Mine()))
