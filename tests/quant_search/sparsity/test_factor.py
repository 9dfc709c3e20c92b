import dataclasses
import json

import pytest
from sparse_subject import CPU

from latency.compare import compare
from latency.device import parse_device
from latency.graph import kernels_of, totals
from latency.store import MeasurementStore
from latency.timing import Timing
from latency.worker import Effort, Worker
from quant_search.sparsity.factor import (
    Factor,
    check_pays,
    check_precision_pays,
    factor_of,
    measured_factor,
    measured_precision,
    network,
    refusal,
    sparse,
)
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.patterns import Channels, Dense, NofM
from quant_search.sparsity.weighted import layers_of, zeros_of

EFFORT = Effort(rounds=2, most_rounds=2, samples=2, sample_s=1e-5)
SLOW = Factor("2:4", "cpu", "fp32", 1.004, (0.98, 1.02), 1.0)
FAST = Factor("channels:0.5", "cpu", "int8", 2.5, (2.4, 2.6), 1.005)


def timing(seconds):
    return Timing((seconds,) * 20, 1, (seconds,) * 20, (10, 10))


def test_the_factor_is_dense_over_sparse_with_its_interval():
    found = factor_of("2:4", "int8", CPU, compare(timing(1.2), timing(1.2), timing(0.8)))
    assert found == Factor("2:4", "cpu", "int8", pytest.approx(1.5), (pytest.approx(1.5), pytest.approx(1.5)), 1.0)
    assert found.pays and str(found) == "1.50 (1.50 to 1.50)"
    slower = factor_of("2:4", "fp32", CPU, compare(timing(1.0), timing(1.01), timing(2.0)))
    assert (
        not slower.pays and slower.speedup == pytest.approx(0.5, rel=0.01) and slower.control == pytest.approx(1 / 1.01)
    )


@pytest.mark.parametrize(
    ("speedup", "interval", "control", "pays"),
    [
        (1.05, (1.04, 1.06), 1.0, True),
        (1.05, (1.03, 1.07), 1.0, False),  # all of the interval must be above
        (1.20, (1.02, 1.40), 1.0, False),
        (1.05, (1.04, 1.06), 1.02, False),  # as unsteady as that is the machine
        (1.05, (1.04, 1.06), 1 / 1.02, False),
        (1.50, (1.45, 1.55), 1.02, True),
    ],
)
def test_what_pays(speedup, interval, control, pays):
    assert Factor("2:4", "cpu", "fp32", speedup, interval, control).pays == pays


def test_what_is_decided_is_not_measured_again():
    assert SLOW.decided and FAST.decided and dataclasses.replace(FAST, control=1.05).decided
    assert not dataclasses.replace(SLOW, control=1.05).decided
    assert not Factor("2:4", "cpu", "fp32", 1.05, (1.04, 1.06), 1.02).decided


def test_the_refusal_says_what_was_measured_and_what_to_do():
    assert refusal(SLOW) == (
        "sparsity '2:4' is not faster on cpu in fp32: measured factor 1.00 (0.98 to 1.02), expected an interval above "
        "1.03; use channels:0.5, or ask for size (--objective size)"
    )
    assert "1.00 (0.98 to 1.02) on a busy machine (control 1.05), expected" in refusal(
        dataclasses.replace(SLOW, control=1.05)
    )


@pytest.fixture
def store(tmp_path):
    with MeasurementStore(tmp_path / "store") as opened:
        yield opened


def kept(store, factor, pattern):
    """The factor as if it had been measured before."""
    measured_factor(pattern, CPU, factor.precision, store, EFFORT)
    store._execute("UPDATE measurements SET record = ?", (json.dumps(dataclasses.asdict(factor)),))


def test_what_does_not_pay_is_refused_unless_size_counts(store):
    kept(store, SLOW, NofM(2, 4))
    with pytest.raises(
        ValueError, match=r"'2:4' is not faster on cpu in fp32: measured factor 1\.00 \(0\.98 to 1\.02\)"
    ):
        check_pays(NofM(2, 4), CPU, store=store, effort=EFFORT)
    assert check_pays(NofM(2, 4), CPU, for_size=True, store=store, effort=EFFORT) == SLOW


