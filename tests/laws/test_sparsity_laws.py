"""Laws of sparsity: over every kind of pattern and criterion, and over networks of every ready-made space."""

import functools

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.sparsity.catalog import CRITERIA, PATTERNS
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Blocks, Channels, Dense, NofM, Unstructured, mask
from quant_search.sparsity.weighted import layers_of, weights_of, with_weights
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space
from tests.laws.entries import SMALLEST
from tests.quant_search.sparsity.zeroed_channels import mask_channels

CPU = parse_device("cpu")
SHAPE = (3, 32, 32)
LAW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SHARES = st.integers(1, 99).map(lambda n: n / 100)
SHAPES = st.tuples(st.integers(1, 37), st.integers(1, 21), st.sampled_from(((), (1, 1), (3, 3)))).map(
    lambda parts: (parts[0], parts[1], *parts[2])
)
KINDS = {
    "dense": st.just(Dense()),
    "channels": SHARES.map(Channels),
    "n:m": st.tuples(st.integers(1, 7), st.integers(1, 5)).map(lambda pair: NofM(pair[0], sum(pair))),
    "blocks": st.builds(Blocks, st.integers(1, 16), st.integers(1, 8), SHARES),
    "unstructured": SHARES.map(Unstructured),
}


def weight_of(shape, seed, ties):
    rng = np.random.default_rng(seed)
    return (rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)).astype(np.float32)


def counted(share, n):
    return max(1, int(np.floor(share * n + 0.5)))


def test_every_kind_of_pattern_is_tried():
    assert set(KINDS) == set(PATTERNS)


@pytest.mark.parametrize("kind", PATTERNS)
@LAW
@given(data=st.data(), shape=SHAPES, seed=st.integers(0, 2**16), ties=st.booleans())
def test_a_mask_is_of_its_pattern_and_keeps_what_scores_most(kind, data, shape, seed, ties):
    pattern = data.draw(KINDS[kind])
    weight = weight_of(shape, seed, ties)
    kept = mask(weight, pattern)
    assert kept.shape == shape and kept.dtype == bool and isinstance(pattern, PATTERNS[kind].pattern)
    UNITS[kind](pattern, kept, np.square(weight, dtype=np.float64))


def check_best(kept, sums, count):
    """Exactly so many of the units are kept, and none that is not scores more than one that is."""
    assert kept.sum() == count
    if 0 < count < kept.size:
        assert sums[kept].min() >= sums[~kept].max() - 1e-9


def check_dense(_pattern, kept, _scores):
    assert kept.all()


def check_channels(pattern, kept, scores):
    rows = kept.reshape(len(kept), -1)
    assert (rows.all(1) == rows.any(1)).all()
    check_best(rows.all(1), scores.reshape(len(kept), -1).sum(1), counted(pattern.share, len(kept)))


def check_groups(pattern, kept, scores):
    for start in range(0, kept.shape[1], pattern.m):
        group = np.moveaxis(kept[:, start : start + pattern.m], 1, -1)
        sums = np.moveaxis(scores[:, start : start + pattern.m], 1, -1)
        for one, own in zip(group.reshape(-1, group.shape[-1]), sums.reshape(-1, group.shape[-1]), strict=True):
            check_best(one, own, min(pattern.n, len(one)))


def check_blocks(pattern, kept, scores):
    o, i = kept.shape[:2]
    taps, own = kept.reshape(o, i, -1), scores.reshape(o, i, -1)
    places = [
        (slice(a, a + pattern.rows), slice(b, b + pattern.columns), k)
        for a in range(0, o, pattern.rows)
        for b in range(0, i, pattern.columns)
        for k in range(taps.shape[2])
    ]
    assert all(taps[place].all() == taps[place].any() for place in places)  # whole blocks
    whole = np.array([taps[place].all() for place in places])
    check_best(whole, np.array([own[place].sum() for place in places]), counted(pattern.share, len(places)))


def check_single(pattern, kept, scores):
    zeros = int(np.floor(pattern.zeros * kept.size + 0.5))
    check_best(kept.ravel(), scores.ravel(), max(1, kept.size - zeros))


UNITS = {
    "dense": check_dense,
    "channels": check_channels,
    "n:m": check_groups,
    "blocks": check_blocks,
    "unstructured": check_single,
}


@pytest.mark.parametrize("kind", PATTERNS)
@LAW
@given(data=st.data())
def test_names_and_patterns_are_one_to_one(kind, data):
    pattern = data.draw(KINDS[kind])
    assert parse_pattern(pattern.name) == pattern
    assert isinstance(parse_pattern(PATTERNS[kind].example), PATTERNS[kind].pattern)
    assert 0 < pattern.density <= 1


# -- channels ----------------------------------------------------------------------------------------


