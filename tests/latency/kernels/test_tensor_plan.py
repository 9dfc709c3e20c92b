"""Tensors that live at the same time do not share memory, and little memory is needed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from latency.kernels.plan import ALIGNMENT, Lifetime, planned

lifetimes = st.lists(
    st.builds(
        lambda size, first, steps: Lifetime(size, first, first + steps),
        st.integers(1, 500),
        st.integers(0, 9),
        st.integers(0, 4),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(lifetimes, st.integers(0, 100))
def test_what_lives_together_lies_apart(lives, gap):
    offsets, size = planned(lives, gap)
    for i, (life, offset) in enumerate(zip(lives, offsets, strict=True)):
        assert offset % ALIGNMENT == 0
        assert offset + life.size_bytes + gap <= size
        for other, begin in zip(lives[:i], offsets[:i], strict=True):
            together = other.first <= life.last and life.first <= other.last
            apart = begin + other.size_bytes + gap <= offset or offset + life.size_bytes + gap <= begin
            assert apart or not together


def test_a_chain_needs_the_memory_of_its_largest_pair():
    chain = [Lifetime(size, i, i + 1) for i, size in enumerate([64, 640, 128, 320, 64])]
    assert planned(chain)[1] == 640 + 128


def test_what_is_empty_needs_nothing():
    assert planned([]) == ([], 0)


def test_larger_tensors_are_placed_first():
    lives = [Lifetime(64, 0, 0), Lifetime(192, 1, 3), Lifetime(192, 2, 4), Lifetime(128, 0, 2)]
    assert planned(lives)[1] == 192 + 192 + 128  # those that live at step 2; smallest first would need 576
