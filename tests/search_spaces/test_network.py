import re

import pytest
import torch
from torch import nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf, Sequence
from search_spaces.network import Block, Network, check_network, extract, find_blocks, find_space, is_chain, run
from search_spaces.value import Choice, Condition

WIDTH = Choice("width", (4, 8))
DEPTH = Choice("depth", (0, 1, 2))
KERNEL = Choice("kernel", (1, 3))


def kernel(name):
    return Choice(name, (1, 3))


class Small(Network):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(Conv2d(3, WIDTH, 3), BatchNorm2d(WIDTH))
        self.act = nn.ReLU()
        self.stage = Sequence(
            Conv2d(WIDTH, WIDTH, kernel("kernel1")), Conv2d(WIDTH, WIDTH, kernel("kernel2")), depth=DEPTH
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = Linear(WIDTH, 5)


def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# -- calling and extracting --------------------------------------------------------------------------


def test_a_network_is_called_with_its_architecture():
    net = Small().eval()
    for arch in find_space(net).enumerate():
        y = net(images(), arch)
        assert torch.equal(y, run(net, images(), arch))
        plain = extract(net, arch)
        assert torch.equal(y, plain(images())) and not plain.training


def test_a_default_forward_runs_a_shared_child_each_time_it_is_registered():
    class Twice(Network):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Linear(1, 1, bias=False)

    net = Twice()
    nn.init.constant_(net.first.weight, 3.0)
    assert net(torch.ones(1, 1)) == extract(net, find_space(Small()).smallest())(torch.ones(1, 1)) == 9


# -- the space ---------------------------------------------------------------------------------------


def test_the_space_is_found_in_order_with_its_conditions():
    space = find_space(Small())
    assert space.name == "Small"
    assert [c.name for c in space.choices] == ["width", "depth", "kernel1", "kernel2"]
    assert [c.when for c in space.choices] == [(), (), ((DEPTH.among(1, 2),),), ((DEPTH.among(2),),)]


def test_nested_branches_make_clauses_of_several_conditions():
    op = Choice("op", ("conv", "skip"))
    net = Sequence(OneOf(op, {"conv": Conv2d(4, 4, KERNEL), "skip": nn.Identity()}), depth=Choice("depth", (0, 1)))
    space = find_space(net, "nested")
    assert space.name == "nested" and space.choices[2].when == ((Condition("depth", (1,)), op.among("conv")),)
    assert space.size == 1 + 2 + 1


def test_a_choice_read_in_several_branches_is_active_in_any_and_stands_after_all():
    first, second = Choice("a", (0, 1)), Choice("b", (0, 1))
    net = nn.Sequential(
        Sequence(Conv2d(4, 4, KERNEL), depth=first),
        nn.Sequential(Sequence(Conv2d(4, 4, KERNEL), depth=second)),
    )
    space = find_space(net)
    assert [c.name for c in space.choices] == ["a", "b", "kernel"]
    assert space.choices[2].when == ((first.among(1),), (second.among(1),))
    assert space.size == 1 + 3 * 2


def test_a_choice_read_outside_any_branch_is_always_active():
    net = nn.Sequential(Sequence(Conv2d(4, 4, KERNEL), depth=Choice("depth", (0, 1))), Conv2d(4, 4, KERNEL))
    assert find_space(net).choices[1].when == ()


def test_a_clause_within_a_wider_one_adds_nothing():
    op = Choice("op", ("x", "y"))
    net = Sequence(
        nn.ModuleList([Conv2d(4, 4, KERNEL), OneOf(op, {"x": Conv2d(4, 4, KERNEL), "y": nn.ReLU()})]),
        depth=Choice("depth", (0, 1)),
    )
    assert find_space(net).choices[-1].when == ((Condition("depth", (1,)),),)


def test_a_layer_shared_by_two_options_is_found_under_both():
    shared, op = Conv2d(4, 4, KERNEL), Choice("op", ("x", "y", "z"))
    space = find_space(OneOf(op, {"x": shared, "y": nn.ReLU(), "z": shared}))
    assert space.choices[1].when == ((op.among("x"),), (op.among("z"),))


def test_conditions_of_a_choice_hold_together_with_those_found():
    gate = Choice("gate", (0, 1))
    gated = Choice("kernel", (1, 3), gate.among(1))
    net = Sequence(Conv2d(4, 4, gated, stride=gate + 1), depth=Choice("depth", (0, 1)))
    kernels = next(c for c in find_space(net).choices if c.name == "kernel")
    assert kernels.when == ((gate.among(1), Condition("depth", (1,))),)
    assert find_space(net).size == 1 + 1 + 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_space(nn.Linear(1, 1)), "Linear has no choices: give at least one argument of an elastic layer"),
        (
            lambda: find_space(nn.Sequential(Linear(WIDTH, 4), Linear(4, Choice("width", (4, 16))))),
            "two choices are named 'width' but differ: (4, 8) and (4, 16)",
        ),
        (
            lambda: find_space(Conv2d(4, 4, Choice("k", (1, 3), Condition("gone", (1,))))),
            "choice 'k' depends on 'gone', which does not stand before it: list every choice after those",
        ),
    ],
)
def test_spaces_that_cannot_be_found_are_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# -- checking ----------------------------------------------------------------------------------------


