"""A data set in the units that a network was trained on."""

import numpy as np
import pytest

from nas.pixels import in_pixels
from supernet.data import Dataset

RAW = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(np.float32)
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


def dataset():
    mean, std = (np.array(part, np.float32)[:, None, None] for part in (MEAN, STD))
    x, y = (RAW / 255 - mean) / std, np.arange(6) % 2
    return Dataset("drawn", x, y, x, y, x, y, 2, MEAN, STD, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unit", RAW / 255),
        ("raw", RAW),
        ("symmetric", RAW / 127.5 - 1),
        ("127/128", (RAW - 127) / 128),
        ("imagenet", (RAW / 255 - np.array([[[0.485]], [[0.456]], [[0.406]]])) / [[[0.229]], [[0.224]], [[0.225]]]),
    ],
)
def test_pixels_in_other_units(text, expected):
    found = in_pixels(dataset(), text)
    for x in (found.x_train, found.x_val, found.x_test):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-3)
    again = np.array(found.std)[:, None, None] * found.x_val + np.array(found.mean)[:, None, None]
    np.testing.assert_allclose(again, RAW / 255, atol=1e-5)


def test_own_units_are_the_default():
    given = dataset()
    assert in_pixels(given, "data") is given


@pytest.mark.parametrize("text", ["imagnet", "127/0", "1,2,3", ""])
def test_unknown_units_are_refused(text):
    with pytest.raises(ValueError, match=r"unknown pixels .*127/128"):
        in_pixels(dataset(), text)


def test_units_of_three_channels_are_not_for_one():
    x, y = dataset().x_train[:, :1], dataset().y_train
    grey = Dataset("grey", x, y, x, y, x, y, 2, (0.5,), (0.2,), False)
    with pytest.raises(ValueError, match="3 channels, and the images have 1"):
        in_pixels(grey, "imagenet")
