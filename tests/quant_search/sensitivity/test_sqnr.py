import numpy as np

from quant_search.sensitivity.sqnr import decibels, noise_to_signal, sqnr
from quant_search.sensitivity.subject import Subject, by_layer
from tests.quant_search.small_digits import digits, trained


def test_noise_over_signal_in_decibels():
    y = np.array([[3.0, -4.0], [0.0, 5.0]], np.float32)
    assert noise_to_signal(y, y) == 0
    np.testing.assert_allclose(noise_to_signal(1.1 * y, y), 0.01, rtol=1e-5)
    np.testing.assert_allclose(decibels(np.array([0.01, 1.0])), [20, 0])
    assert decibels(np.array(0.0)) == np.inf and noise_to_signal(np.zeros((1, 2)), np.zeros((1, 2))) == 0


def test_a_bit_of_weights_is_worth_six_decibels():
    options = ("w7", "w6", "w5", "w4")
    found = sqnr(Subject(trained(), by_layer(trained()), options, digits()[0][:200]))
    gained = -np.diff(decibels(found.damage), axis=1).mean(axis=1)
    assert np.all(np.abs(gained - 6.02) < 2) and abs(gained.mean() - 6.02) < 1
