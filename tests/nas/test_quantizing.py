"""The choice among measured files, and the problem that proposes them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from latency.measurement import Measurement
from latency.timing import Timing
from nas.layer_costs import LayerCosts
from nas.quantizing import Final, Made, Wanted, allocation_problem, best_of, choose
from quant_search.allocate import allocate, dual
from quant_search.ptq.intake import prepared
from quant_search.sensitivity.subject import Sensitivity, by_layer
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern


def made(name, val_accuracy, latency_s, size=1, agreement=1.0, twin="", chosen=()):
    return Made(name, dict(enumerate(chosen)), b"x" * size, val_accuracy, agreement, latency_s, twin=twin)


FP32 = made("fp32", 0.90, 10.0, 100)


@pytest.mark.parametrize(
    ("files", "drop", "best"),
    [
        ([made("int8", 0.88, 5.0), made("mixed", 0.895, 6.0)], 0.01, "mixed"),  # int8 loses too much
        ([made("int8", 0.88, 5.0), made("mixed", 0.895, 6.0)], 0.02, "int8"),
        ([made("int8", 0.890, 5.0), made("mixed", 0.893, 5.1)], 0.02, "mixed"),  # as fast, and loses less
        ([made("int8", 0.893, 5.0), made("mixed", 0.893, 4.9)], 0.02, "mixed"),
        ([made("int8", 0.893, 5.0, agreement=0.9), made("mixed", 0.893, 4.9, agreement=0.8)], 0.02, "int8"),
        ([made("int8", 0.5, 5.0)], 0.01, "fp32"),
        ([made("int8", 0.91, 11.0)], 0.01, "fp32"),  # better, but slower
    ],
)
def test_the_fastest_that_loses_little(files, drop, best):
    assert best_of([FP32, *files], Wanted(max_drop=drop)).name == best


def test_the_smallest_that_loses_little():
    files = [FP32, made("int8", 0.9, 12.0, 50), made("w4a8", 0.89, 12.0, 30)]
    for drop, best in ((0.02, "w4a8"), (0.005, "int8")):
        assert best_of(files, Wanted(("fp32", "int8", "w4a8"), drop, "size")).name == best


def test_a_precision_that_is_not_wanted_is_not_chosen():
    files = [FP32, made("int8", 0.9, 5.0, 50, chosen=["int8"] * 2), made("w2", 0.9, 6.0, 60, chosen=["w2", "fp32"])]
    for objective in ("latency", "size"):
        assert best_of(files, Wanted(("fp32", "w2"), 0.1, objective)).name == "w2"


@pytest.mark.parametrize(
    ("sparse_s", "objective", "best"),
    [(5.0, "latency", "int8"), (4.9, "latency", "int8"), (4.8, "latency", "sparse int8"), (5.0, "size", "sparse int8")],
)
def test_a_sparse_file_has_to_be_faster_than_its_dense_twin(sparse_s, objective, best):
    files = [FP32, made("int8", 0.89, 5.0, 50), made("sparse int8", 0.9, sparse_s, 40, twin="int8")]
    assert best_of(files, Wanted(max_drop=0.02, objective=objective)).name == best


def test_a_sparse_file_has_to_be_faster_when_it_is_measured_carefully_too():
    files = [FP32, made("int8", 0.89, 5.0), made("sparse fp32", 0.89, 4.0, twin="fp32")]
    files.append(made("sparse int8", 0.89, 3.0, twin="int8"))
    verified, careful = [], {"fp32": 10.0, "int8": 3.05, "sparse int8": 3.0, "sparse fp32": 4.0}

    def verify(some):
        verified.append([own.name for own in some])
        timings = {own.name: Timing((careful[own.name],), 1, (1.0,), (1,)) for own in some}
        return {own.name: Final(own, 0.9, Measurement("", "cpu", "", timings[own.name])) for own in some}

    chosen, final = choose(files, Wanted(max_drop=0.02), verify)
    assert chosen.name == "sparse fp32" and set(final) == {"fp32", "int8", "sparse fp32"}
    assert verified[0] == ["fp32", "int8", "int8", "sparse int8"]
    careful["int8"] = 3.5
    assert choose(files, Wanted(max_drop=0.02), verify)[0].name == "sparse int8"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    return prepared(to_onnx(network.eval(), (1, 8, 8)))


def problem(model, wanted, *damages):
    groups = by_layer(model)
    names = tuple(groups)
    options = tuple(p for p in wanted.precisions if p != "fp32")
    damage = Sensitivity("kl", names, options, np.array(damages), 0.0)
    seconds = {name: {"fp32": 4.0, "int8": 1.0} for name in names}
    costs = LayerCosts(seconds, {name: {"fp32": 0.5, "int8": 0.25} for name in names})
    return allocation_problem(model, groups, wanted, damage, costs)


def test_the_problem_counts_time_damage_and_changes(model):
    found = problem(model, Wanted(), [0.1], [-0.2])
    conv, gemm = found.layers
    table = found.table("latency_s")
    assert [table.total((i, j)) for i in (0, 1) for j in (0, 1)] == [8.0, 5.5, 5.25, 2.0]
    assert found.damage.total((1, 1)) == pytest.approx(0.1)  # a gain is noise
    best = allocate(dual(found, "latency_s", 0.0))
    assert best.damage == 0 and best.costs["latency_s"] == 5.5
    assert best.choice == {conv: "fp32", gemm: "int8"}


def test_sizes_are_those_of_weights(model):
    wanted = Wanted(("fp32", "int8", "w4a8"), objective="size")
    found = problem(model, wanted, [0.1, 0.2], [0.3, math.pi])
    assert found.table("size_bytes").rows == ((36 * 4, 36, 18), (432 * 4, 432, 216))
    few = problem(model, Wanted(("fp32", "w2a8", "w6"), objective="size"), [0.1, 0.2], [0.3, 0.4])
    assert found.table("size_bytes").rows[0][1:] == few.table("size_bytes").rows[0][:0:-1]  # as files hold them


def test_sizes_of_weights_with_zeros_are_those_of_values_and_bits(model):
    wanted = Wanted(("fp32", "int8", "w4a8"), objective="size", sparsity="unstructured:0.5")
    masked = apply_masks(model, masks_of(model, parse_pattern("unstructured:0.75")))
    found = problem(masked, wanted, [0.1, 0.2], [0.3, 0.4])
    conv, gemm = 36, 432
    rows = [tuple(n / 4 * each + n / 8 for each in (4, 1, 0.5)) for n in (conv, gemm)]
    assert found.table("size_bytes").rows == tuple(rows)
    dense = problem(model, wanted, [0.1, 0.2], [0.3, 0.4])
    assert dense.table("size_bytes").rows == ((144, 36, 18), (1728, 432, 216))  # no zeros, no gain
