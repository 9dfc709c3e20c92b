import copy
import pickle
import re

import numpy as np
import pytest

from search_spaces.space import INDEX, MOST_OPTIONS, Architecture, SearchSpace
from search_spaces.value import Choice, Condition

DEPTH = Choice("depth", (1, 2, 3))
SE = Choice("se", (False, True))
KERNEL = Choice("kernel", (3, 5), DEPTH.among(2, 3))
DILATION = Choice("dilation", (1, 2), ((KERNEL.among(3),), (SE.among(True),)))
SPACE = SearchSpace("small", (DEPTH, SE, KERNEL, DILATION))


def test_an_inactive_choice_stands_at_its_first_option():
    arch = SPACE.row([0, 0, 1, 1])
    assert arch.indices == (0, 0, 0, 0)
    assert arch.values == {"depth": 1, "se": False}
    assert arch["kernel"] == 3
    assert str(arch) == "depth=1 se=False"


def test_a_condition_on_a_first_option_asks_that_the_choice_is_active():
    # kernel stands at 3 in both, but is inactive in the first
    assert "dilation" not in SPACE.row([0, 0, 0, 1]).values
    assert SPACE.row([1, 0, 0, 1]).values["dilation"] == 2
    assert SPACE.row([0, 1, 0, 1]).values["dilation"] == 2  # by the other clause


def test_the_size_of_a_space_with_overlapping_clauses_is_exact():
    # depth 1: se off 1, on 2; depth 2 and 3: kernel 3: 2 + 2, kernel 5: 1 + 2
    assert SPACE.size == 3 + 2 * 7
    assert sum(1 for _ in SPACE.enumerate()) == SPACE.size


def test_many_parents_of_one_choice_are_counted_without_walking_them():
    layers = [Choice(f"op{i}", ("a", "b", "c")) for i in range(40)]
    shared = Choice("act", ("relu", "gelu"), tuple((layer.among("b"),) for layer in layers))
    assert SearchSpace("wide", (*layers, shared)).size == 2 * 3**40 - 2**40


def test_architectures_are_values():
    arch = SPACE.architecture({"depth": 2, "se": True, "kernel": 5, "dilation": 1})
    same = pickle.loads(pickle.dumps(copy.deepcopy(arch)))  # noqa: S301
    assert same == arch and hash(same) == hash(arch) and same in {arch}
    other = SearchSpace("other", SPACE.choices)
    assert arch != Architecture(other, arch.indices)
    assert arch != arch.indices
    assert sorted([SPACE.largest(), SPACE.smallest()]) == [SPACE.smallest(), SPACE.largest()]
    assert other != SPACE and hash(SPACE) == hash(SearchSpace("small", SPACE.choices))
    assert repr(SPACE) == "SearchSpace('small', 4 choices)"


def test_inactive_choices_may_be_left_out_or_given():
    values = {"depth": 1, "se": False}
    assert SPACE.architecture(values) == SPACE.architecture({**values, "kernel": 5, "dilation": 2})


def test_the_corners_of_a_space():
    assert SPACE.smallest().indices == (0, 0, 0, 0)
    assert SPACE.largest().indices == (2, 1, 1, 1)
    assert SPACE.scaled(0) == SPACE.smallest() and SPACE.scaled(1) == SPACE.largest()


def test_scaling_takes_the_nearest_option_and_the_dearer_of_two():
    space = SearchSpace("s", [Choice(f"c{k}", tuple(range(k))) for k in range(1, 7)])
    assert space.scaled(0.5).indices == (0, 1, 1, 2, 2, 3)
    assert space.scaled(0.49).indices == (0, 0, 1, 1, 2, 2)


def test_sampling_is_uniform_per_choice_and_repeatable():
    space = SearchSpace("s", (Choice("a", (0, 1, 2)), Choice("b", (0, 1))))
    rows = space.sample(30_000, np.random.default_rng(0))
    assert rows.dtype == INDEX and rows.flags.f_contiguous
    assert np.allclose(np.bincount(rows[:, 0]) / len(rows), 1 / 3, atol=0.01)
    assert np.allclose(np.bincount(rows[:, 1]) / len(rows), 1 / 2, atol=0.01)
    assert np.array_equal(rows, space.sample(30_000, np.random.default_rng(0)))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int64, np.uint64])
