"""Laws of every strategy that searches as it trains."""

import dataclasses
import functools
import math
import multiprocessing
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_relaxed import RELAXED, SPACE, TABLE, recipe, small_cells, stripes

from search_spaces.network import find_space
from supernet.catalog import STRATEGIES
from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.learner import Learner
from supernet.lesson import TrainingDiverged
from supernet.relaxed.cost_table import CostTable
from supernet.relaxed.found import found_architectures, found_logits, found_trace
from supernet.train import train_supernet

DATA = stripes()
HALF_WAY = 4  # of 6 to 12 steps
BOUND = 10.0  # of costs from 1; that of all options alike is above it


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """From a name to the history and checkpoint of a search that was never interrupted, and its state half way."""

    @functools.cache
    def train(name):
        folder = tmp_path_factory.mktemp(name)

        def keep(state):
            if state.step == HALF_WAY:
                shutil.copy(folder / FILE_NAME, folder / "half")

        history = train_supernet(small_cells(), DATA, bounded(name), folder, keep, checkpoint_every_s=0.0)
        return history, load_checkpoint(folder / FILE_NAME), folder / "half"

    return train


def bounded(name):
    return recipe(name, table=TABLE, max_cost=BOUND)


@pytest.fixture(scope="module", params=RELAXED)
def trained(request, straight):
    return request.param, *straight(request.param)


def learner(name, total_steps=10, **settings):
    net = small_cells()
    return Learner(net, find_space(net), DATA, recipe(name, warmup=0.0, **settings), total_steps)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(trained):
    _, history, *_ = trained
    losses = [entry.loss for entry in history.entries if entry.loss is not None]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_found_architectures_keep_to_the_bound(trained):
    _, _, checkpoint, _ = trained
    found = found_architectures(checkpoint, SPACE, 20, TABLE, BOUND)
    assert len(set(found)) == 20
    assert TABLE.costs(SPACE, np.array([arch.indices for arch in found])).max() <= BOUND


def test_the_trace_starts_even_and_ends_apart(trained):
    name, _, checkpoint, _ = trained
    trace = found_trace(checkpoint, SPACE)
    assert trace.progress[0] == 0 and (np.diff(trace.progress) > 0).all()
    assert all(np.allclose(p.sum(1), 1, atol=1e-5) for p in trace.probabilities.values())
    assert any(p[-1].max() > 1.1 / p.shape[1] for p in trace.probabilities.values())
    if name != "superkernel":
        assert all(np.isclose(entropy[0], 1) for entropy in trace.entropies().values())


def test_the_trace_holds_what_the_search_ends_with(trained):
    _, _, checkpoint, half = trained
    trace = found_trace(checkpoint, SPACE)
    assert trace.progress[-1] == 1
    for name, logits in found_logits(checkpoint).items():
        np.testing.assert_allclose(trace.probabilities[name][-1], torch.softmax(logits.double(), 0), atol=1e-6)
    before = load_checkpoint(half)
    assert found_trace(before, SPACE).progress[-1] == HALF_WAY / before.meta["plan"]["total_steps"]


def test_resumed_equals_uninterrupted(trained, tmp_path):
    name, _, checkpoint, half = trained
    shutil.copy(half, tmp_path / FILE_NAME)
    states = []
    train_supernet(small_cells(seed=9), DATA, bounded(name), tmp_path, states.append)
    resumed = load_checkpoint(tmp_path / FILE_NAME)
    assert states[0].step == HALF_WAY + 1
    assert any(key.startswith("strategy/adam/") for key in resumed.tensors)
    assert same(dict(checkpoint.tensors), dict(resumed.tensors))


def test_a_state_that_was_taken_is_the_state(trained):
    name, _, checkpoint, _ = trained
    state = {key.removeprefix("strategy/"): v for key, v in checkpoint.tensors.items() if key.startswith("strategy/")}
    net = small_cells()
    subject = Learner(net, SPACE, DATA, bounded(name), 10)
    weights = {k.removeprefix("weights/"): v for k, v in checkpoint.tensors.items() if k.startswith("weights/")}
    net.load_state_dict(weights)
    subject.teaching.load_(state)
    taken = subject.teaching.state()
    assert taken.keys() == state.keys()
    for key, value in taken.items():
        torch.testing.assert_close(value, state[key], rtol=1e-5, atol=1e-5)


def search_and_say(folder, pipe):
    say = lambda state: pipe.send(state.step)  # noqa: E731
    train_supernet(small_cells(), DATA, bounded("proxyless"), folder, say, checkpoint_every_s=0.0)


