import numpy as np
import pytest

from predictors.held import LinearPrior, fit_held

PRIOR = LinearPrior(np.array([1.0, 2.0]), np.array([0.5, 1.0]), np.array([False, True]))
RNG = np.random.default_rng(0)
TERMS = RNG.uniform(1, 3, (40, 2))


def test_data_overrule_the_prior():
    found = fit_held(TERMS, TERMS @ [3.0, 0.5], PRIOR)
    np.testing.assert_allclose(found.coefficients, [3.0, 0.5], atol=0.1)
    assert np.abs(found.left_out).max() < 0.02


def test_what_data_leave_open_stays_with_the_prior():
    terms = np.column_stack([TERMS[:, 0], np.zeros(len(TERMS))])
    np.testing.assert_allclose(fit_held(terms, terms @ [1.5, 0.0], PRIOR).coefficients, [1.5, 2.0], rtol=0.01)


def test_only_free_coefficients_become_negative():
    first, second = TERMS + np.array([3, 0]), TERMS + np.array([0, 3])
    assert fit_held(second, second @ [3.0, -0.3], PRIOR).coefficients[1] < 0
    assert fit_held(first, first @ [-0.3, 4.0], PRIOR).coefficients[0] == pytest.approx(0, abs=1e-9)


def test_left_out_residuals_are_those_of_fits_without_the_point():
    truth = TERMS @ [3.0, 0.5] * np.exp(0.05 * RNG.normal(size=len(TERMS)))
    found = fit_held(TERMS, truth, PRIOR)
    for i in range(5):
        others = np.arange(len(TERMS)) != i
        without = fit_held(TERMS[others], truth[others], PRIOR).coefficients
        assert found.left_out[i] == pytest.approx(TERMS[i] @ without / truth[i] - 1, abs=1e-3)


@pytest.mark.parametrize("truth", [[], [1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_truths_that_make_no_sense_are_refused(truth):
    with pytest.raises(ValueError, match="needs observations"):
        fit_held(TERMS[:2] if truth else TERMS[:0], np.array(truth), PRIOR)
