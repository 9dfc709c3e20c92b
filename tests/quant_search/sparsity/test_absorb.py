import numpy as np
import onnx
import pytest
import torch
from sparse_subject import digits, digits_model, run
from torch import nn

from latency.lowering import to_onnx
from quant_search.sparsity.absorb import absorb_means, channel_means
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.selection import score_units, uniform_keep

IMAGES = digits()[0][:200]
X = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)


class Reader(nn.Module):
    """A convolution with two channels that are constant, read by a layer with or without a bias."""

    def __init__(self, kind):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1)
        with torch.no_grad():
            self.first.weight[1:3] = 0
            self.first.bias.copy_(torch.tensor([0.1, 0.7, 0.4, 0.2, 0.3]))
        self.kind = kind
        self.conv = nn.Conv2d(5, 4, 3, bias=kind == "bias")  # no padding: exact
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        y = self.first(x).relu()
        if self.kind == "product":
            return y.mean((2, 3)) @ self.weight
        return self.conv(y)


@pytest.mark.parametrize("kind", ["bias", "none", "product"])
def test_channels_that_are_constant_are_made_good_exactly(kind):
    torch.manual_seed(0)
    model = to_onnx(Reader(kind), X.shape[1:])
    keep = {"/first/Conv": [0, 3, 4]}
    absorbed = absorb_means(model, keep, X)
    onnx.checker.check_model(absorbed, full_check=True)
    assert np.allclose(run(absorbed, X), run(model, X), atol=1e-5)
    assert not np.allclose(run(prune_channels(model, keep), X), run(model, X), atol=1e-2)
    names = [t.name for t in absorbed.graph.initializer]
    used = {name for node in absorbed.graph.node for name in node.input}
    assert len(names) == len(set(names)) and set(names) <= used


def test_means_of_channels_are_those_over_images_and_pixels():
    model = digits_model()
    name = next(node.output[0] for node in model.graph.node if node.name == "/1/Relu")
    inside = onnx.ModelProto()
    inside.CopyFrom(model)
    inside.graph.output.insert(0, onnx.ValueInfoProto(name=name))
    expected = run(inside, IMAGES).mean((0, 2, 3))
    assert np.allclose(channel_means(model, [name], IMAGES)[name], expected, atol=1e-5)


def test_a_trained_network_loses_less():
    model = digits_model()
    groups = channel_groups(model)
    keep = uniform_keep(groups, score_units(model, groups), 0.75)
    wanted = run(model, IMAGES)
    plain, absorbed = (
        run(change, IMAGES) for change in (prune_channels(model, keep), absorb_means(model, keep, IMAGES))
    )
    assert np.square(absorbed - wanted).mean() < 0.8 * np.square(plain - wanted).mean()
    assert [n.name for n in absorb_means(model, keep, IMAGES).graph.node] == [n.name for n in model.graph.node]


def test_images_are_needed_and_nothing_pruned_is_nothing_changed():
    model = digits_model()
    with pytest.raises(ValueError, match="got none"):
        absorb_means(model, {"/0/Conv": [0]}, IMAGES[:0])
    assert absorb_means(model, {}, IMAGES).SerializeToString() == model.SerializeToString()
