"""Laws of all strategies that train shared weights, on a network small enough to train in a second."""

import dataclasses

import pytest
import torch
from small_supernet import RECIPE, same, small_dataset, small_net, weights

from search_spaces.network import find_space
from supernet.catalog import STRATEGIES
from supernet.learner import Learner
from supernet.train import train_supernet

NAMES = [name for name, entry in STRATEGIES.items() if not entry.relaxed]
STEPS = 12


def macs(population):
    return population.sum(1) + 1.0


def learner(name, seed=0):
    strategy = STRATEGIES[name].make()
    net = small_net(seed)
    strategy.prepare_(net)
    recipe = dataclasses.replace(RECIPE, strategy=strategy)
    return Learner(net, find_space(net), small_dataset(), recipe, STEPS, macs)


@pytest.mark.parametrize("name", NAMES)
def test_state_carries_everything_a_step_depends_on(name):
    straight = learner(name)
    for t in range(STEPS):
        straight.step(t)
    for stop in (5, 9):
        first = learner(name)
        for t in range(stop):
            first.step(t)
        tensors, numbers = first.state()
        second = learner(name, seed=1)
        second.load_({key: value.clone() for key, value in tensors.items()}, numbers)
        for t in range(stop, STEPS):
            second.step(t)
        assert same(weights(straight.network), weights(second.network))
        assert same(weights(straight.averaged), weights(second.averaged))


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name):
    strategy = STRATEGIES[name].make()
    net = small_net()
    strategy.prepare_(net)
    recipe = dataclasses.replace(RECIPE, strategy=strategy, epochs=12, batch=24, lr=0.1, erase=0.0, mixup=0.0)
    history = train_supernet(net, small_dataset(n=240), recipe, costs=macs)
    assert history.final.val_largest > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_not_finite_stops_the_training_before_a_weight_changes(name):
    subject = learner(name)
    before = weights(subject.network)
    subject.x.fill_(float("nan"))
    with pytest.raises(ValueError, match="training diverged at step 0: the loss is nan with learning rate"):
        subject.step(0)
    assert same(before, weights(subject.network))


def test_every_name_makes_a_value_that_says_what_it_is():
    made = [STRATEGIES[name].make() for name in STRATEGIES]
    assert made == [STRATEGIES[name].make() for name in STRATEGIES]
    assert len({repr(strategy) for strategy in made}) == len(made)
    assert all(torch.is_tensor(value) for name in NAMES for value in learner(name).teaching.state().values())