def test_any_integers_are_made_canonical_in_a_copy(dtype):
    given = np.array([[0, 0, 1, 1], [2, 1, 1, 1]], dtype=dtype)
    before = given.copy()
    rows = SPACE.canonical(given)
    assert rows.dtype == INDEX and rows.tolist() == [[0, 0, 0, 0], [2, 1, 1, 1]]
    assert np.array_equal(given, before)


def test_empty_populations_stay_empty():
    empty = SPACE.sample(0, np.random.default_rng(0))
    assert SPACE.canonical(empty).shape == SPACE.active(empty).shape == (0, 4)


def test_the_most_options_a_choice_may_have_are_drawn_and_made_canonical():
    space = SearchSpace("s", [Choice("a", range(MOST_OPTIONS))])
    assert space.largest().values == {"a": MOST_OPTIONS - 1}
    assert space.sample(100, np.random.default_rng(0)).min() >= 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchSpace("s", ()), "space 's' has no choices: give at least one layer argument a Choice"),
        (lambda: SearchSpace("s", (SE, DEPTH, SE)), "space 's' has two choices named 'se': give each its own name"),
        (lambda: SearchSpace("s", (KERNEL, DEPTH)), "choice 'kernel' depends on 'depth', which does not stand before"),
        (lambda: SearchSpace("s", (KERNEL,)), "choice 'kernel' depends on 'depth', which does not stand before it"),
        (
            lambda: SearchSpace("s", (DEPTH, Choice("a", (1,), Condition("depth", (7,))))),
            "choice 'depth' has options (1, 2, 3), got 7",
        ),
        (
            lambda: SearchSpace("s", (DEPTH, Choice("a", (1,), Condition("depth", ())))),
            "choice 'a' depends on no option of 'depth': name at least one",
        ),
        (lambda: SearchSpace("s", (Choice("a", range(2**14 + 1)),)), "choice 'a' has 16385 options, at most 16384 fit"),
        (lambda: SPACE.row([0, 0, 2, 0]), "choice 'kernel' has options 0 to 1, got index 2"),
        (lambda: SPACE.row([0, -1, 0, 0]), "choice 'se' has options 0 to 1, got index -1"),
        (lambda: SPACE.row([2**16, 0, 0, 0]), "choice 'depth' has options 0 to 2, got index 65536"),
        (lambda: SPACE.row([0, 0, 0]), "space 'small' has 4 choices, got an array of shape (1, 3)"),
        (lambda: SPACE.canonical(np.zeros((1, 1, 4), int)), "space 'small' has 4 choices, got an array of shape"),
        (lambda: SPACE.row([0.5, 0, 0, 0]), "option indices are whole numbers, got float64: round them"),
        (lambda: SPACE.architecture({"deep": 1}), "space 'small' has no choice 'deep'; it has depth, se, kernel"),
        (lambda: SPACE.architecture({"depth": 5}), "choice 'depth' has options (1, 2, 3), got 5"),
        (lambda: SPACE.architecture({"depth": 2, "se": 1}), "choice 'se' has options (False, True), got 1"),
        (
            lambda: SPACE.architecture({"depth": 2, "se": True}),
            "choice 'kernel' of space 'small' is active but has no value",
        ),
        (lambda: SPACE.scaled(1.5), "a scale lies between 0 and 1, got 1.5"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match="width"):
        SPACE.smallest()["width"]


def test_an_option_that_is_not_offered_gives_way_to_the_last():
    size = Choice("size", (1, 2, 3))
    part = Choice("part", ("few", "half", "all"), size.among(2, 3), (size.among(3), (), ()))
    space = SearchSpace("offers", [size, part, Choice("other", (0, 1))])
    found = [arch.values for arch in space.enumerate()]
    assert {(v["size"], v.get("part")) for v in found} == {
        *[(1, None), (2, "half"), (2, "all"), (3, "few"), (3, "half"), (3, "all")]
    }
    assert space.size == len(found) == 12
    assert space.architecture({"size": 2, "part": "few", "other": 0})["part"] == "all"
    rows = space.sample(500, np.random.default_rng(0))
    assert np.array_equal(space.canonical(rows), rows) and len(np.unique(rows, axis=0)) == 12
    with pytest.raises(ValueError, match="the last one that it always is"):
        Choice("part", ("few", "all"), offered=((), size.among(3)))
    with pytest.raises(ValueError, match="does not stand before it"):
        SearchSpace("offers", [part, size])
