import numpy as np

from supernet.batches import batch_indices, step_generator, steps_per_epoch


def test_an_epoch_sees_each_image_at_most_once():
    steps = steps_per_epoch(50, 16)
    assert steps == 3
    first, second = ([batch_indices(50, 16, 0, e * steps + t) for t in range(steps)] for e in (0, 1))
    seen = np.concatenate(first)
    assert len(seen) == 48 == len(set(seen.tolist()))
    assert not np.array_equal(seen, np.concatenate(second))


def test_fewer_images_than_a_batch():
    assert steps_per_epoch(5, 16) == 1
    assert sorted(batch_indices(5, 16, 0, 7).tolist()) == [0, 1, 2, 3, 4]


def test_depends_on_seed_and_step_only():
    late = batch_indices(50, 16, 0, 100)
    batch_indices(50, 16, 1, 3)
    assert np.array_equal(batch_indices(50, 16, 0, 100), late)
    assert not np.array_equal(batch_indices(50, 16, 1, 100), late)
    assert step_generator(0, 5).random() == step_generator(0, 5).random()
    assert len({step_generator(seed, step).random() for seed in range(3) for step in range(3)}) == 9
