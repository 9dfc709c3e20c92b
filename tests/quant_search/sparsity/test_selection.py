import numpy as np
import pytest
from sparse_subject import digits_model, train_examples

from quant_search.sparsity.channels import ChannelGroup, Part, channel_groups, prune_channels
from quant_search.sparsity.selection import (
    adaptive_keep,
    best_units,
    counts_of,
    nearest_count,
    score_units,
    uniform_keep,
    unit_scores,
)


def group(size, width=None, parts=()):
    return ChannelGroup("g", ("g",), size, width or size, parts)


def test_scores_of_a_unit_are_those_of_all_weights_that_make_it():
    parts = (
        Part("a", "wa", 0, (0, 1, 2), "made"),
        Part("b", "wb", 0, (2, -1, 0, 0), "made"),
        Part("c", "wa", 1, (0, 1, 2), "read"),
    )
    scores = {"wa": np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), "wb": np.array([[10.0], [99.0], [20.0], [30.0]])}
    assert unit_scores(group(3, 4, parts), scores).tolist() == [52, 4, 16]


def test_counts_leave_multiples_of_channels_and_all():
    assert counts_of(group(20), 8) == [8, 16, 20] and counts_of(group(16), 8) == [8, 16]
    assert counts_of(group(5), 8) == [5] and counts_of(group(3)) == [1, 2, 3]
    assert counts_of(group(8, 32), 16) == [4, 8]  # a unit is four channels
    with pytest.raises(ValueError, match="multiples of 1 or more, got 0"):
        counts_of(group(8), 0)


def test_the_nearest_count_is_taken():
    assert [nearest_count(group(32), density, 8) for density in (0.01, 0.3, 0.6, 0.9, 1)] == [8, 8, 16, 32, 32]
    for density in (0, 1.1):
        with pytest.raises(ValueError, match="density of channels must be above 0"):
            nearest_count(group(8), density)


def test_the_best_units_are_in_order():
    assert best_units(np.array([1.0, 5.0, 3.0, 5.0]), 2) == (1, 3) and best_units(np.ones(4), 2) == (0, 1)


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "lamp"])
def test_uniform_and_adaptive_densities_make_networks(criterion):
    model = digits_model()
    groups = channel_groups(model)
    scores = score_units(model, groups, criterion, train_examples(batch=600))
    uniform = uniform_keep(groups, scores, 0.5, 8)
    assert {name: len(units) for name, units in uniform.items()} == {"/0/Conv": 8, "/2/Conv": 16, "/6/Conv": 16}
    adaptive = adaptive_keep(groups, scores, 0.5)
    assert sum(map(len, adaptive.values())) == 40
    assert set(uniform["/0/Conv"]) <= set(range(16))
    for keep in (uniform, adaptive):
        sizes = {g.name: g.size for g in channel_groups(prune_channels(model, keep))}
        assert sizes == {name: len(units) for name, units in keep.items()}


def test_groups_of_weights_that_differ_by_a_factor_alone_get_equal_densities():
    small, large = (ChannelGroup(name, (name,), 16, 16, ()) for name in ("s", "l"))
    scores = np.random.default_rng(0).random(16)
    keep = adaptive_keep([small, large], {"s": scores, "l": 1000 * scores}, 0.5)
    assert keep["s"] == keep["l"] == best_units(scores, 8)
    assert adaptive_keep([], {}, 0.5) == {}


def test_unknown_criteria_are_refused():
    with pytest.raises(ValueError, match="unknown criterion 'luck': there are magnitude, taylor, lamp"):
        score_units(digits_model(), [], "luck")
