import numpy as np
import pytest
import torch

from quant_search.sensitivity.fisher import fisher
from quant_search.sensitivity.subject import Subject, by_layer
from quant_search.sensitivity.weight_loss import WeightLoss
from tests.quant_search.small_digits import digits, trained


def test_damage_is_each_images_squared_gradient_times_the_squared_change():
    x, y = (part[:6] for part in digits())
    groups, steps = by_layer(trained()), []
    subject = Subject(trained(), groups, ("fp32", "w3a8"), x, y)
    found = fisher(subject, progress=lambda *done: steps.append(done))
    assert steps == [(i + 1, 6) for i in range(6)]
    expected = dict.fromkeys(groups, 0.0)
    for i in range(6):
        loss = WeightLoss(Subject(trained(), groups, ("w3a8",), x[i : i + 1], y[i : i + 1]), "fisher")
        (part,) = loss.parts(1)
        for name, gradient in zip(loss.weights, torch.autograd.grad(part, list(loss.weights.values())), strict=True):
            change = loss.changes(loss.group_of[name], "w3a8")[name]
            expected[loss.group_of[name]] += float((gradient.numpy() ** 2 * change**2).sum()) / 6
    assert found.damage[:, 1] == pytest.approx(list(expected.values()), rel=1e-4)
    assert not found.damage[:, 0].any() and np.all(found.damage[:, 1] > 0)
