"""A pruned network that is trained on."""

import numpy as np
import pytest
from onnx import numpy_helper

import nas.finetune_pruned
from latency.device import parse_device
from nas.finetune_pruned import finetune_pruned
from nas.sparsify import sparsified
from quant_search.ptq.intake import prepared
from quant_search.sparsity.criterion import Examples
from quant_search.sparsity.weighted import weights_of, with_weights, zeros_of
from supernet.data import Dataset
from tests.quant_search.small_digits import digits, trained

X, Y = digits()
PARTS = {"x_train": X[:1000], "y_train": Y[:1000], "x_val": X[1000:1400], "y_val": Y[1000:1400]}
DIGITS = Dataset(
    "digits", **PARTS, x_test=X[1400:], y_test=Y[1400:], num_classes=10, mean=(0.0,), std=(1.0,), flip=False
)


@pytest.fixture(scope="module")
def given():
    return prepared(trained())


def tuned(given, sparsity, steps):
    pruned = sparsified(given, sparsity, Examples(X[:64], Y[:64]), lambda file: len(file.SerializeToString()))
    counted = []
    found = finetune_pruned(pruned, given, sparsity, DIGITS, parse_device("cpu"), steps, 0, lambda: counted.append(1))
    assert len(counted) == found.steps == steps
    return pruned, found


@pytest.mark.parametrize("sparsity", ["1:4", "16x4:0.4", "unstructured:0.8"])
def test_zeros_stay_and_accuracy_comes_back(given, sparsity):
    pruned, found = tuned(given, sparsity, 40)
    assert found.kept and found.after.val_accuracy > found.before.val_accuracy
    after = weights_of(found.model)
    for name, weight in weights_of(pruned).items():
        assert not after[name][weight == 0].any() or (weight == 0).mean() < 0.1, name
    assert zeros_of(found.model) == pytest.approx(zeros_of(pruned), abs=0.01)


def test_fewer_channels_are_trained_on_too(given):
    pruned, found = tuned(given, "channels:0.5", 40)
    assert [t.dims for t in pruned.graph.initializer] == [t.dims for t in found.model.graph.initializer]
    assert found.after.val_accuracy >= found.before.val_accuracy
    assert set(found.plain()) == {"steps", "kept", "val_accuracy", "accuracy"}


def test_what_became_worse_is_left_out(given, monkeypatch):
    def ruin(model, *_, **__):
        return with_weights(model, {t.name: 0 * numpy_helper.to_array(t) for t in model.graph.initializer if t.dims})

    monkeypatch.setattr(nas.finetune_pruned, "fine_tune", lambda *a, on_step, **k: on_step() or ruin(*a))
    pruned, found = tuned(given, "2:4", 1)
    assert not found.kept and found.model is pruned and found.plain()["val_accuracy"]["after"] < 0.3
    assert np.isclose(zeros_of(found.model), zeros_of(pruned))
