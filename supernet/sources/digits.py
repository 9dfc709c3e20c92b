"""The 1,797 handwritten 8x8 digits that scikit-learn carries: the data set that is always there.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
"""

from __future__ import annotations

import numpy as np

from supernet.images import Images, Part
from supernet.split import stratified_split

_TEST_FRACTION = 0.2
_VAL_FRACTION = 0.4  # of the remaining 80 %, so 48/32/20 in all: with fewer, many subnets tie
_WHITE = 16.0


def load_digits(image_size: int | None) -> Images:
    """Give the digits with pixels in [0, 1], (n, 1, 8, 8); their own size, so that `image_size` is left to later."""
    del image_size
    from sklearn import datasets  # takes a second to load

    data = datasets.load_digits()
    x = (data.images[:, None] / _WHITE).astype(np.float32)
    y = data.target.astype(np.int64)
    rest, held = stratified_split(y, _TEST_FRACTION)
    return Images("digits", Part(x[rest], y[rest]), Part(x[held], y[held]), None, 10, False, _VAL_FRACTION)
