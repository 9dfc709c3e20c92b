import json
from argparse import Namespace

import numpy as np
import pytest

from experiments.quantized_for_all import __main__ as study
from experiments.quantized_for_all.arms import Arm, supernet, trained
from experiments.quantized_for_all.files import accuracies, difference, subnets
from supernet.data import load_data
from supernet.recipe import Recipe


def test_differences_are_of_pairs():
    these, those = [90.0, 50.0, 70.0], [88.0, 49.0, 67.0]
    mean, low, high = difference(these, those)
    assert mean == pytest.approx(2.0) and 1.0 <= low < 2.0 < high <= 3.0
    assert difference(those, those) == (0.0, 0.0, 0.0)


def test_arms_begin_alike_and_their_files_are_compared(tmp_path):
    data, precisions = load_data("digits"), ("fp32", "w2a8")
    recipe = Recipe(steps=1, batch=16, evaluations=1)
    network, seconds = trained(Arm("two bits", 1, precisions), data, recipe, tmp_path)
    again, known = trained(Arm("two bits", 1, precisions), data, recipe, tmp_path)
    assert seconds == known > 0
    begun = supernet(data, 0).state_dict()
    assert network.state_dict().keys() == begun.keys()
    assert all(np.array_equal(v, again.state_dict()[n]) for n, v in network.state_dict().items())
    archs = subnets(network, precisions, 1, seed=1)
    found = accuracies(network, archs, precisions, data)
    assert list(found) == [*precisions, "mixed"]
    assert all(len(values) == 1 and 0 <= values[0] <= 100 for values in found.values())


def test_the_table_has_each_arm_and_each_difference(tmp_path):
    names = (*study.PRECISIONS, "mixed")
    rows = {study.PLAIN: 90.0, study.FOUR_BITS: 91.0, study.TWO_BITS: 89.0}
    with study.results(tmp_path).open("w") as file:
        for arm, value in rows.items():
            row = {"arm": arm, "steps": 5, "seconds": 7.0, "accuracies": {n: [value, value + 1] for n in names}}
            file.write(json.dumps(row) + "\n")
    table = study.table(tmp_path)
    assert "| fp32 | 5 | 7 | 90.50 |" in table
    assert "| for int8, w4a8 - fp32 | | | +1.00 [+1.00, +1.00] |" in table
    assert "| for int8, w4a8, w2a8 - fp32 | | | -1.00" in table
    assert study.row(Arm(study.PLAIN, 5), None, None, Namespace(out=tmp_path)) == 7.0  # known, not trained anew
