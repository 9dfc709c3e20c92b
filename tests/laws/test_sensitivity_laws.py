"""Laws of sensitivity, over every measure: more damage by fewer bits, and where a network loses accuracy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from quant_search.sensitivity.catalog import MEASURES
from quant_search.sensitivity.subject import Subject, by_layer
from tests.quant_search.small_digits import digits, trained
from tests.quant_search.tied import some_images, tied

OPTIONS = ("fp32", "int8", "w4a8", "w3a8", "w2a8")
FEW = {"hessian": {"probes": 12}}  # enough for an order
X, Y = (part[1000:] for part in digits())  # what the network was not trained on


@pytest.fixture(scope="module", params=MEASURES)
def measured(request):
    """A measure's entry, name, and what it finds on images of the training."""
    subject = Subject(trained(), by_layer(trained()), OPTIONS, X[:160], Y[:160])
    before = trained().SerializeToString()
    found = MEASURES[request.param].measure(subject, **FEW.get(request.param, {}))
    assert trained().SerializeToString() == before
    return request.param, MEASURES[request.param], subject, found


@pytest.fixture(scope="module")
def drops():
    """Accuracy that each option costs each group, on other images."""
    return MEASURES["leave-one-out"].measure(Subject(trained(), by_layer(trained()), OPTIONS, X[160:], Y[160:]))


def test_a_damage_for_every_group_and_option_and_none_in_fp32(measured):
    name, _, subject, found = measured
    assert found.measure == name and found.groups == tuple(subject.groups) and found.options == OPTIONS
    assert found.damage.shape == (6, 5) and np.isfinite(found.damage).all() and found.seconds > 0
    assert not found.damage[:, 0].any()


def test_fewer_bits_do_more_damage(measured):
    *_, found = measured
    if found.measure == "leave-one-out":  # comes in steps of an image
        assert np.all(np.diff(found.damage.mean(axis=0)) > -0.01)
    else:
        assert np.all(np.diff(found.damage.mean(axis=0)) > 0) and np.all(found.damage[:, 4] > found.damage[:, 2])


def test_damage_orders_layers_and_bits_as_the_measured_drop_of_accuracy_does(measured, drops):
    *_, found = measured
    lost = drops.damage[:, 1:].ravel()
    assert spearmanr(found.damage[:, 1:].ravel(), lost).statistic > 0.6
    assert spearmanr(found.damage[:, 4], drops.damage[:, 4]).statistic >= 0.5


def test_the_same_subject_gives_the_same_damage(measured):
    name, entry, _, _ = measured
    subject = Subject(trained(), by_layer(trained()), ("int8", "w2a8"), X[:16], Y[:16])
    first, second = (entry.measure(subject, **FEW.get(name, {})).damage for _ in range(2))
    assert np.array_equal(first, second)


def test_a_measure_says_whether_it_needs_labels_and_sees_activations(measured):
    name, entry, _, _ = measured
    subject = Subject(trained(), by_layer(trained()), ("w4", "w4a8"), X[:16])
    if entry.labels:
        with pytest.raises(ValueError, match=f"{name} needs the labels"):
            entry.measure(subject)
        subject = Subject(trained(), by_layer(trained()), ("w4", "w4a8"), X[:16], Y[:16])
    alone, both = entry.measure(subject, **FEW.get(name, {})).damage.T
    if name != "leave-one-out":
        assert np.array_equal(alone, both) is not entry.activations


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "leave-one-out"])
def test_a_shared_weight_does_damage_wherever_it_is_read(name):
    x, y = some_images()
    found = MEASURES[name].measure(Subject(tied(), by_layer(tied()), ("fp32", "w4a8"), x, y)).rows()
    assert found.keys() == {"stem", "one", "last"} and all(row["w4a8"] > row["fp32"] == 0 for row in found.values())
    with pytest.raises(ValueError, match="groups 'a' and 'b' share the weight 'w': put them into one group"):
        Subject(tied(), {"a": ["one"], "b": ["two"]}, ("w4a8",), x, y)
