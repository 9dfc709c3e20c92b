import pytest

from search_spaces.product import product, project
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2))
SPACE = SearchSpace("net", (DEPTH, Choice("kernel", (3, 5), DEPTH.among(2))))
FIRST = Choice("block1.precision", ("int8", "fp32"))
SECOND = Choice("block2.precision", ("int8", "fp32"), DEPTH.among(2))
JOINT = product("joint", SPACE, (FIRST, SECOND))


def test_a_product_counts_the_pairs_that_exist():
    # depth 1: one network, one precision; depth 2: two networks, two precisions
    assert JOINT.name == "joint" and len(JOINT) == 4
    assert JOINT.size == 1 * 2 + 2 * 4


def test_every_architecture_of_a_product_projects_onto_its_factor():
    assert {project(arch, SPACE) for arch in JOINT.enumerate()} == set(SPACE.enumerate())


def test_a_projection_keeps_the_values():
    arch = JOINT.architecture({"depth": 2, "kernel": 5, "block1.precision": "fp32", "block2.precision": "int8"})
    assert project(arch, SPACE).values == {"depth": 2, "kernel": 5}
    assert project(arch, SearchSpace("policy", (FIRST,))).values == {"block1.precision": "fp32"}


def test_a_name_taken_in_the_first_factor_is_refused():
    with pytest.raises(ValueError, match="space 'joint' has two choices named 'depth': give each its own name"):
        product("joint", SPACE, (DEPTH,))


def test_a_factor_with_other_options_is_refused():
    arch = JOINT.largest()
    with pytest.raises(ValueError, match=r"choice 'depth' has options \(1, 3\), got 2"):
        project(arch, SearchSpace("net", (Choice("depth", (1, 3)),)))
