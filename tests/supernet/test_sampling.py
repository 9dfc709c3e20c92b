import numpy as np
import pytest
from small_supernet import small_net

from search_spaces.network import find_space
from supernet.sampling import sandwich


def test_contains_both_ends_and_randoms():
    space = find_space(small_net())
    drawn = sandwich(space, np.random.default_rng(0), randoms=3)
    assert drawn[0] == space.largest()
    assert drawn[1] == space.smallest()
    assert len(drawn) == 5


def test_randoms_reach_the_whole_space_and_follow_the_generator():
    space = find_space(small_net())
    draw = lambda seed: sandwich(space, np.random.default_rng(seed), randoms=60)  # noqa: E731
    assert set(draw(0)) == set(space.enumerate())
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_no_randoms():
    space = find_space(small_net())
    assert len(sandwich(space, np.random.default_rng(0), randoms=0)) == 2
    with pytest.raises(ValueError, match="randoms must be at least 0, got -1"):
        sandwich(space, np.random.default_rng(0), randoms=-1)