class Sums(Network):
    """Adds its stem's output to a branch's, which fits only at some options."""

    def __init__(self, branch):
        super().__init__()
        self.stem = Conv2d(3, 8)
        self.branch = branch
        self.classifier = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.classifier((x + self.branch(x)).mean((2, 3)))


def test_a_network_that_runs_passes_and_keeps_each_modules_mode():
    net = Small()
    net.stem.eval()
    before = [m.training for m in net.modules()]
    check_network(net, find_space(net), (3, 8, 8), 5)
    assert [m.training for m in net.modules()] == before


@pytest.mark.parametrize(
    "branch",
    [
        Conv2d(8, 8, stride=(bad := Choice("bad", (1, 2, 1 + 2))) // 2 + 1),
        OneOf(Choice("op", ("wrong", "none")), {"wrong": Conv2d(8, 8, stride=bad // 2 + 1), "none": nn.Identity()}),
        Sequence(
            OneOf(Choice("op", ("wrong", "none")), {"wrong": Conv2d(8, 8, stride=bad // 2 + 1), "none": nn.Identity()}),
            depth=Choice("depth", (1, 0)),
        ),
    ],
    ids=["always active", "inactive in the largest", "two levels down"],
)
def test_a_forward_that_fails_at_some_option_is_named(branch):
    net = Sums(branch)
    with pytest.raises(
        ValueError, match=r"the forward of Sums does not run at .*: The size of tensor a \(8\) must"
    ) as e:
        check_network(net, find_space(net), (3, 8, 8), 5)
    assert isinstance(e.value.__cause__, RuntimeError)
    assert not isinstance(branch, OneOf) or "bad=2" in str(e.value)


@pytest.mark.parametrize("error", [RuntimeError("first line\nsecond"), KeyError(), ValueError()])
def test_the_reason_is_one_line(error):
    class Fails(Small):
        def forward(self, x):
            raise error

    reason = "first line" if error.args else type(error).__name__
    with pytest.raises(ValueError, match=f"Fails does not run at every choice at its first option: {reason}$"):
        check_network(Fails(), find_space(Small()), (3, 8, 8), 5)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda y: y[:, :4], "returns shape (2, 4) for 2 images of (3, 8, 8); expected logits (2, 5)"),
        (lambda y: y[0], "returns shape (5,) for 2 images of (3, 8, 8); expected logits (2, 5)"),
        (lambda y: (y, y), "returns tuple for 2 images of (3, 8, 8); expected logits (2, 5)"),
    ],
)
def test_logits_of_another_shape_are_named(result, message):
    class Wrong(Small):
        def forward(self, x):
            return result(super().forward(x))

    with pytest.raises(ValueError, match=re.escape(f"Wrong at every choice at its first option {message}")):
        check_network(Wrong(), find_space(Small()), (3, 8, 8), 5)


# -- blocks ------------------------------------------------------------------------------------------


def test_the_blocks_of_a_network_are_its_weighted_parts_with_what_follows_them():
    blocks = find_blocks(Small())
    assert [(b.name, b.members) for b in blocks] == [
        ("stem", ("stem", "act")),
        ("stage.0", ("stage.0",)),
        ("stage.1", ("stage.1",)),
        ("pool", ("pool", "flatten")),
        ("classifier", ("classifier",)),
    ]
    assert [b.weighted for b in blocks] == [True, True, True, False, True]


def test_blocks_exist_where_their_layers_are_used():
    net = Small()
    for arch in find_space(net).enumerate():
        for assignment in (arch.assignment, arch.values):
            present = [b.name for b in find_blocks(net) if b.exists(assignment) and b.name.startswith("stage")]
            assert present == ["stage.0", "stage.1"][: arch["depth"]]


def test_a_block_of_several_clauses_exists_under_any_of_them():
    a, b = Condition("a", (1,)), Condition("b", (2, 3))
    block = Block("x", ("x",), ((a,), (a, b), (b,)), weighted=True)
    found = [block.exists({"a": i, "b": j}) for i, j in ((0, 0), (1, 0), (0, 3), (1, 2))]
    assert found == [False, True, True, True]
    assert not block.exists({})


def test_sequences_within_sequences_are_opened():
    inner = Sequence(Linear(1, 1), Linear(1, 1), depth=Choice("inner", (1, 2)))
    blocks = find_blocks(Sequence(Linear(1, 1), inner, depth=Choice("outer", (1, 2))))
    assert [b.name for b in blocks] == ["0", "1.0", "1.1"]
    outer = Condition("outer", (2,))
    assert [b.when for b in blocks] == [(), ((outer,),), ((outer, Condition("inner", (2,))),)]


def test_only_networks_that_run_their_children_in_order_are_chains():
    class Own(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    assert is_chain(Small()) and is_chain(nn.Sequential(nn.Linear(1, 1)))
    assert not is_chain(Sums(nn.Identity()))
    assert not is_chain(Own(nn.Linear(1, 1)))
    assert not is_chain(nn.Sequential(Sequence(nn.Linear(1, 1)), nn.ModuleList([nn.Linear(1, 1)])))
