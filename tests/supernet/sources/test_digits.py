import numpy as np

from supernet.sources.digits import load_digits


def test_digits_are_whole_and_scaled():
    images = load_digits(None)
    assert len(images.train.y) + len(images.test.y) == 1797
    assert images.train.x.shape[1:] == (1, 8, 8)
    assert images.train.x.min() == 0.0
    assert images.train.x.max() == 1.0
    assert np.array_equal(np.unique(images.test.y), np.arange(10))
