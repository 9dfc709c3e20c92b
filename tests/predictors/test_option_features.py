import numpy as np

from predictors.option_features import is_ordered, option_features
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2))
SPACE = SearchSpace(
    "small",
    [
        DEPTH,
        Choice("kernel0", (3, 5, 7)),
        Choice("kernel1", (3, 5, 7), DEPTH.among(2)),
        Choice("op", ("none", "skip")),
        Choice("fixed", (8,)),
    ],
)


def test_ordered_options_are_a_thermometer_and_others_one_by_one():
    found = option_features(SPACE)(SPACE.canonical(np.array([[1, 2, 1, 1, 0], [0, 1, 2, 0, 0]])))
    # depth>=2 | kernel0>=5, 7 | kernel1>=3, 5, 7 | op none, skip | then counts of >=5 and >=7
    both = [0.0, 0.0, 0.0]
    np.testing.assert_allclose(
        found,
        [[1, 1, 1, 1, 1, 0, 0, 1, 2 / np.sqrt(2), 1 / np.sqrt(2)], [0, 1, 0, *both, 1, 0, 1 / np.sqrt(2), 0]],
        rtol=1e-6,
    )
    assert found.dtype == np.float32


def test_columns_know_their_choice_and_share_options():
    features = option_features(SPACE)
    assert features.columns == ((0, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1))
    assert features.option[1] == features.option[4] == features.option[8] != features.option[2]
    assert features.choice[8] == features.choice[9] not in features.choice[:8]


def test_which_choices_are_ordered():
    assert is_ordered(Choice("a", (1, 2, 4))) and is_ordered(Choice("b", (False, True)))
    assert not is_ordered(Choice("c", (4, 2))) and not is_ordered(Choice("d", ("x", "y")))


def test_a_space_without_anything_to_choose_has_one_constant_column():
    space = SearchSpace("fixed", [Choice("width", (8,))])
    assert option_features(space)(np.zeros((3, 1), dtype=int)).tolist() == [[1.0]] * 3
