import numpy as np
import pytest
import torch

from supernet.augment import erase, mix, shift_and_flip

X = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)


def rng(seed=0):
    return np.random.default_rng(seed)


def slow_shift(image, dy, dx):
    """Pad with the border's pixels and crop."""
    padded = np.pad(image, ((0, 0), (9, 9), (9, 9)), mode="edge")
    _, h, w = image.shape
    return padded[:, 9 + dy : 9 + dy + h, 9 + dx : 9 + dx + w]


def test_shift_equals_pad_and_crop():
    for seed in range(20):
        moved = shift_and_flip(X, 2, False, rng(seed)).numpy()
        for before, after in zip(X.numpy(), moved, strict=True):
            options = [slow_shift(before, dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
            assert any(np.array_equal(option, after) for option in options)


def test_flip_mirrors_about_half():
    x = X[:1].repeat(400, 1, 1, 1)
    flipped = shift_and_flip(x, 0, True, rng())
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    same = (flipped == x).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 150 < int(mirrored.sum()) < 250


def test_nothing_to_do_and_no_change_of_the_input():
    before = X.clone()
    assert shift_and_flip(X, 0, False, rng()) is X
    assert erase(X, 0.0, rng()) is X
    assert mix(X, torch.zeros(2, dtype=torch.long), 0.0, 3, 0.1, rng())[0] is X
    shift_and_flip(X, 9, True, rng())
    erase(X, 1.0, rng())
    mix(X, torch.zeros(2, dtype=torch.long), 1.0, 3, 0.1, rng())
    assert torch.equal(X, before)


@pytest.mark.parametrize("size", [1, 2, 8, 33])
def test_erased_part_is_one_rectangle_of_bounded_area(size):
    x = torch.ones(300, 2, size, size)
    erased = erase(x, 0.5, rng())
    holes = erased == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    hit = holes.flatten(1).any(1)
    assert 100 < int(hit.sum()) < 200
    for hole in holes[hit][:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        edge = (1 + int(rows.sum())) * (1 + int(columns.sum()))
        assert int(hole.sum()) <= max(1, edge) and int(hole.sum()) <= size * size / 3 + 2 * size


def test_mix_keeps_probabilities_and_pairs():
    y = torch.tensor([0, 2])
    x, target = mix(X, y, 0.4, 3, 0.0, rng(3))
    share = float(target[0, 0])
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    torch.testing.assert_close(x[0], share * X[0] + (1 - share) * X[1])
    torch.testing.assert_close(float(target[0, 2]), 1 - share, rtol=0, atol=1e-6)


def test_draws_follow_the_generator():
    assert torch.equal(shift_and_flip(X, 2, True, rng(5)), shift_and_flip(X, 2, True, rng(5)))
    assert torch.equal(erase(X, 0.9, rng(5)), erase(X, 0.9, rng(5)))
