import numpy as np
import pytest
import torch

from latency.runtimes.onnx_to_torch import to_torch
from quant_search.layers import layers_of
from quant_search.sensitivity.subject import Subject, by_layer
from quant_search.sensitivity.weight_loss import WeightLoss
from tests.quant_search.small_digits import digits, trained

X, Y = (part[:20] for part in digits())
SUBJECT = Subject(trained(), by_layer(trained()), ("fp32", "int8", "w2a8"), X, Y)


@pytest.mark.parametrize("batch", [1, 7, 20, 100])
def test_parts_add_up_to_the_mean_loss_of_the_file(batch):
    logits = to_torch(trained())(torch.from_numpy(X))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(Y)).item()
    parts = list(WeightLoss(SUBJECT, "hessian").parts(batch))
    assert len(parts) == -(-20 // batch) and sum(part.item() for part in parts) == pytest.approx(expected, rel=1e-5)


def test_every_weight_gets_a_gradient_and_belongs_to_its_group():
    loss = WeightLoss(SUBJECT, "hessian")
    (part,) = loss.parts(100)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(part, list(loss.weights.values())))
    of = {layer.weight: group for group, nodes in SUBJECT.groups.items() for layer in layers_of(SUBJECT.model, nodes)}
    assert loss.group_of == of and len(of) == 6


def test_changes_are_those_of_rounding():
    loss, group = WeightLoss(SUBJECT, "hessian"), "/down.0/Conv"
    sizes = []
    for option in ("fp32", "int8", "w2a8"):
        (change,) = loss.changes(group, option).values()
        assert change.shape == (16, 4, 3, 3)
        sizes.append(np.square(change).sum())
    assert sizes[0] == 0 < 100 * sizes[1] < sizes[2]


def test_labels_have_to_be_classes_of_the_model():
    for labels in (Y + 8, Y - 1):
        with pytest.raises(ValueError, match="hessian needs logits"):
            WeightLoss(Subject(trained(), SUBJECT.groups, ("int8",), X, labels), "hessian")
    with pytest.raises(ValueError, match="fisher needs the labels of the images, got none"):
        WeightLoss(Subject(trained(), SUBJECT.groups, ("int8",), X), "fisher")
