import numpy as np
import pytest
from torch import nn

from quant_search.policy import (
    PRECISIONS,
    checked_patterns,
    densities,
    describe,
    joint_space,
    policy_choices,
    policy_of,
    uniform,
)
from search_spaces.elastic import Conv2d, Linear, Sequence
from search_spaces.network import Network, find_blocks, find_space
from search_spaces.product import project
from search_spaces.value import Choice

DEPTH = Choice("depth", (0, 1, 2))


class Small(Network):
    """Its stem has a choice of its own that ends as those of a policy do."""

    def __init__(self):
        super().__init__()
        self.rescale = nn.AvgPool2d(2)
        self.stem = Conv2d(3, Choice("stem.precision", (4, 8)) // 4 * 4)
        self.stage = Sequence(Conv2d(4, 4, Choice("kernel", (1, 3))), Conv2d(4, 4), depth=DEPTH)
        self.classifier = Linear(4, 5)


class Plain(Small):
    def __init__(self):
        super().__init__()
        self.stem = Conv2d(3, 4)


BLOCKS = find_blocks(Plain())
SPACE = find_space(Plain())


def test_every_weighted_block_has_a_choice_where_it_exists():
    choices = policy_choices(BLOCKS, ("fp32", "int8"))
    names = ["stem.precision", "stage.0.precision", "stage.1.precision", "classifier.precision"]
    assert [c.name for c in choices] == names
    assert {c.options for c in choices} == {("int8", "fp32")}  # the cheaper one first, whatever the order asked for
    assert [c.when for c in choices] == [(), ((DEPTH.among(1, 2),),), ((DEPTH.among(2),),), ()]
    assert policy_choices(BLOCKS, ("int8", "fp32")) == choices


def test_a_joint_space_counts_policies_of_existing_blocks_only():
    space = joint_space(SPACE, BLOCKS, PRECISIONS)
    assert space.size == 2**2 * 1 + 2 * 2**3 + 2 * 2**4 == sum(1 for _ in space.enumerate())
    assert {project(arch, SPACE) for arch in space.enumerate()} == set(SPACE.enumerate())


def test_a_single_precision_leaves_the_space_as_it_is():
    for precision in PRECISIONS:
        assert joint_space(SPACE, BLOCKS, (precision,)) is SPACE
        policy = policy_of(SPACE.architecture({"depth": 1, "kernel": 3}), BLOCKS, (precision,))
        assert policy == dict.fromkeys(("stem", "stage.0", "classifier"), precision)
        assert describe(policy) == precision


def test_the_policy_of_an_architecture_has_the_blocks_that_exist():
    space = joint_space(SPACE, BLOCKS, PRECISIONS)
    for arch in space.enumerate():
        policy = policy_of(arch, BLOCKS, PRECISIONS)
        assert list(policy) == [b.name for b in BLOCKS if b.has_weights(arch.values)]
        assert all(arch[f"{name}.precision"] == precision for name, precision in policy.items())


def test_uniform_changes_the_policy_alone():
    space = joint_space(SPACE, BLOCKS, PRECISIONS)
    for row in space.sample(20, np.random.default_rng(0)):
        arch = space.row(row)
        for precision in PRECISIONS:
            changed = uniform(arch, precision)
            assert project(changed, SPACE) == project(arch, SPACE)
            assert set(policy_of(changed, BLOCKS, PRECISIONS).values()) == {precision}
            assert uniform(changed, precision) == changed
    assert uniform(SPACE.largest(), "int8") == SPACE.largest()


def test_a_users_choice_of_such_a_name_is_no_policy():
    space = find_space(Small())
    assert uniform(space.largest(), "int8") == space.largest()
    blocks = [block for block in find_blocks(Small()) if block.name != "stem"]
    joint = joint_space(space, blocks, PRECISIONS)
    assert set(policy_of(joint.largest(), blocks, PRECISIONS)) == {"stage.0", "stage.1", "classifier"}
    assert uniform(joint.largest(), "int8")["stem.precision"] == 8


def test_unknown_and_doubled_precisions_are_refused():
    with pytest.raises(ValueError, match="unknown precision 'int4': there are fp32, int8"):
        policy_choices(BLOCKS, ("fp32", "int4"))
    for precisions in ((), ("fp32", "fp32")):
        with pytest.raises(ValueError, match="each once"):
            policy_choices(BLOCKS, precisions)
    with pytest.raises(ValueError, match="got 'int4'"):
        uniform(joint_space(SPACE, BLOCKS, PRECISIONS).largest(), "int4")


@pytest.mark.parametrize(
    ("precisions", "words"),
    [(["int8"], "int8"), (["fp32", "fp32"], "fp32"), (["int8", "fp32", "int8"], "int8 2/3"), ([], "fp32")],
)
def test_policies_in_a_word(precisions, words):
    assert describe({str(i): p for i, p in enumerate(precisions)}) == words


def test_patterns_are_told_by_their_names_and_channels_by_the_usual_densities():
    assert checked_patterns(["dense"]) == () and checked_patterns([]) == ()
    assert checked_patterns(["channels", " 2:4"]) == ("2:4", "channels:0.5", "channels:0.75")
    assert checked_patterns(["channels:.25"]) == ("channels:0.25",)
    assert densities(("channels:0.25", "2:4", "channels:0.5")) == (0.25, 0.5)
    for wrong in (["channels:0.5", "channels"], ["2:4", "2:4"]):
        with pytest.raises(ValueError, match="given once each"):
            checked_patterns(wrong)
    with pytest.raises(ValueError, match="unknown sparsity 'chanels'"):
        checked_patterns(["chanels"])
