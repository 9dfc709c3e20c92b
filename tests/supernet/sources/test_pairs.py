import numpy as np
import pytest
import torch
from PIL import Image

from supernet.sources.pairs import images_of

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


def read(items):
    return images_of(items, items, None, name="mine", flip=False).train


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (GREY, GREY[None]),
        (COLOUR, COLOUR.transpose(2, 0, 1)),
        (Image.fromarray(GREY), GREY[None]),
        (Image.fromarray(COLOUR), COLOUR.transpose(2, 0, 1)),
        (torch.from_numpy(COLOUR.transpose(2, 0, 1).copy()), COLOUR.transpose(2, 0, 1)),
        (torch.from_numpy(GREY), GREY[None]),
        (torch.from_numpy(GREY).float(), GREY[None].astype(np.float32)),
        (GREY[None].astype(np.float64), GREY[None].astype(np.float32)),
    ],
)
def test_every_form_of_image(image, expected):
    part = read([(image, 0), (image, 1)])
    assert np.array_equal(part.x[1], expected)
    assert part.x.dtype == expected.dtype


@pytest.mark.parametrize("one", [1, np.int64(1), np.uint8(1), torch.tensor(1), np.array(1), torch.tensor([1])])
def test_every_form_of_label(one):
    assert read([(GREY, 0), (GREY, one)]).y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "mine: train has no items"),
        ([(GREY, 0), (GREY[:2], 1)], r"item 1 is uint8 of shape \(2, 4\), item 0 is uint8 of shape \(3, 4\)"),
        ([(GREY, 0.5), (GREY, 1)], "item 0 must have an integer label, got 0.5"),
        ([(GREY, "cat"), (GREY, 1)], "item 0 must have an integer label, got 'cat'"),
        ([GREY, GREY], "item 0 must be a pair"),
    ],
)
def test_refused(items, message):
    with pytest.raises(ValueError, match=message):
        read(items)
