import numpy as np
import pytest
import torch
from sparse_subject import accuracy, digits, digits_model, run
from torch import nn

from latency.lowering import to_onnx
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.refit import refit
from quant_search.sparsity.selection import score_units, uniform_keep

IMAGES = digits()[0][:300]


class Twins(nn.Module):
    """Channels of which the second half are mixtures of the first: what reads them can do without."""

    def __init__(self, reader):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        with torch.no_grad():
            mix = torch.randn(4, 4)
            self.first.weight[4:] = torch.einsum("oi,ichw->ochw", mix, self.first.weight[:4])
            self.first.bias[4:] = mix @ self.first.bias[:4] + 0.5
        self.reader = reader

    def forward(self, x):
        return self.reader(self.first(x))


class Product(nn.Module):
    """A product without a bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 5))

    def forward(self, x):
        return x.mean((2, 3)) @ self.weight


@pytest.mark.parametrize(
    "reader",
    [
        nn.Conv2d(8, 5, 1),
        nn.Conv2d(8, 5, 3, stride=2, bias=False),
        nn.Conv2d(8, 5, 3, dilation=2),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        Product(),
    ],
)
def test_what_can_be_made_good_is(reader):
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    model, keep = to_onnx(Twins(reader), x.shape[1:]), {"/first/Conv": [0, 1, 2, 3]}
    fitted = refit(model, keep, x, ridge=1e-9)
    wanted = run(model, x)
    assert np.abs(run(fitted, x) - wanted).max() < 1e-3 < np.abs(run(prune_channels(model, keep), x) - wanted).max()


def test_a_trained_network_keeps_its_accuracy_where_pruning_alone_loses_it():
    model = digits_model()
    groups = channel_groups(model)
    keep = uniform_keep(groups, score_units(model, groups), 0.4)
    before = [t.dims for t in prune_channels(model, keep).graph.initializer]
    fitted = refit(model, keep, IMAGES)
    assert [t.dims for t in fitted.graph.initializer] == before
    plain = accuracy(prune_channels(model, keep))
    assert accuracy(fitted) > plain + 0.05
    assert accuracy(model) - accuracy(fitted) < 0.5 * (accuracy(model) - plain)


def test_a_strong_ridge_keeps_the_pruned_weights():
    model, keep = digits_model(), {"/6/Conv": list(range(20))}
    fitted, pruned = refit(model, keep, IMAGES, ridge=1e9), prune_channels(model, keep)
    for one, other in zip(fitted.graph.initializer, pruned.graph.initializer, strict=True):
        if len(one.dims) > 1:
            assert np.allclose(np.frombuffer(one.raw_data, "f4"), np.frombuffer(other.raw_data, "f4"), atol=1e-5)


def test_a_ridge_must_be_positive_and_images_are_needed():
    for ridge in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="the ridge must be positive"):
            refit(digits_model(), {"/0/Conv": [0]}, IMAGES, ridge=ridge)
    with pytest.raises(ValueError, match="got none"):
        refit(digits_model(), {"/0/Conv": [0]}, IMAGES[:0])
