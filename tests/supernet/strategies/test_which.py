"""Which architectures each strategy trains, and what they learn from."""

import collections
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_supernet import RECIPE, small_dataset, small_net
from torch import nn

from search_spaces.cell import nas_bench_201
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, Resize
from search_spaces.network import Network, find_space, run
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.learner import Learner
from supernet.lesson import Lesson
from supernet.strategies import once_for_all
from supernet.strategies.attentive import Attentive
from supernet.strategies.fair import Fair, fair_rows
from supernet.strategies.once_for_all import OnceForAll, openings
from supernet.strategies.only import Only
from supernet.strategies.sandwich import Sandwich
from supernet.strategies.single_path import SinglePath

SPACE = find_space(small_net())


def macs(population):
    return population.sum(1) + 1.0


@pytest.fixture
def trained(monkeypatch):
    """Takes steps of a strategy; what architectures learnt from labels, and what from a teacher."""
    seen = collections.defaultdict(list)
    for way in ("learn", "imitate"):
        original = getattr(Lesson, way)

        def spied(self, arch, *rest, original=original, way=way):
            seen[way].append(arch)
            return original(self, arch, *rest)

        monkeypatch.setattr(Lesson, way, spied)

    def steps(strategy, n=1):
        net = small_net()
        net.drop.p = 0.0
        strategy.prepare_(net)
        learner = Learner(net, SPACE, small_dataset(), dataclasses.replace(RECIPE, strategy=strategy), 20, macs)
        for t in range(n):
            learner.step(t)
        return seen["learn"], seen["imitate"]

    return steps


def test_sandwich_has_both_ends_and_randoms_that_reach_the_whole_space(trained):
    learnt, imitated = trained(Sandwich(randoms=8), 10)
    assert set(learnt) == {SPACE.largest()} and len(learnt) == 10
    assert imitated[::9] == [SPACE.smallest()] * 10
    assert set(imitated) == set(SPACE.enumerate())


def test_sandwich_without_randoms(trained):
    assert trained(Sandwich(randoms=0)) == ([SPACE.largest()], [SPACE.smallest()])
    with pytest.raises(ValueError, match="randoms must be an integer of at least 0, got -1"):
        Sandwich(randoms=-1)


def test_single_paths_are_uniform_and_learn_from_labels(trained):
    learnt, imitated = trained(SinglePath(paths=20), 20)
    counts = collections.Counter(learnt)
    assert len(learnt) == 400 and not imitated
    assert min(counts.values()) > 0.6 * 400 / SPACE.size and len(counts) == SPACE.size
    with pytest.raises(ValueError, match="paths must be an integer of at least 1, got 0"):
        SinglePath(paths=0)


def test_one_architecture_alone_leaves_all_other_weights(trained):
    arch = SPACE.smallest()
    learnt, _ = trained(Only(arch.indices), 3)
    assert learnt == [arch] * 3
    net = small_net()
    learner = Learner(net, SPACE, small_dataset(), dataclasses.replace(RECIPE, strategy=Only(arch.indices)), 20)
    learner.step(0)
    assert net.body.get_submodule("1.0").weight.grad is None
    assert not net.stem[0].weight.grad[4:].any()


def test_strict_fairness():
    """Every option of the choices with the most options exactly once a step, others equally often but for one."""
    space = SearchSpace("s", [Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2)), Choice("c", (0, 1))])
    for seed in range(20):
        rows = fair_rows(space, np.random.default_rng(seed))
        assert rows.shape == (3, 3)
        assert all(sorted(rows[:, j].tolist()) == [0, 1, 2] for j in (0, 1))
        assert sorted(np.bincount(rows[:, 2]).tolist()) == [1, 2]
    assert len({tuple(fair_rows(space, np.random.default_rng(seed))[0]) for seed in range(60)}) > 12


def test_a_fair_step_adds_up_the_gradients_of_all(trained):
    learnt, imitated = trained(Fair(), 6)
    assert len(learnt) == 12 and not imitated
    for first, second in zip(learnt[::2], learnt[1::2], strict=True):
        assert first["width"] != second["width"] and first["depth"] != second["depth"]


@pytest.mark.parametrize("pick", ["best", "worst"])
def test_attention_picks_by_the_loss_of_the_batch_within_a_level_of_cost(pick, monkeypatch, trained):
    asked = []
    original = Lesson.losses

    def spied(self, archs):
        asked.append((archs, original(self, archs)))
        return asked[-1][1]

    monkeypatch.setattr(Lesson, "losses", spied)
    learnt, imitated = trained(Attentive(pick=pick, candidates=4, picks=2), 8)
    assert set(learnt) == {SPACE.largest()} and len(asked) == 16
    picked = [arch for i, arch in enumerate(imitated) if i % 3]
    for arch, (archs, losses) in zip(picked, asked, strict=True):
        assert losses[archs.index(arch)] == (losses.min() if pick == "best" else losses.max())
        assert len({sum(a.indices) for a in archs}) == 1  # macs above: one level has one cost