def test_what_pays_is_told_and_dense_needs_no_proof(store):
    kept(store, FAST, Channels(0.5))
    assert check_pays(Channels(0.5), CPU, "int8", store=store, effort=EFFORT) == FAST
    assert check_pays(Dense(), CPU, effort=Effort(0, 0, 0)) is None


def test_it_is_measured_once_unless_the_machine_was_busy(store, monkeypatch):
    asked = []

    def spied(self, models, device, effort, on_round, original=Worker.measure):
        asked.append(len(models))
        return original(self, models, device, effort, on_round)

    monkeypatch.setattr(Worker, "measure", spied)
    kept(store, SLOW, NofM(2, 4))
    assert measured_factor(NofM(2, 4), CPU, "fp32", store, EFFORT) == SLOW and asked == [3]
    store._execute("UPDATE measurements SET record = replace(record, '\"control\": 1.0', '\"control\": 1.5')", ())
    found = measured_factor(NofM(2, 4), CPU, "fp32", store, EFFORT)
    assert asked == [3, 3] and found != SLOW
    store._execute("UPDATE measurements SET record = '{}'", ())
    measured_factor(NofM(2, 4), CPU, "fp32", store, EFFORT)
    assert asked == [3, 3, 3]


@pytest.mark.parametrize("text", ["unstructured:0.8", "16x4:0.5", "channels:0.5"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_real_measurement_is_finite(text, precision):
    found = measured_factor(parse_pattern(text), CPU, precision, effort=EFFORT)
    low, high = found.ci95
    assert 0 < low <= high < 100 and 0 < found.speedup < 100 and 0 < found.control < 100
    assert (found.pattern, found.device, found.precision) == (text, "cpu", precision)


def test_a_precision_in_anothers_kernels_is_refused_with_its_factor(store):
    measured_precision("w4a8", CPU, store, EFFORT)
    slow = dataclasses.replace(SLOW, pattern="dense", precision="w4a8")
    store._execute("UPDATE measurements SET record = ?", (json.dumps(dataclasses.asdict(slow)),))
    with pytest.raises(ValueError, match=r"'w4a8' runs in the kernels of int8 on cpu: .* measured factor 1\.00"):
        check_precision_pays("w4a8", CPU, store=store, effort=EFFORT)
    quick = dataclasses.replace(FAST, pattern="dense", precision="w4a8")
    store._execute("UPDATE measurements SET record = ?", (json.dumps(dataclasses.asdict(quick)),))
    assert check_precision_pays("w4a8", CPU, store=store, effort=EFFORT) == quick


def test_the_network_has_the_layers_that_are_searched():
    model = network()
    layers = layers_of(model)
    kinds = {(layer.shape[2:], layer.depthwise) for layer in layers}
    assert kinds == {((3, 3), False), ((3, 3), True), ((1, 1), False), ((), False)}
    assert "Add" in {node.op_type for node in model.graph.node}
    assert 60e6 < totals(kernels_of(model)).macs < 80e6
    assert network(0).SerializeToString() == model.SerializeToString() != network(1).SerializeToString()


def test_zeros_stay_zeros_and_channels_go():
    model = network()
    assert zeros_of(sparse(model, parse_pattern("unstructured:0.8"))) > 0.75
    smaller = sparse(model, Channels(0.5))
    widths = [layer.shape[0] for layer in layers_of(smaller)][:-1]
    assert all(width % 8 == 0 for width in widths) and zeros_of(smaller) < 0.01
    assert totals(kernels_of(smaller)).macs < 0.35 * totals(kernels_of(model)).macs


def test_precisions_that_are_no_time_there_are_refused():
    with pytest.raises(ValueError, match="does not turn int8 into time"):
        measured_factor(NofM(2, 4), parse_device("cpu:torch"), "int8")
