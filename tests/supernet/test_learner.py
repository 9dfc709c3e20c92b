import pytest
import torch
from small_supernet import RECIPE, same, small_dataset, small_net, weights
from torch import nn

from search_spaces.elastic import Conv2d, Linear, add_kernel_transforms_, kernel_transforms_in
from search_spaces.network import find_space, run
from search_spaces.value import Choice
from supernet.batches import batch_indices
from supernet.catalog import OPTIMIZERS
from supernet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from supernet.distill import kl_divergence, label_loss
from supernet.learner import Learner, default_shift
from supernet.lesson import TrainingDiverged
from supernet.recipe import Recipe
from supernet.strategies.sandwich import Sandwich

DATA = small_dataset()


def learner(recipe=RECIPE, total_steps=8, net=None):
    net = small_net() if net is None else net
    return Learner(net, find_space(net), DATA, recipe, total_steps)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_carries_everything_a_step_depends_on_through_a_file(optimizer, tmp_path):
    recipe = Recipe(epochs=4, batch=16, lr=0.01, optimizer=optimizer)
    straight = learner(recipe)
    for t in range(8):
        straight.step(t)
    first = learner(recipe)
    for t in range(4):
        first.step(t)
    tensors, numbers = first.state()
    save_checkpoint(Checkpoint(tensors, numbers), tmp_path / "c.safetensors")
    kept = load_checkpoint(tmp_path / "c.safetensors")
    second = learner(recipe, net=small_net(seed=1))
    second.load_(kept.tensors, kept.meta)
    for t in range(4, 8):
        second.step(t)
    assert same(weights(straight.network), weights(second.network))
    assert same(weights(straight.averaged), weights(second.averaged))


def test_global_generators_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    learner().step(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_learning_rate_rises_then_falls_to_nothing():
    subject = learner(Recipe(epochs=1, batch=16, lr=0.2, warmup=0.25), total_steps=16)
    rates = [subject.step(t).lr for t in range(16)]
    peak = rates.index(max(rates))
    assert peak == 4
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[0] < 0.2
    assert rates[-1] < 0.02 * 0.2


def test_no_decay_on_norms_and_biases():
    for group in learner(Recipe(epochs=1, weight_decay=0.5)).optimizer.param_groups:
        assert all((p.dim() > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_no_decay_on_kernel_transforms():
    net = nn.Sequential(Conv2d(1, 4, Choice("kernel", (3, 5))), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(4, 3))
    add_kernel_transforms_(net)
    names = kernel_transforms_in(net.state_dict())
    assert names == ["0.transform_5to3"]
    plain = [g for g in learner(Recipe(epochs=1), net=net).optimizer.param_groups if g["weight_decay"] == 0]
    assert any(p is net.get_parameter(names[0]) for group in plain for p in group["params"])


def test_gradient_is_the_sum_over_the_sandwich():
    """Without randoms and clipping, the first SGD step is (1 + momentum) times the sum of two gradients."""
    recipe = Recipe(
        epochs=1, batch=40, lr=0.1, momentum=0.5, weight_decay=0.0, optimizer="sgd", label_smoothing=0.1, clip=None,
        strategy=Sandwich(randoms=0), shift=0, warmup=0.0,
    )  # fmt: skip
    data = small_dataset()
    net, slow = small_net().eval(), small_net().train()
    net.drop.p = slow.drop.p = 0.0
    space = find_space(slow)
    subject = Learner(net, space, data, recipe, 10)
    subject.flip = False
    subject.step(0)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    teacher = run(slow, x, space.largest())
    (label_loss(teacher, y, 0.1) + kl_divergence(run(slow, x, space.smallest()), teacher)).backward()
    for p, q in zip(net.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(p, q - 0.15 * q.grad, rtol=1e-4, atol=1e-5)


def test_divergence_is_named_and_changes_no_weight():
    subject = learner()
    subject.step(0)
    subject.x = subject.x * float("nan")
    before = weights(subject.network)
    with pytest.raises(TrainingDiverged, match=r"at step 1: the loss is nan .*; use a lower lr \(now 0\.05\)$"):
        subject.step(1)
    assert same(before, weights(subject.network))


def test_each_step_has_its_own_batch():
    subject = learner()
    subject.x = subject.x.clone()
    subject.x[batch_indices(len(DATA.y_train), RECIPE.batch, RECIPE.seed, 1)] = float("nan")
    subject.step(0)
    with pytest.raises(TrainingDiverged, match="at step 1"):
        subject.step(1)


def test_another_network_is_refused():
    tensors, numbers = learner().state()
    tensors.pop("weights/classifier.bias")
    with pytest.raises(ValueError, match=r"the checkpoint is of another network: .*classifier\.bias"):
        learner().load_(tensors, numbers)


@pytest.mark.parametrize("bad", ["inf", "nan"])
def test_weights_that_are_not_finite_are_never_kept(bad):
    subject = learner()
    subject.check_weights(0)
    subject.network.classifier.bias.data[1] = float(bad)
    with pytest.raises(TrainingDiverged, match=f"at step 3: the largest weight is {bad}"):
        subject.check_weights(3)


def test_small_images_are_not_shifted_by_default():
    assert [default_shift(side) for side in (8, 15, 16, 32, 224)] == [0, 0, 2, 4, 28]
