import numpy as np
import pytest

from quant_search.sparsity.criterion import Examples


def test_examples_need_images_and_as_many_classes():
    images = np.zeros((3, 1, 2, 2), np.float32)
    assert Examples(images, np.zeros(3, int)).batch == 32
    for wrong in ((images[:0], np.zeros(0, int)), (images, np.zeros(2, int)), (images, np.zeros(3, int), 0)):
        with pytest.raises(ValueError, match="examples are images with as many classes"):
            Examples(*wrong)