def test_killed_search_resumes_to_the_bit(straight, tmp_path):
    fork = multiprocessing.get_context("fork")  # this process has loaded everything already
    said, pipe = fork.Pipe(duplex=False)
    process = fork.Process(target=search_and_say, args=(tmp_path, pipe))
    process.start()
    while said.recv() != HALF_WAY:
        pass
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    states = []
    train_supernet(small_cells(seed=9), DATA, bounded("proxyless"), tmp_path, states.append)
    assert states[0].step > HALF_WAY
    assert same(dict(straight("proxyless")[1].tensors), dict(load_checkpoint(tmp_path / FILE_NAME).tensors))


@pytest.mark.parametrize("name", [name for name in RELAXED if STRATEGIES[name].make().held_out])
def test_logits_and_weights_learn_apart(name, monkeypatch):
    """The logits' step leaves no gradient on weights, and the weights' step none on logits."""
    subject = learner(name)
    search, seen = subject.teaching, []
    learn = search._learn_logits

    def watched(lesson):
        learn(lesson)
        seen.append([p.grad for p in subject.network.parameters()])

    monkeypatch.setattr(search, "_learn_logits", watched)
    before = {key: values.detach().clone() for key, values in search.logits.items()}
    subject.step(0)
    assert len(seen) == 1 and all(gradient is None for gradient in seen[0])
    assert all(values.grad is None for values in search.logits.values())
    assert any(not torch.equal(before[key], values) for key, values in search.logits.items())


@pytest.mark.parametrize("name", RELAXED)
def test_in_the_warm_up_only_weights_learn(name):
    subject = learner(name)
    search = subject.teaching
    search.strategy = dataclasses.replace(search.strategy, warmup=0.5)
    first = {key: values.detach().clone() for key, values in search.logits.items()}
    for t in range(5):
        subject.step(t)
    assert same(first, {key: values.detach() for key, values in search.logits.items()})
    subject.step(5)
    assert not same(first, {key: values.detach() for key, values in search.logits.items()})


@pytest.mark.parametrize("name", RELAXED)
def test_a_gradient_that_is_not_finite_moves_no_logit(name):
    """A square root at zero: the loss is finite, its gradient is not."""
    subject = learner(name)
    search = subject.teaching
    kept = {key: value.clone() for key, value in search.state().items() if key.startswith("learnt/")}
    rootless = lambda: sum((v - v.detach()).abs().sqrt().sum() for v in search.logits.values())  # noqa: E731
    search.objective = lambda loss, cost_s: loss + 0 * rootless()
    with pytest.raises(TrainingDiverged, match="a gradient of the architecture parameters is not finite"):
        subject.step(0)
    assert all(torch.equal(search.state()[key], value) for key, value in kept.items())
    assert not search.adam.state_dict()["state"]


def test_an_expected_cost_that_is_not_finite_leaves_the_price():
    search = learner("darts", table=TABLE, max_cost=BOUND).teaching
    with torch.no_grad():
        next(iter(search.logits.values())).fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="the expected cost is nan s"):
        search.price()
    assert search.multiplier == 0


@pytest.mark.parametrize("name", RELAXED)
def test_the_price_brings_the_expected_cost_to_the_bound(name):
    """By steps of the price alone, from a cost that is far above the bound; DARTS stays close below it."""
    bound = {"superkernel": 9.8}.get(name, 8.0)
    search = learner(name, 40, table=TABLE, max_cost=bound).teaching
    rng, costs = np.random.default_rng(0), []
    for t in range(40):
        lesson = SimpleNamespace(rng=rng, progress=t / 40)
        gates = search.logit_gates(lesson)
        costs.append(float(search.expected(search.probabilities()).detach()))
        search.update(torch.autograd.grad(search.price(), list(search.logits.values()), allow_unused=True), gates)
    assert costs[0] > 1.1 * bound and search.multiplier > 0 and costs[-1] < 1.03 * bound
    assert name != "darts" or costs[-1] > 0.9 * bound


@pytest.mark.parametrize("name", RELAXED)
def test_a_bound_that_nothing_keeps_to_is_refused_before_the_first_step(name):
    with pytest.raises(
        ValueError, match=r"no architecture of space 'SmallCells' costs at most 0.5 s: the fastest .* 1 s"
    ):
        train_supernet(small_cells(), DATA, recipe(name, table=TABLE, max_cost=0.5))
    with pytest.raises(ValueError, match="a bound of 2 s needs a cost table"):
        recipe(name, max_cost=2.0)


def test_another_table_is_another_training(straight, tmp_path):
    shutil.copy(straight("darts")[2], tmp_path / FILE_NAME)
    other = CostTable(1.0, {**TABLE.tables, ("width",): np.array([0.0, 2.0])})
    with pytest.raises(ValueError, match="cannot resume: recipe strategy was"):
        train_supernet(small_cells(), DATA, recipe("darts", table=other, max_cost=BOUND), tmp_path)
