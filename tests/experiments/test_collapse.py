import numpy as np
import pytest

from experiments.collapse import look, short
from search_spaces.equal_cells import OPERATIONS


def test_a_moment_is_the_most_probable_cell_and_what_it_reaches():
    probabilities = np.full((6, 5), 0.1)
    probabilities[:, OPERATIONS.index("skip_connect")] = 0.6
    probabilities[5] = np.eye(5)[OPERATIONS.index("nor_conv_3x3")]
    skips = (1, 1, 1, 1, 1, 4)
    found = look(0.5, probabilities, {skips: 54.0, (4,) * 6: 94.0, (0,) * 6: 10.0, (3,) * 6: 93.0})
    assert found["cell"] == ["skip_connect"] * 5 + ["nor_conv_3x3"] and found["skips"] == 5
    assert (found["progress"], found["accuracy"], found["better"]) == (0.5, 54.0, 0.5)
    assert found["probabilities"]["skip_connect"] == pytest.approx(0.5)


def test_a_cell_is_short():
    assert short(OPERATIONS) == "- skip pool 1x1 3x3"
