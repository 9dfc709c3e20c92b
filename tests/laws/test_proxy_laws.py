"""Laws of zero-cost proxies, over every one of them."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from predictors.zero_cost.catalog import PROXIES
from predictors.zero_cost.proxy import CannotScore

every = pytest.mark.parametrize("name", PROXIES)
ROOT = Path(__file__).parents[2]


def network(inplace=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace), nn.Conv2d(8, 12, 3, 2, 1)]
    return nn.Sequential(*layers, nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))


def data(seed=0, b=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, 3, 8, 8, generator=generator), torch.randint(0, 5, (b,), generator=generator)


def score(name, net=None, seed=0):
    return PROXIES[name].score(network() if net is None else net, *data(), seed)


@every
def test_a_score_is_a_number_and_the_same_again(name):
    first = score(name)
    assert isinstance(first, float) and math.isfinite(first)
    with torch.no_grad():
        torch.manual_seed(99)
        assert score(name, network().eval().requires_grad_(False)) == first


@every
def test_the_network_is_left_as_it_was_found(name):
    net = network()
    net[1].eval()
    net[0].weight.requires_grad = False
    net(data(1)[0]).sum().backward()
    before, images, labels = copy.deepcopy(net.state_dict()), *data()
    gradients = [p.grad if p.grad is None else p.grad.clone() for p in net.parameters()]
    flags = [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    PROXIES[name].score(net, images, labels, seed=5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        assert (p.grad is None and gradient is None) or torch.equal(p.grad, gradient)
    assert flags == ([p.requires_grad for p in net.parameters()], [m.training for m in net.modules()])
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert not any(getattr(m, hook) for m in net.modules() for hook in hooks)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(images, data()[0]) and not images.requires_grad


@every
def test_activations_that_work_in_place_change_nothing(name):
    assert score(name, network(inplace=True)) == score(name)


@every
def test_gradients_that_were_there_change_nothing(name):
    net = network()
    net(data(1)[0]).sum().backward()
    assert score(name, net) == score(name)


@every
def test_dropout_is_drawn_from_the_seed(name):
    net = network()
    net.insert(5, nn.Dropout(0.5))
    assert score(name, net, seed=3) == score(name, net, seed=3)


@every
@pytest.mark.parametrize("kind", ["zero weights", "no layers", "huge weights"])
def test_a_network_without_meaning_is_refused_or_has_a_number(name, kind):
    net = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()) if kind == "no layers" else network()
    for p in net.parameters():
        nn.init.constant_(p, 0.0 if kind == "zero weights" else 1e38)
    try:
        assert math.isfinite(score(name, net))
    except CannotScore as refusal:
        assert len(str(refusal)) > 20


@every
def test_images_and_labels_of_other_shapes_are_refused(name):
    images, labels = data()
    for wrong in [(images[0], labels), (images, labels[:3]), (images[:1], labels[:1]), (images * math.nan, labels)]:
        with pytest.raises(ValueError, match="images"):
            PROXIES[name].score(network(), *wrong)


@every
@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (np.ones((8, 3, 8, 8)), data()[1], TypeError, "images are a torch.Tensor, got ndarray"),
        (data()[0], [0] * 8, TypeError, "labels are a torch.Tensor, got list"),
        (data()[0].double(), data()[1], ValueError, "torch.float32 on cpu, got torch.float64 on cpu: convert by"),
        (torch.ones(8, 3, 8, 8, dtype=torch.uint8), data()[1], ValueError, "got torch.uint8 on cpu: convert by"),
        (data()[0].to("meta"), data()[1], ValueError, "got torch.float32 on meta: convert by"),
        (data()[0], data()[1].to("meta"), ValueError, "on the device of the images, cpu, got meta"),
        (data()[0], data()[1].float(), ValueError, "labels of an integer type, got torch.float32"),
        (data()[0], data()[1] > 0, ValueError, "labels of an integer type, got torch.bool"),
    ],
)
def test_images_and_labels_of_other_types_are_refused(name, images, labels, error, words):
    with pytest.raises(error, match=words):
        PROXIES[name].score(network(), images, labels)


@every
def test_any_integers_are_labels(name):
    images, labels = data()
    assert PROXIES[name].score(network(), images, labels.int()) == score(name)


@pytest.mark.parametrize("name", [name for name in PROXIES if name != "params"])
def test_a_network_that_returns_more_than_logits_is_refused(name):
    class Pair(nn.Sequential):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(TypeError, match="returns a tensor of logits, got tuple: wrap it"):
        score(name, Pair(*network()))


@every
def test_batch_norm_after_a_global_pooling_is_scored_or_refused(name):
    net = network()
    net.insert(6, nn.BatchNorm2d(12))
    if name in ("gradsign", "meco"):  # those that look at one image alone
        with pytest.raises(CannotScore, match=r"batch norm of one image .* got an input of \(1, 12, 1, 1\)"):
            score(name, net)
    else:
        assert math.isfinite(score(name, net))


@pytest.mark.parametrize("name", ["grad_norm", "snip", "grasp", "fisher", "zico", "gradsign"])
def test_labels_that_the_network_has_no_output_for_are_refused(name):
    images, labels = data()
    with pytest.raises(ValueError, match="labels below the number of classes"):
        PROXIES[name].score(network(), images, labels + 5)


def test_only_baselines_and_winners_are_special():
    assert {name for name, entry in PROXIES.items() if entry.baseline} == {"params", "macs"}
    assert all(entry.summary and entry.source for entry in PROXIES.values())


def test_importing_the_catalog_loads_no_torch():
    code = "import sys, predictors.zero_cost.catalog; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
