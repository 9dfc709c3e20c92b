"""One supernet for any policy, on a space and images small enough to train in a second."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from nas.candidate import with_policy
from quant_search.for_all import QuantizedForAll
from quant_search.policy import joint_space, policy_of, uniform
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, Sequence
from search_spaces.network import Network, extract, find_blocks, find_space, run
from search_spaces.parts import conv_norm
from search_spaces.value import Choice
from supernet.checkpoint import FILE_NAME, averaged_weights, load_averaged_, load_checkpoint
from supernet.data import Dataset
from supernet.recipe import Recipe
from supernet.train import train_supernet

PRECISIONS = ("fp32", "int8", "w4a8", "w2")
RECIPE = Recipe(steps=6, batch=16, lr=0.05, shift=0, evaluations=1)


class Net(Network):
    """Dense and depthwise convolutions of elastic width and kernel, an elastic depth, a layer that is in no block."""

    def __init__(self, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            super().__init__()
            width = Choice("width", (8, 16))
            self.stem = conv_norm(1, width, 3, act="relu")
            blocks = [
                nn.Sequential(
                    *conv_norm(width, width, Choice(f"kernel{i}", (3, 5)), groups=width, act="relu"),
                    *conv_norm(width, width),
                )
                for i in range(2)
            ]
            self.body = Sequence(*blocks, depth=Choice("depth", (1, 2)))
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.classifier = Linear(width, 3)


def stripes(n: int = 96) -> Dataset:
    """Three kinds of stripes under noise."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.normal(0, 0.5, (n, 1, 6, 6)).astype(np.float32)
    x[y == 0, :, ::2] += 1
    x[y == 1, :, :, ::2] += 1
    cuts = [slice(0, n // 2), slice(n // 2, 3 * n // 4), slice(3 * n // 4, n)]
    (a, b), (c, d), (e, f) = [(x[cut], y[cut]) for cut in cuts]
    return Dataset("stripes", a, b, c, d, e, f, 3, (0.0,), (1.0,), True)


def images(n: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, 1, 6, 6), generator=torch.Generator().manual_seed(seed))


def randomised(seed: int = 0) -> Net:
    """A network whose norms are not at their defaults."""
    net, generator = Net(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, BatchNorm2d):
                for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                    tensor = getattr(norm, name)
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return net


def test_its_space_is_the_joint_one_and_its_state_the_networks_own():
    net = Net()
    quantized = QuantizedForAll(net, PRECISIONS)
    joint = joint_space(find_space(net), find_blocks(net), PRECISIONS)
    assert find_space(quantized, joint.name) == joint
    assert quantized.state_dict().keys() == net.state_dict().keys()
    other = Net(seed=1)
    quantized.load_state_dict(other.state_dict())
    assert all(torch.equal(net.state_dict()[name], value) for name, value in other.state_dict().items())
    largest, smallest = (policy_of(a, find_blocks(net), PRECISIONS) for a in (joint.largest(), joint.smallest()))
    assert set(largest.values()) == {"fp32"} and set(smallest.values()) == {"w2"}


@pytest.mark.parametrize("training", [True, False])
def test_in_fp32_it_is_the_network_bit_for_bit(training):
    net = randomised().train(training)
    quantized = QuantizedForAll(net, PRECISIONS).train(training)
    space = find_space(quantized)
    for row in space.sample(5, np.random.default_rng(0)):
        arch = uniform(space.row(row), "fp32")
        assert torch.equal(run(quantized, images(), arch), run(net, images(), arch))
        assert not torch.equal(run(quantized, images(), uniform(arch, "w4a8")), run(net, images(), arch))


@pytest.mark.parametrize("precision", ["int8", "w4a8", "w2", "mixed"])
def test_it_agrees_with_the_exported_file_of_the_subnet(precision):
    """Logits within 8 % of their range, 2 % in the mean; the same top-1 on 95 % of images.

    What stays is what the file rounds besides: outputs of blocks, and biases, in steps as coarse as the weights.
    """
    net = randomised().eval()
    quantized, blocks, x = QuantizedForAll(net, PRECISIONS), find_blocks(net), images(256)
    space = find_space(quantized)
    for row in space.sample(3, np.random.default_rng(1)):
        arch = space.row(row) if precision == "mixed" else uniform(space.row(row), precision)
        model = to_onnx(extract(net, arch), (1, 6, 6))
        model = with_policy(model, blocks, policy_of(arch, blocks, PRECISIONS), x.numpy())
        file = open_session(model.SerializeToString(), parse_device("cpu")).run(x.numpy())
        with torch.no_grad():
            found = run(quantized, x, arch).numpy()
            again = extract(quantized, arch).eval()(x).numpy()
        off = np.abs(found - file) / np.ptp(file)
        assert off.max() < 0.08 and off.mean() < 0.02
        assert np.mean(found.argmax(1) == file.argmax(1)) > 0.95
        np.testing.assert_allclose(again, found, atol=1e-4)
        plain = run(net, x, arch).detach().numpy()
        assert np.abs(plain - file).max() > 2 * np.abs(found - file).max() or precision == "int8"


def test_gradients_reach_the_weights_of_the_sampled_subnet_alone():
    net = Net()
    quantized = QuantizedForAll(net, PRECISIONS)
    arch = uniform(find_space(quantized).smallest(), "w4a8")
    run(quantized, images(), arch).square().sum().backward()
    assert net.stem[0].weight.grad[:8].ne(0).any() and not net.stem[0].weight.grad[8:].any()
    assert net.body.get_submodule("0.0").weight.grad[:8, :, 1:4, 1:4].ne(0).any()
    assert not net.body.get_submodule("0.0").weight.grad[:, :, 0].any()
    assert all(p.grad is None for p in net.body.get_submodule("1").parameters())


def test_a_copy_rounds_with_its_own_weights():
    quantized = QuantizedForAll(Net(), PRECISIONS)
    other = copy.deepcopy(quantized)
    arch = uniform(find_space(quantized).largest(), "w2")
    expected = run(quantized, images(), arch)
    with torch.no_grad():
        quantized.network.stem[0].weight.zero_()
    assert torch.equal(run(other, images(), arch), expected)
    layers = {m for m in other.modules() if isinstance(m, (Conv2d, Linear))}
    assert set(other._precision_of) == layers


def test_one_precision_is_no_choice():
    net = Net()
    quantized = QuantizedForAll(net, ("w4a8",))
    space = find_space(net)
    assert find_space(quantized, space.name) == space
    rounded, choice = run(quantized, images(), space.largest()), QuantizedForAll(net, PRECISIONS)
    assert torch.equal(rounded, run(choice, images(), uniform(find_space(choice).largest(), "w4a8")))
    assert set(quantized_policy(quantized, space.largest()).values()) == {"w4a8"}


class Mixed(Network):
    """Elastic layers beside plain ones, which are in blocks as well: one in a branch, one that runs twice, a head."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
            width = Choice("width", (4, 8))
            self.stem = conv_norm(1, width, 3, act="relu")
            self.widen = Conv2d(width, 8, 1)
            twice = nn.Conv2d(8, 8, 3, padding=1, groups=2)
            self.body = Sequence(
                nn.Sequential(twice, nn.ReLU(), twice), nn.Conv2d(8, 8, 1), depth=Choice("depth", (1, 2))
            )
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.classifier = nn.Linear(8, 3)


def test_plain_layers_round_as_those_of_the_extracted_network():
    net, x = Mixed().eval(), images(16)
    quantized = QuantizedForAll(net, PRECISIONS).eval()
    space, plain = find_space(quantized), Mixed().eval().classifier
    for row in space.sample(12, np.random.default_rng(0)):
        arch = space.row(row)
        with torch.no_grad():
            assert torch.equal(run(quantized, x, arch), extract(quantized, arch).eval()(x)), arch
    assert torch.equal(net.classifier.weight, plain.weight) and not net.classifier._forward_pre_hooks
    arch = uniform(space.largest(), "w4a8")
    apart = space.architecture({**arch.assignment, "classifier.precision": "fp32"})
    assert not torch.equal(run(quantized, x, arch), run(quantized, x, apart))


def test_gradients_reach_the_weights_of_plain_layers_that_run():
    net = Mixed()
    quantized = QuantizedForAll(net, PRECISIONS)
    run(quantized, images(), uniform(find_space(quantized).smallest(), "w4a8")).square().sum().backward()
    assert net.classifier.weight.grad.ne(0).all() and net.body.get_submodule("0.0").weight.grad.ne(0).any()
    assert net.body.get_submodule("1").weight.grad is None


def quantized_policy(quantized, arch):
    plain = extract(quantized, arch)
    return {n: "w4a8" for n, m in plain.named_modules() if m._forward_pre_hooks}


@pytest.mark.parametrize("precisions", [("int9",), ("int8", "int8"), ()])
def test_precisions_that_there_are_not_are_refused(precisions):
    with pytest.raises(ValueError, match="precision"):
        QuantizedForAll(Net(), precisions)


def test_an_architecture_without_precisions_is_refused():
    net = Net()
    with pytest.raises(ValueError, match=r"no choice 'stem.0.precision'|no choice 'stem.precision'"):
        run(QuantizedForAll(net, PRECISIONS), images(), find_space(net).largest())


class Stop(Exception):
    pass


def stop(state):
    if state.step == 3:
        raise Stop


def test_a_training_goes_on_as_if_never_stopped_and_leaves_the_networks_weights(tmp_path):
    straight, resumed, plain = Net(), Net(seed=9), Net(seed=5)
    history = train_supernet(QuantizedForAll(straight, PRECISIONS), stripes(), RECIPE)
    with pytest.raises(Stop):
        stopped = QuantizedForAll(Net(), PRECISIONS)
        train_supernet(stopped, stripes(), RECIPE, tmp_path, stop, checkpoint_every_s=0.0)
    again = train_supernet(QuantizedForAll(resumed, PRECISIONS), stripes(), RECIPE, tmp_path)
    assert [e.loss for e in again.entries] == [e.loss for e in history.entries]
    load_averaged_(plain, tmp_path / FILE_NAME)
    assert averaged_weights(load_checkpoint(tmp_path / FILE_NAME)).keys() == straight.state_dict().keys()
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]) and torch.equal(value, plain.state_dict()[name])
    with pytest.raises(ValueError, match="cannot resume: search space digest"):
        train_supernet(QuantizedForAll(Net(), PRECISIONS[:2]), stripes(), RECIPE, tmp_path)


def test_it_learns_for_few_bits():
    recipe = dataclasses.replace(RECIPE, steps=40, batch=24, lr=0.1)
    history = train_supernet(QuantizedForAll(Net(), ("fp32", "w2a8")), stripes(240), recipe)
    assert history.final.val_largest > 0.8 and history.final.val_smallest > 0.6
