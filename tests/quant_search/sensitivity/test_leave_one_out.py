import numpy as np
import pytest

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from latency.runtimes.session import accuracy
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions
from quant_search.sensitivity.leave_one_out import leave_one_out
from quant_search.sensitivity.subject import Subject, by_layer
from tests.quant_search.small_digits import digits, trained

X, Y = (part[1000:1300] for part in digits())
GROUPS = by_layer(trained())


def accuracy_of(chosen):
    file = in_precisions(trained(), GROUPS, chosen, activation_ranges(trained(), X))
    return accuracy(open_session(file.SerializeToString(), parse_device("cpu")), X, Y)


def test_damage_is_the_drop_of_the_files_accuracy():
    found = leave_one_out(Subject(trained(), GROUPS, ("int8", "w2a8"), X, Y))
    group = "/stem.0/Conv"
    assert found.of(group, "w2a8") == pytest.approx(accuracy_of({}) - accuracy_of({group: "w2a8"}), abs=1e-9)
    assert found.of(group, "w2a8") > 0.1 > np.abs(found.damage[:, 0]).max()


def test_all_but_one_is_the_accuracy_that_a_group_wins_back():
    found = leave_one_out(Subject(trained(), GROUPS, ("w3a8",), X, Y), direction="all-but-one")
    group = "/stem.0/Conv"
    rest = accuracy_of({name: "w3a8" for name in GROUPS if name != group})
    assert found.of(group, "w3a8") == pytest.approx(rest - accuracy_of(dict.fromkeys(GROUPS, "w3a8")), abs=1e-9)


def test_it_needs_labels():
    with pytest.raises(ValueError, match="leave-one-out needs the labels of the images, got none: give them, or take"):
        leave_one_out(Subject(trained(), GROUPS, ("int8",), X))
