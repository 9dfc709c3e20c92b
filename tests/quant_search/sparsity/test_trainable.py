import numpy as np
import pytest
import torch
from sparse_subject import digits, digits_model, run, train_examples

from quant_search.sparsity.trainable import Trainable, batches
from quant_search.sparsity.weighted import layers_of, weights_of

IMAGES = digits()[0][:20]


def test_it_computes_what_the_model_does_and_gradients_reach_the_weights():
    model = digits_model()
    names = [layer.weight for layer in layers_of(model)]
    trainable = Trainable(model, names[:2])
    logits = trainable(torch.from_numpy(IMAGES))
    assert np.abs(logits.detach().numpy() - run(model, IMAGES)).max() < 1e-4
    logits.square().sum().backward()
    assert list(trainable.weights) == names[:2]
    assert all(tensor.grad.abs().max() > 0 for tensor in trainable.weights.values())


def test_changed_weights_are_those_of_the_new_model_alone():
    model = digits_model()
    name = layers_of(model)[0].weight
    trainable = Trainable(model, [name])
    with torch.no_grad():
        trainable.weights[name].mul_(0.5)
    changed = trainable.model()
    assert np.allclose(weights_of(changed)[name], weights_of(model)[name] / 2)
    found = trainable(torch.from_numpy(IMAGES)).detach().numpy()
    assert np.abs(found - run(changed, IMAGES)).max() < 1e-4 < np.abs(found - run(model, IMAGES)).max()


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="weight 'x'"):
        Trainable(digits_model(), ["x"])


def test_batches_hold_every_example_once_in_order():
    parts = list(batches(train_examples(batch=500)))
    assert [len(labels) for _, labels in parts] == [500, 500, 200]
    assert (torch.cat([images for images, _ in parts]).numpy() == train_examples().images).all()
