import numpy as np
import pytest

from quant_search.sparsity.patterns import Blocks, Channels, Dense, NofM, Unstructured, mask

RISING = np.arange(1, 25, dtype=np.float32).reshape(4, 6)  # the last weight is the largest


def test_unstructured_zeros_are_the_smallest_wherever_they_stand():
    kept = mask(-RISING, Unstructured(0.75))
    assert kept.sum() == 6 and kept[3].all()
    assert mask(RISING, Unstructured(0.99)).sum() == 1  # never all


def test_scores_decide_where_they_are_given():
    assert mask(RISING, Unstructured(0.75), scores=1 / RISING)[0].all()


def test_n_of_m_goes_along_input_channels_at_every_tap():
    weight = np.zeros((1, 4, 1, 2), np.float32)
    weight[0, :, 0, 0], weight[0, :, 0, 1] = (4, 3, 2, 1), (1, 2, 3, 4)
    kept = mask(weight, NofM(2, 4))
    assert kept[0, :, 0, 0].tolist() == [True, True, False, False]
    assert kept[0, :, 0, 1].tolist() == [False, False, True, True]


def test_a_tail_of_n_of_m_counts_as_filled_up_with_zeros():
    kept = mask(RISING, NofM(2, 4))  # 6 = 4 + a tail of 2
    assert kept.tolist() == [[False, False, True, True, True, True]] * 4
    assert mask(np.ones((2, 3)), NofM(2, 4)).tolist() == [[True, True, False]] * 2
    assert mask(np.ones((2, 1)), NofM(2, 4)).all()


def test_blocks_at_the_ends_are_cut_short_and_count_as_whole():
    weight = np.ones((4, 6), np.float32)  # 2 x 2 blocks of 3 x 4: of 12, 6, 4 and 2 weights
    kept = mask(weight, Blocks(3, 4, 0.5))
    assert kept[:3].all() and not kept[3:].any()
    weight[3, 4:] = 3
    kept = mask(weight, Blocks(3, 4, 0.5))
    assert kept[:3, :4].all() and kept[3, 4:].all() and kept.sum() == 14


def test_channels_go_whole_and_one_stays():
    assert mask(RISING, Channels(0.5)).tolist() == [[False] * 6, [False] * 6, [True] * 6, [True] * 6]
    assert mask(RISING, Channels(0.01)).any(1).tolist() == [False, False, False, True]


def test_of_equal_weights_the_first_are_kept():
    ones = np.ones((4, 4), np.float32)
    assert mask(ones, Unstructured(0.75)).ravel().tolist() == [True] * 4 + [False] * 12
    assert mask(ones, NofM(1, 2)).tolist() == [[True, False, True, False]] * 4
    assert mask(ones, Channels(0.5)).any(1).tolist() == [True, True, False, False]
    assert mask(ones, Blocks(2, 2, 0.5)).any(1).tolist() == [True, True, False, False]


def test_layers_that_do_not_fill_a_group_or_block_do_not_fit():
    assert NofM(2, 4).fits((8, 4, 3, 3)) and not NofM(2, 4).fits((8, 3, 3, 3))
    assert Blocks(16, 4, 0.5).fits((16, 4)) and not Blocks(16, 4, 0.5).fits((15, 4))
    assert not Blocks(16, 4, 0.5).fits((16, 3)) and Unstructured(0.5).fits((1, 1))


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_shares_lie_between_0_and_1(share):
    for make in (Channels, Unstructured, lambda s: Blocks(16, 4, s)):
        with pytest.raises(ValueError, match="must lie between 0 and 1, got"):
            make(share)


def test_sizes_that_mean_nothing_are_refused():
    for n, m in ((0, 4), (4, 4), (5, 4)):
        with pytest.raises(ValueError, match="1 <= N < M"):
            NofM(n, m)
    with pytest.raises(ValueError, match="one output and one input channel"):
        Blocks(0, 4, 0.5)


def test_scores_are_checked_before_anything_is_masked():
    with pytest.raises(ValueError, match=r"shape of the weight, \(4, 6\), got \(6, 4\)"):
        mask(RISING, Dense(), RISING.T)
    for wrong in (-RISING, RISING * np.nan):
        with pytest.raises(ValueError, match="finite and not negative"):
            mask(RISING, Dense(), wrong)
    with pytest.raises(ValueError, match=r"got the shape \(24,\)"):
        mask(RISING.ravel(), Dense())
