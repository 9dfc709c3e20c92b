import numpy as np
import pytest

from predictors.training import training_order


def test_any_order_of_the_data_gives_the_same_rows():
    rng = np.random.default_rng(0)
    population, targets = rng.integers(3, size=(40, 4)), rng.integers(5, size=40).astype(float)
    shuffle = rng.permutation(40)
    a, b = training_order(population, targets), training_order(population[shuffle], targets[shuffle])
    assert np.array_equal(population[a], population[shuffle][b]) and np.array_equal(targets[a], targets[shuffle][b])
    assert population[a].tolist() == sorted(population.tolist())


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([1.0], "at least 2 architectures and one target of each, got 1 architectures"),
        ([1.0, 2.0], r"got 3 architectures and targets of shape \(2,\)"),
        ([1.0, np.nan, 2.0], "must be finite, got nan at position 1: leave failed ones out"),
        ([1.0, 2.0, -np.inf], "got -inf at position 2"),
    ],
)
def test_what_cannot_be_fitted_is_refused(targets, words):
    rows = np.zeros((1 if len(targets) == 1 else 3, 2), dtype=int)
    with pytest.raises(ValueError, match=words):
        training_order(rows, np.array(targets))