class Joined(nn.Module):
    """Halves that are worked on apart and joined, a sum over the join, and a classifier on every pixel."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU6())
        self.left, self.right = nn.Conv2d(24, 12, 1), nn.Conv2d(24, 20, 3, padding=1)
        self.side = nn.Conv2d(24, 32, 1, groups=4)
        self.norm, self.slope = nn.BatchNorm2d(32), nn.PReLU(32)
        self.wide = nn.Conv2d(32, 64, 3, 2, 1, groups=32)  # two channels for each that it reads
        self.classifier = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 16, 17), nn.Tanh())
        self.last = nn.Linear(17, 10)

    def forward(self, x):
        x = self.stem(x)
        y = torch.cat([self.left(x), self.right(x)], 1) + self.side(x)
        a, b = self.slope(self.norm(y)).split([10, 22], 1)
        return self.last(self.classifier(self.wide(torch.cat([b, a], 1)).relu()))


class Residual(nn.Module):
    """Sums that couple a stem with two blocks, squeeze and excitation, and a block without a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 1))
        self.second = nn.Sequential(nn.Conv2d(16, 32, 1), nn.Hardswish(), nn.Conv2d(32, 32, 3, 1, 1, groups=32))
        self.squeeze = nn.Sequential(nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        x = (x + self.first(x)).relu()
        y = self.second(x)
        x = x + self.project(y * self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


def randomised(module):
    """Norms and biases at their defaults hide slips."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.dim() == 1 and not name.endswith("running_var"):
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return module.eval()


@functools.cache
def models(name, preset):
    """Files of the smallest and of two random architectures."""
    torch.manual_seed(0)
    if name in ("joined", "residual"):
        return [to_onnx(randomised({"joined": Joined, "residual": Residual}[name]()), SHAPE)]
    network = randomised(SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset))
    space = find_space(network)
    archs = [space.smallest(), *map(space.row, space.sample(2, np.random.default_rng(0)))]
    return [to_onnx(extract(network, arch), SHAPE) for arch in archs]


@pytest.fixture(
    scope="module", params=[*SMALLEST, ("mbconv", "lite"), ("joined", "-"), ("residual", "-")], ids="-".join
)
def pruned(request):
    """Models with their groups, and for each group a random half of its units."""
    rng = np.random.default_rng(0)
    cases = []
    for model in models(*request.param):
        groups = channel_groups(model)
        keep = {g.name: rng.choice(g.size, max(1, g.size // 2), replace=False).tolist() for g in groups}
        cases.append((model, groups, keep))
    return cases


def run(model):
    x = np.random.default_rng(1).standard_normal((3, *SHAPE)).astype(np.float32)
    return open_session(model.SerializeToString(), CPU).run(x)


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 1e-5 * max(1e-3, np.abs(expected).max())


def test_pruned_networks_are_smaller_and_compute_what_masked_ones_do(pruned):
    for model, groups, keep in pruned:
        smaller = prune_channels(model, keep)
        onnx.checker.check_model(smaller, full_check=True)
        assert_close(run(smaller), run(mask_channels(model, keep)))
        before, after = (sum(w.size for w in weights_of(m).values()) for m in (model, smaller))
        assert after < 0.75 * before and groups
        assert [n.name for n in smaller.graph.node] == [n.name for n in model.graph.node]
        sizes = {g.name: g.size for g in channel_groups(smaller)}
        assert sizes == {g.name: len(keep[g.name]) for g in groups}


def test_pruning_channels_whose_weights_are_zero_changes_nothing(pruned):
    for model, groups, keep in pruned:
        zeroed = model
        for group in groups:
            for part in group.parts:
                if part.role == "made":
                    gone = ~np.isin(part.units, [-1, *keep[group.name]])
                    values = np.moveaxis(constant(zeroed, part.tensor).copy(), part.axis, 0)
                    values[gone] = 0
                    zeroed = with_weights(zeroed, {part.tensor: np.moveaxis(values, 0, part.axis)})
        assert_close(run(prune_channels(zeroed, keep)), run(zeroed))


def constant(model, name):
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def test_to_keep_all_is_to_change_nothing(pruned):
    for model, groups, _ in pruned:
        whole = prune_channels(model, {g.name: range(g.size) for g in groups})
        assert whole.SerializeToString() == model.SerializeToString()


# -- criteria ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_give_every_weight_a_score_that_masks_take(name):
    (model,) = models("residual", "-")
    rng = np.random.default_rng(0)
    examples = Examples(rng.standard_normal((8, *SHAPE)).astype(np.float32), rng.integers(0, 10, 8), batch=4)
    layers = layers_of(model)
    scores = CRITERIA[name].load()(model, layers, examples if CRITERIA[name].needs_data else None)
    assert set(scores) == {layer.weight for layer in layers}
    for layer in layers:
        assert scores[layer.weight].shape == layer.shape and scores[layer.weight].dtype == np.float64
        weight = layer.read(weights_of(model)[layer.weight])
        assert mask(weight, Unstructured(0.5), scores[layer.weight]).sum() == weight.size - counted(0.5, weight.size)
        assert (scores[layer.weight] > 0).any()


@pytest.mark.parametrize("name", CRITERIA)
def test_weights_that_are_zero_score_zero(name):
    (model,) = models("residual", "-")
    rng = np.random.default_rng(0)
    zeros = {key: np.where(rng.random(w.shape) < 0.3, 0, w) for key, w in weights_of(model).items()}
    sparse = with_weights(model, zeros)
    examples = Examples(rng.standard_normal((4, *SHAPE)).astype(np.float32), rng.integers(0, 10, 4))
    scores = CRITERIA[name].load()(sparse, layers_of(sparse), examples)
    for layer in layers_of(sparse):
        assert (scores[layer.weight][layer.read(zeros[layer.weight]) == 0] == 0).all()
