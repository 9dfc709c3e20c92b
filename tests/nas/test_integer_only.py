"""Files in integers alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import nas.integer_only
from latency.device import parse_device
from latency.lowering import to_onnx
from nas.errors import CannotBeDone
from nas.integer_only import check_integers, in_integers
from nas.quantizing import Made, Wanted, best_of
from quant_search.dyadic import run_integers, with_dyadic_scales
from quant_search.ptq.intake import prepared
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions
from quant_search.sensitivity.subject import by_layer
from tests.quant_search.small_digits import digits, trained

X, Y = digits()
CPU = parse_device("cpu")


def int8(model):
    groups = by_layer(model)
    return with_dyadic_scales(
        in_precisions(model, groups, dict.fromkeys(groups, "int8"), activation_ranges(model, X[:64]))
    )


def test_integers_and_the_run_time_agree_on_classes(monkeypatch):
    model = int8(prepared(trained()))
    found = in_integers(model, model.SerializeToString(), CPU, X[1000:1100])
    assert found.images == 64 and found.same_class >= 0.95
    assert in_integers(model, model.SerializeToString(), CPU, X[:10]).images == 10
    monkeypatch.setattr(nas.integer_only, "run_integers", lambda *a: np.eye(10)[run_integers(*a).argmin(1)])
    assert in_integers(model, model.SerializeToString(), CPU, X[:10]).same_class == 0


def test_channels_without_weights_run_in_integers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        network[2].weight[1].zero_()
        network[0].weight[2].zero_()
        network[0].bias[2] = 0
    model = int8(prepared(to_onnx(network, (1, 8, 8))))
    assert in_integers(model, model.SerializeToString(), CPU, X[:64]).same_class > 0.95


@pytest.mark.parametrize(("between", "reason"), [(nn.Hardswish(), "HardSwish"), (nn.Sigmoid(), "Sigmoid")])
def test_a_network_with_floats_between_codes_is_refused(between, reason):
    model = prepared(to_onnx(nn.Sequential(nn.Conv2d(1, 4, 3), between, nn.Conv2d(4, 10, 6), nn.Flatten()), (1, 8, 8)))
    with pytest.raises(ValueError, match=f"is a {reason}, which is not computed in integers: leave integer-only out"):
        check_integers(model, by_layer(model), X[:1])
    model = prepared(trained())
    check_integers(model, by_layer(model), X[:1])


def test_a_file_that_loses_too_much_is_none():
    accuracies = {"fp32": 0.9, "int8": 0.88}
    files = [Made(name, {"conv": name}, b"", share, 1.0, 1.0) for name, share in accuracies.items()]
    wanted = Wanted(("int8",), 0.02, "latency", "nearest", "kl", integer_only=True)
    assert best_of(files, wanted).name == "int8"
    with pytest.raises(CannotBeDone, match=r"2\.00 points of validation accuracy are lost, and 0\.5 may be"):
        best_of(files, replace(wanted, max_drop=0.005))
