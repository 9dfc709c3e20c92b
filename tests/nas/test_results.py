"""What is said of a finished run."""

import dataclasses

import pytest

from nas.config import Settings
from nas.results import _verdict, run_data
from supernet.data import load_data

POINT = {"accuracy": 0.9, "latency_s": {"median": 1.0e-3, "ci95": [0.99e-3, 1.01e-3]}}


@pytest.mark.parametrize(
    ("accuracy", "median_s", "verdict"),
    [
        (0.9, 1.0e-3, "holds"),
        (0.9, 1.029e-3, "holds"),  # within 3 %
        (0.9, 1.06e-3, "slower now"),
        (0.9, 0.93e-3, "faster now"),
        (0.89, 1.0e-3, "accuracy differs"),
    ],
)
def test_verdicts(accuracy, median_s, verdict):
    assert _verdict(POINT, accuracy, median_s, (median_s * 0.99, median_s * 1.01)) == verdict


def test_a_wide_interval_excuses_a_wide_move():
    assert _verdict(POINT, 0.9, 1.06e-3, (0.98e-3, 1.14e-3)) == "holds"


def test_data_given_in_python_are_asked_for_and_others_refused():
    digits = load_data("digits")
    settings = Settings(data="python:mine", data_fingerprint=digits.fingerprint)
    with pytest.raises(ValueError, match="given in Python"):
        run_data(settings)
    assert run_data(settings, digits) is digits
    with pytest.raises(ValueError, match="not those of the run"):
        run_data(settings, dataclasses.replace(digits, x_train=digits.x_train + 1))
