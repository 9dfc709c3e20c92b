import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sparse_subject import digits_model, run, train_examples

from quant_search.sparsity.channels import channel_groups
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.selection import unit_scores
from quant_search.sparsity.taylor import taylor
from quant_search.sparsity.weighted import layers_of, weights_of, with_weights

FEW = Examples(train_examples().images[:24], train_examples().labels[:24], batch=24)


def loss(model):
    return float(F.cross_entropy(torch.from_numpy(run(model, FEW.images)), torch.from_numpy(FEW.labels)))


def test_scores_are_squares_of_what_the_loss_changes_by_to_first_order():
    model = digits_model()
    (layer,) = layers_of(model, ["/2/Conv"])
    scores = taylor(model, [layer], FEW)[layer.weight]
    weight = weights_of(model)[layer.weight]
    for place in zip(*np.unravel_index(np.argsort(-scores, axis=None)[:3], scores.shape), strict=True):
        ends = []
        for factor in (1.05, 0.95):
            other = weight.copy()
            other[place] *= factor
            ends.append(loss(with_weights(model, {layer.weight: other})))
        assert ((ends[0] - ends[1]) / 0.1) ** 2 == pytest.approx(scores[place], rel=0.05)


def test_scores_of_batches_are_averaged():
    model = digits_model()
    layers = layers_of(model)[:1]
    parts = [Examples(FEW.images[i : i + 8], FEW.labels[i : i + 8]) for i in (0, 8, 16)]
    each = [taylor(model, layers, part)[layers[0].weight] for part in parts]
    whole = taylor(model, layers, Examples(FEW.images, FEW.labels, batch=8))[layers[0].weight]
    assert np.allclose(whole, np.mean(each, axis=0))


def test_a_channel_has_the_sum_of_what_makes_it():
    model = digits_model()
    group = channel_groups(model)[0]
    (layer,) = layers_of(model, ["/0/Conv"])
    scores = taylor(model, [layer], FEW)
    assert np.allclose(unit_scores(group, scores), scores[layer.weight].sum((1, 2, 3)))


def test_examples_are_needed():
    with pytest.raises(ValueError, match="'taylor' needs images with their classes"):
        taylor(digits_model(), layers_of(digits_model()))
