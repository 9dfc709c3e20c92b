import numpy as np

from quant_search.sensitivity.sqnr import noise_to_signal, sqnr
from quant_search.sensitivity.subject import Subject, by_layer
from tests.quant_search.small_digits import digits, trained


def test_noise_over_signal():
    y = np.array([[3.0, -4.0], [0.0, 5.0]], np.float32)
    assert noise_to_signal(y, y) == 0
    np.testing.assert_allclose(noise_to_signal(1.1 * y, y), 0.01, rtol=1e-5)
    assert noise_to_signal(np.zeros((1, 2)), np.zeros((1, 2))) == 0


def test_a_bit_of_weights_is_worth_six_decibels():
    options = ("w7", "w6", "w5", "w4")
    found = sqnr(Subject(trained(), by_layer(trained()), options, digits()[0][:200]))
    gained = 10 * np.diff(np.log10(found.damage), axis=1).mean(axis=1)  # decibels
    assert np.all(np.abs(gained - 6.02) < 2) and abs(gained.mean() - 6.02) < 1
