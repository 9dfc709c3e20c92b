import numpy as np
import pytest

from quant_search.formats.granularity import (
    PER_TENSOR,
    Granularity,
    extremes,
    join,
    parse_granularity,
    per_channel,
    per_group,
    split,
)

EVERY = [PER_TENSOR, per_channel(0), per_channel(-1), per_group(0, 2), per_group(1, 3), per_group(-1, 32)]


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_what_is_split_is_joined_again(granularity):
    for shape in ((4, 6), (5, 7), (2, 5, 3, 3), (3, 0), (1, 1)):
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        blocks, layout = split(values, granularity)
        np.testing.assert_array_equal(join(blocks, layout, shape), values)
        assert np.prod(layout.broadcast) == np.prod(granularity.scale_shape(shape))


def test_shapes_of_scales_are_those_of_onnx():
    shape = (6, 70, 3)
    assert PER_TENSOR.scale_shape(shape) == ()
    assert per_channel(1).scale_shape(shape) == (70,) == per_channel(-2).scale_shape(shape)
    assert per_group(1, 32).scale_shape(shape) == (6, 3, 3)  # the last group has 6
    assert per_group(0, 100).scale_shape(shape) == (1, 70, 3)


def test_extremes_are_of_what_shares_a_scale_and_hold_zero():
    values = np.array([[1, 2, 3, -4, 5], [-1, -2, -3, -4, -5]], np.float32)
    low, high = extremes(values, per_group(1, 2))
    np.testing.assert_array_equal(low, [[0, -4, 0], [-2, -4, -5]])
    np.testing.assert_array_equal(high, [[2, 3, 5], [0, 0, 0]])
    low, high = extremes(values, per_channel())
    np.testing.assert_array_equal([low, high], [[-4, -5], [5, 0]])
    assert extremes(values[:, :0], per_channel())[0].tolist() == [0, 0]  # channels without values


@pytest.mark.parametrize("granularity", EVERY, ids=str)
def test_names_are_read_back(granularity):
    assert parse_granularity(str(granularity)) == granularity


def test_what_cannot_be_is_refused():
    for name in ("", "channels", "channel", "channel:x", "group:1"):
        with pytest.raises(ValueError, match=r"unknown granularity .* write tensor, channel:AXIS or group:AXIS:SIZE"):
            parse_granularity(name)
    for axis, size in ((None, 4), (1, 0)):
        with pytest.raises(ValueError, match=f"got axis {axis}, size {size}"):
            Granularity(axis, size)
    for granularity in (per_channel(2), per_group(-3, 2)):
        with pytest.raises(ValueError, match=r"needs axis -?\d, got a tensor of shape \(3, 4\)"):
            split(np.ones((3, 4)), granularity)
