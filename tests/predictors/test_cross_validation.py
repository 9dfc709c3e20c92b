import numpy as np
import pytest

from predictors.cross_validation import left_out_predictions
from predictors.protocol import Prediction


class Remembering:
    """Says how many points it has seen, and whether it knows a row."""

    def __init__(self, rows, targets):
        self.known = {tuple(row) for row in rows.tolist()}
        self.targets = targets

    def predict(self, rows):
        seen = np.array([float(tuple(row) in self.known) for row in rows.tolist()])
        return Prediction(np.full(len(rows), self.targets.mean()), 1 + seen)


def test_no_point_is_predicted_by_a_fit_that_has_seen_it_and_results_stand_in_the_given_order():
    rows, targets = np.random.default_rng(0).permutation(23)[:, None], np.arange(23.0)
    found = left_out_predictions(Remembering, rows, targets, folds=23)
    assert (found.std == 1).all()
    np.testing.assert_allclose(found.mean, (targets.sum() - targets) / 22)


@pytest.mark.parametrize(("n", "folds", "words"), [(2, 5, "at least 3"), (9, 1, "at least 2 folds, got 1")])
def test_what_cannot_be_left_out_is_refused(n, folds, words):
    with pytest.raises(ValueError, match=words):
        left_out_predictions(Remembering, np.arange(n)[:, None], np.zeros(n), folds)