def test_attention_by_a_predictor_that_is_fitted_half_way(trained, monkeypatch):
    calls = []
    original = Lesson.losses
    monkeypatch.setattr(Lesson, "losses", lambda self, archs: calls.append(self.progress) or original(self, archs))
    trained(Attentive(by="predictor"), 14)
    assert max(calls) < 0.5 and len(calls) == 20


def attention(costs, **options):
    """The candidates of 300 steps (n, candidates, d) in a space of 1,000 architectures."""
    space = SearchSpace("s", [Choice(name, tuple(range(10))) for name in "abc"])
    learner = SimpleNamespace(space=space, recipe=RECIPE, device=torch.device("cpu"))
    asked = []

    def losses(archs):
        asked.append([arch.indices for arch in archs])
        return np.arange(len(archs))

    subject = Attentive(**options).start(SimpleNamespace(**vars(learner), costs=costs))
    lesson = SimpleNamespace(
        space=space,
        rng=np.random.default_rng(0),
        progress=0.0,
        losses=losses,
        learn=lambda arch: (None, 0.0),
        imitate=lambda arch, teacher: None,
    )
    for _ in range(300):
        subject.step(lesson)
    return np.array(asked)


def test_candidates_are_different_networks_and_none_is_asked_over_and_over():
    asked = attention(lambda rows: rows.sum(1), candidates=3, picks=2)
    assert asked.shape == (600, 3, 3)
    assert all(len(set(map(tuple, archs))) == 3 for archs in asked.tolist())
    assert np.ptp(asked.sum(2), axis=1).max() <= 2  # 16 levels of 28 sums
    _, times = np.unique(asked.reshape(-1, 3), axis=0, return_counts=True)
    assert times.max() < 15  # of 1,800: 0, 0, 0 alone has a level's least members
    assert len(times) > 600


@pytest.mark.parametrize("wrong", [{"pick": "middle"}, {"by": "luck"}, {"candidates": 1}, {"picks": 0}])
def test_attention_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Attentive(**wrong)


def test_attention_needs_costs():
    recipe = dataclasses.replace(RECIPE, strategy=Attentive())
    with pytest.raises(ValueError, match="need what architectures cost"):
        Learner(small_net(), SPACE, small_dataset(), recipe, 20)


def test_shrinking_opens_roles_in_order_and_the_dearest_options_first():
    space = SearchSpace(
        "s", [Choice("r", (8, 12)), Choice("k", (3, 5, 7)), Choice("d", (1, 2, 3)), Choice("w", (4, 8))]
    )
    parts = openings(space, {"r": "resolution", "k": "kernel", "d": "depth", "w": "width"})
    assert [(part.phase, part.lowest) for part in parts] == [
        ("largest", (0, 2, 2, 1)),
        ("kernel", (0, 1, 2, 1)),
        ("kernel", (0, 0, 2, 1)),
        ("depth", (0, 0, 1, 1)),
        ("depth", (0, 0, 0, 1)),
        ("width", (0, 0, 0, 0)),
    ]
    only = openings(SearchSpace("s", [Choice("o", ("a", "b"))]), {"o": "operation"})
    assert [part.lowest for part in only] == [(1,), (0,)]


def test_shrinking_sorts_channels_and_keeps_what_the_largest_has_learnt():
    strategy = OnceForAll(alone=0.5)
    net = small_net()
    strategy.prepare_(net)
    learner = Learner(net, SPACE, small_dataset(), dataclasses.replace(RECIPE, strategy=strategy), 20)
    for t in range(15):  # alone to 10, depth to 15, then width
        learner.step(t)
    teaching = learner.teaching
    assert teaching.openings[teaching.part].phase == "depth"
    x = torch.from_numpy(small_dataset().x_val)
    before = [run(module.eval(), x, SPACE.largest()) for module in (learner.network, learner.averaged)]
    momentum = learner.optimizer.state[net.stem[0].weight]["momentum_buffer"].clone()
    told = run(teaching.teacher, x, SPACE.largest())
    teaching._advance()
    after = [run(module.eval(), x, SPACE.largest()) for module in (learner.network, learner.averaged)]
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(now, was, rtol=1e-4, atol=1e-5)
    blocks = [net.body.get_submodule(f"{i}.0").weight for i in (0, 1)]
    sums = net.classifier.weight.abs().sum(0) + sum(weight.abs().sum((0, 2, 3)) for weight in blocks)
    assert torch.equal(sums, sums.sort(descending=True).values)
    moved = learner.optimizer.state[net.stem[0].weight]["momentum_buffer"]
    assert not torch.equal(moved, momentum)
    assert sorted(moved.flatten().tolist()) == sorted(momentum.flatten().tolist())
    assert torch.equal(told, run(teaching.teacher, x, SPACE.largest()))
    with pytest.raises(ValueError, match="alone must be above 0 and below 1, got 1"):
        OnceForAll(alone=1.0)


