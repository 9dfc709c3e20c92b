import numpy as np
import pytest

from supernet.images import Images, class_count, make_part

Y = np.array([0, 1])


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 5, 4), np.uint8, (2, 1, 5, 4)),
        ((2, 5, 4, 3), np.uint8, (2, 3, 5, 4)),
        ((2, 3, 5, 4), np.float32, (2, 3, 5, 4)),
        ((2, 1, 5, 4), np.float64, (2, 1, 5, 4)),
    ],
)
def test_layouts(shape, dtype, expected):
    part = make_part(np.ones(shape, dtype), Y.astype(np.uint8), "x")
    assert part.x.shape == expected
    assert part.x.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert part.y.dtype == np.int64


def test_channels_last_values_are_moved_not_reshaped():
    x = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert np.array_equal(make_part(x, Y, "x").x[1, 2], x[1, :, :, 2])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((2, 5, 4), np.float32), Y, "expected uint8"),
        (np.ones((2, 3, 5, 5), np.uint8), Y, "expected uint8"),
        (np.ones((2, 5, 4), np.int32), Y, "int32"),
        (np.ones((3, 5, 4), np.uint8), Y, "3 images but 2 labels"),
        (np.ones((2, 5, 4), np.uint8), Y[:, None], "labels must be integers of shape"),
        (np.ones((2, 5, 4), np.uint8), Y.astype(float), "labels must be integers"),
        (np.ones((0, 5, 4), np.uint8), Y[:0], "no pixels"),
        (np.array([[[[0.0]]], [[[np.nan]]]]), Y, "image 1 has NaN or infinite pixels"),
        (np.array([[[[1e300]]], [[[0.0]]]]), Y, "image 0 has NaN or infinite pixels"),
    ],
)
def test_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        make_part(x, y, "x")


def test_labels_must_be_class_indices():
    assert class_count(np.array([0, 2, 1, 0]), "x") == 3
    with pytest.raises(ValueError, match="starting at 0, the smallest is 1"):
        class_count(np.array([1, 2]), "x")
    with pytest.raises(ValueError, match="run up to 99"):
        class_count(np.array([0, 99]), "x")


def test_parts_must_agree():
    part = make_part(np.ones((2, 4, 4), np.uint8), Y, "x")
    wide = make_part(np.ones((2, 4, 5), np.uint8), Y, "x")
    strange = make_part(np.ones((2, 4, 4), np.uint8), np.array([0, 7]), "x")
    with pytest.raises(ValueError, match="test images have shape"):
        Images("a", part, wide, None, 2, False, 0.1)
    with pytest.raises(ValueError, match="val labels are out of range: got 7, expected 0 to 1"):
        Images("a", part, part, strange, 2, False, 0.1)
    with pytest.raises(ValueError, match="at least 2 classes"):
        Images("a", part, part, None, 1, False, 0.1)
