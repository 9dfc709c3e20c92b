import dataclasses
from types import SimpleNamespace

import pytest
from small_supernet import RECIPE, same, small_dataset, small_net, weights

from search_spaces.network import find_space
from supernet.learner import Learner
from supernet.strategies.among import Among
from supernet.train import train_supernet

SPACE = find_space(small_net())
ROWS = tuple(arch.indices for arch in list(SPACE.enumerate())[:3])


def learner(strategy, seed=0):
    return Learner(small_net(seed), SPACE, small_dataset(), dataclasses.replace(RECIPE, strategy=strategy), 12)


@pytest.mark.parametrize("paths", [1, 2, 5])
def test_every_row_has_its_turn_equally_often(paths):
    seen = []
    lesson = SimpleNamespace(space=SPACE, learn=lambda arch: (None, seen.append(arch.indices) or 1.0))
    teaching = Among(ROWS, paths).start(None)
    losses = [teaching.step(lesson) for _ in range(6)]
    assert seen == [*ROWS * 6][: 6 * min(paths, len(ROWS))]
    assert losses == [1.0] * 6


def test_a_resumed_training_goes_on_with_whose_turn_it_is():
    straight, first = learner(Among(ROWS)), learner(Among(ROWS))
    for t in range(8):
        straight.step(t)
    for t in range(4):
        first.step(t)
    tensors, numbers = first.state()
    second = learner(Among(ROWS), seed=1)
    second.load_({key: value.clone() for key, value in tensors.items()}, numbers)
    for t in range(4, 8):
        second.step(t)
    assert same(weights(straight.network), weights(second.network))


def test_the_history_tells_of_the_rows_alone():
    strategy = Among(ROWS[:1])
    assert strategy.ends(SPACE) == (SPACE.smallest(), SPACE.smallest())
    history = train_supernet(small_net(), small_dataset(), dataclasses.replace(RECIPE, strategy=strategy, epochs=1))
    assert history.final.val_largest == history.final.val_smallest


def test_other_arguments_are_refused():
    with pytest.raises(ValueError, match="the number of rows must be an integer of at least 1, got 0"):
        Among(())
    with pytest.raises(ValueError, match="paths must be an integer of at least 1, got 0"):
        Among(ROWS, 0)