class Resized(Network):
    """Elastic resolution, and three widths."""

    def __init__(self) -> None:
        super().__init__()
        width = Choice("width", (4, 6, 8))
        self.resize = Resize(Choice("resolution", (4, 6)), 6)
        self.stem = nn.Sequential(Conv2d(1, width, 3), BatchNorm2d(width), nn.ReLU())
        self.classifier = Linear(width, 3)

    def forward(self, x):
        return self.classifier(self.stem(self.resize(x)).mean((2, 3)))


def shrinking():
    """A training by progressive shrinking in 20 steps: alone to 2, then two of three widths to 11, then all."""
    torch.manual_seed(0)
    net = Resized()
    recipe = dataclasses.replace(RECIPE, lr=0.5, strategy=OnceForAll(alone=0.1))
    return Learner(net, find_space(net), small_dataset(), recipe, 20)


def test_shrinking_asks_the_teacher_once_a_step_at_the_resolution_of_all_paths(monkeypatch):
    learner, asked, taught = shrinking(), [], []
    original_run, original_logits = once_for_all.run, Lesson.logits
    monkeypatch.setattr(once_for_all, "run", lambda net, x, arch: asked.append(arch) or original_run(net, x, arch))
    monkeypatch.setattr(Lesson, "logits", lambda self, arch: taught.append(arch) or original_logits(self, arch))
    for t in range(14):
        learner.step(t)
    taught = taught[2:]
    assert len(asked) == 12 and len(taught) == 48
    for i, teacher in enumerate(asked):
        assert teacher["width"] == 8
        assert {arch["resolution"] for arch in taught[4 * i : 4 * i + 4]} == {teacher["resolution"]}
    assert {arch["resolution"] for arch in asked} == {4, 6}


def test_a_second_sort_leaves_widths_that_were_trained():
    learner = shrinking()
    for t in range(11):
        learner.step(t)
    net, space = learner.network.eval(), learner.space
    net.classifier.weight.data *= torch.arange(1, 9)  # as if the last channels had become the most important
    x = torch.from_numpy(small_dataset().x_val)
    trained = [space.architecture({"resolution": 6, "width": width}) for width in (6, 8)]
    before, stem = [run(net, x, arch) for arch in trained], net.stem[0].weight.clone()
    learner.teaching._advance()
    for arch, was in zip(trained, before, strict=True):
        torch.testing.assert_close(run(net, x, arch), was, rtol=1e-4, atol=1e-5)
    sums = net.classifier.weight.abs().sum(0)
    assert not torch.equal(stem, net.stem[0].weight)
    for group in (sums[:6], sums[6:]):
        assert torch.equal(group, group.sort(descending=True).values)


@pytest.mark.parametrize("strategy", [Fair(), SinglePath(paths=5), OnceForAll()])
def test_where_cells_are_equivalent_each_operation_is_trained_as_often(strategy):
    """Of NAS-Bench-201's cells, representatives have `none` on the first edge in 44 % and a 3x3 in 12 %."""
    net = nas_bench_201(8, 1, 3, "tiny")
    space, seen = find_space(net), []
    lesson = SimpleNamespace(space=space, rng=np.random.default_rng(0))
    lesson.learn = lambda arch: (None, seen.append(arch) or 0.0)
    lesson.sample = lambda n: Lesson.sample(lesson, n)
    if isinstance(strategy, OnceForAll):
        parts = openings(space, {})
        for _ in range(250):
            seen += once_for_all._Shrinking._draw(SimpleNamespace(resolutions=[]), parts[-1], lesson)
    else:
        for _ in range(200):
            strategy.step(lesson)
    counts = np.array([np.bincount(column, minlength=5) for column in np.array([arch.indices for arch in seen]).T])
    assert len(seen) == 1000
    assert (counts == 200).all() if isinstance(strategy, Fair) else abs(counts - 200).max() < 50
