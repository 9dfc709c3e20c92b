"""The predictor of all metrics, on a small real space and a made-up device whose law is known."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from nas.anatomy import Anatomy
from nas.candidate import Builder
from nas.inherit import A_ROUND, FIRST, ROUNDS, Inheritance
from nas.objectives import Problem, maximize, minimize
from nas.pareto import non_dominated
from nas.predict import Inherited, fit_accuracy, fit_hardware, fit_metrics
from nas.progress import SilentReporter
from predictors.block_table import BlockTime, fit_block_table
from predictors.ranking import agreement
from quant_search.policy import joint_space
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, Sequence
from search_spaces.network import Network, find_blocks, find_space
from search_spaces.value import Choice
from supernet.calibrate import inherited_images
from supernet.data import load_data

SHAPE = (1, 8, 8)
PROBLEM = Problem((maximize("val_accuracy"), minimize("latency_s")))
RNG = np.random.default_rng(0)


class Net(Network):
    def __init__(self):
        super().__init__()
        width = Choice("width", (4, 8, 12, 16))
        self.stem = nn.Sequential(Conv2d(1, width, Choice("k", (1, 3, 5))), BatchNorm2d(width), nn.ReLU())
        blocks = [
            nn.Sequential(Conv2d(width, width, Choice(f"k{i}", (1, 3, 5))), BatchNorm2d(width), nn.ReLU())
            for i in range(3)
        ]
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2, 3)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(width, 10)


NETWORK = Net()
ARCHITECTURES = find_space(NETWORK, "net")
ANATOMY = Anatomy(
    joint_space(ARCHITECTURES, find_blocks(NETWORK), ("fp32", "int8")), BlockTracer(NETWORK, SHAPE), ("fp32", "int8")
)


def block_s(block, precision):
    return 1e-6 + block.counts.macs * (1e-10 if precision == "fp32" else 4e-11)


def true_metrics(rows):
    counts = ANATOMY.counts(rows)
    error = 0.5 * (counts[:, 0] + 1e3) ** -0.2 + 0.002 * (counts[:, 3] > 0)
    return {
        "val_accuracy": 1 - error,
        "latency_s": np.array([3e-6 + 1.1 * sum(block_s(b, p) for b, p in n) for n in ANATOMY.placed_rows(rows)]),
        "size_bytes": 1500 + 420 * counts[:, 4] + counts[:, 2] + 1.3 * counts[:, 3],
        "macs": counts[:, 0],
    }


def evaluations(rows):
    metrics = true_metrics(rows)
    return [
        PROBLEM.evaluation(ANATOMY.space.row(row), {k: float(v[i]) for k, v in metrics.items()}, "verified")
        for i, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def profile():
    rows = ANATOMY.space.sample(24, np.random.default_rng(1))
    blocks = {(b.structure, p): (b, p) for network in ANATOMY.placed_rows(rows) for b, p in network}
    table = fit_block_table([BlockTime(b, p, block_s(b, p)) for b, p in blocks.values()])
    metrics = true_metrics(rows)
    fitted = table.corrected(ANATOMY.placed_rows(rows), metrics["latency_s"])
    return SimpleNamespace(table=fitted, population=rows, size_bytes=metrics["size_bytes"], executed={})


@pytest.fixture(scope="module")
def inherited():
    rows = ANATOMY.in_most_bits(ARCHITECTURES.sample(50, np.random.default_rng(2)))
    return Inherited(rows, true_metrics(rows)["val_accuracy"])


def test_everything_is_predicted_from_profile_and_inherited_accuracies_alone(profile, inherited):
    rows = ANATOMY.space.sample(60, np.random.default_rng(3))
    found, truth = fit_metrics(ANATOMY, profile, inherited, ()).predict(rows), true_metrics(rows)
    assert agreement(found["latency_s"], truth["latency_s"]).mape < 0.03
    assert agreement(found["size_bytes"], truth["size_bytes"]).mape < 0.05
    assert np.array_equal(found["macs"], truth["macs"])
    assert np.abs(found["val_accuracy"] - truth["val_accuracy"]).mean() < 0.01


def test_evaluations_add_to_the_profile_and_do_not_replace_it(profile, inherited):
    rows = ANATOMY.space.sample(60, np.random.default_rng(4))
    few = evaluations(rows[:2])
    fitted = fit_metrics(ANATOMY, profile, inherited, few)
    assert len(fitted.hardware.table.fitted_seconds) == len(profile.population) + 2
    truth = true_metrics(rows)
    assert agreement(fitted.predict(rows)["latency_s"], truth["latency_s"]).mape < 0.03
    assert agreement(fitted.predict(rows)["size_bytes"], truth["size_bytes"]).mape < 0.05


def test_what_int8_does_to_accuracy_is_learnt_from_evaluations(profile, inherited):
    rows = ANATOMY.space.sample(80, np.random.default_rng(5))
    before = fit_metrics(ANATOMY, profile, inherited, ())
    after = fit_metrics(ANATOMY, profile, inherited, evaluations(rows[:40]))
    truth = true_metrics(rows[40:])["val_accuracy"]
    errors = [np.abs(p.predict(rows[40:])["val_accuracy"] - truth).mean() for p in (before, after)]
    assert errors[1] < errors[0]


def test_optimism_prefers_what_is_little_known(profile, inherited):
    fitted = fit_accuracy(ANATOMY, inherited.population, inherited.val_accuracy)
    known, unknown = inherited.population, ANATOMY.space.sample(40, np.random.default_rng(7))
    gains = [(fitted.predict(rows, 1.0) - fitted.predict(rows)).mean() for rows in (known, unknown)]
    assert 0 <= gains[0] < gains[1]


def test_perfect_accuracies_can_be_fitted():
    rows = ANATOMY.space.sample(10, np.random.default_rng(6))
    predicted = fit_accuracy(ANATOMY, rows, np.ones(10)).predict(rows)
    assert np.isfinite(predicted).all() and predicted == pytest.approx(np.ones(10))


def test_hardware_needs_no_evaluations(profile):
    rows = profile.population
    assert set(fit_hardware(ANATOMY, profile).predict(rows)) == {"latency_s", "size_bytes", "macs", "parameters"}


def test_memory_and_traffic_are_predicted_where_the_profile_has_them(profile):
    rows = ANATOMY.space.sample(60, np.random.default_rng(8))
    bytes_ = ANATOMY.activations(rows)
    truth = {"memory_bytes": 900 + 0.6 * bytes_[:, 3], "traffic_bytes": 2e3 + bytes_[:, :3] @ [1.4, 1.2, 4.0]}
    executed = {name: values[:24] for name, values in truth.items()}
    asked = SimpleNamespace(**{**vars(profile), "population": rows[:24], "executed": executed})
    found = fit_hardware(ANATOMY, asked).predict(rows[24:])
    for name, values in truth.items():
        assert agreement(found[name], values[24:]).mape < 0.05
    assert np.array_equal(found["parameters"], ANATOMY.counts(rows[24:])[:, 1])


@pytest.mark.parametrize("batch", [8, 128])
def test_memory_and_traffic_of_a_batch_are_predicted(profile, batch):
    rows = ANATOMY.space.sample(60, np.random.default_rng(10))
    bytes_ = batch * ANATOMY.activations(rows)
    truth = {"memory_bytes": 900 + 0.6 * bytes_[:, 3], "traffic_bytes": 2e3 + bytes_[:, :3] @ [1.4, 1.2, 4.0]}
    executed = {name: values[:24] for name, values in truth.items()}
    table = dataclasses.replace(profile.table, batch=batch)
    asked = SimpleNamespace(**{**vars(profile), "table": table, "population": rows[:24], "executed": executed})
    found = fit_hardware(ANATOMY, asked).predict(rows[24:])
    for name, values in truth.items():
        assert agreement(found[name], values[24:]).mape < 0.05


def test_energy_and_roofline_are_predicted_from_latency_and_work(profile):
    rows = ANATOMY.space.sample(60, np.random.default_rng(9))
    seconds, macs = true_metrics(rows)["latency_s"], ANATOMY.kinds_of_macs(rows)
    assert np.array_equal(macs.sum(axis=1), ANATOMY.counts(rows)[:, 0])
    truth = {
        "energy_joules": 12 * seconds + macs @ [3e-11, 1e-11],
        "roofline_s": 5e-6 + 0.2 * seconds + macs @ [2e-11, 1e-11],
    }
    executed = {name: values[:24] for name, values in truth.items()}
    asked = SimpleNamespace(**{**vars(profile), "population": rows[:24], "executed": executed})
    found = fit_hardware(ANATOMY, asked).predict(rows[24:])
    for name, values in truth.items():
        assert agreement(found[name], values[24:]).mape < 0.05


def inheritance(profile):
    return Inheritance(NETWORK, ARCHITECTURES, ANATOMY, load_data("digits"), fit_hardware(ANATOMY, profile), PROBLEM)


def run(profile, folder):
    with SilentReporter().stage("inherit") as stage:
        return inheritance(profile).run(0, folder, stage)


def test_inherited_accuracies_are_taken_near_the_front_and_never_twice(profile, tmp_path, monkeypatch):
    taken = []

    def spied(self, arch):
        taken.append(arch)
        row = np.array([arch.indices], dtype=np.int16)
        return float(true_metrics(ANATOMY.in_most_bits(row))["val_accuracy"][0])

    monkeypatch.setattr(Inheritance, "_accuracy", spied)
    found = run(profile, tmp_path)
    assert len(taken) == len(set(taken)) == len(found.population) == FIRST + ROUNDS * A_ROUND
    assert {ARCHITECTURES.smallest(), ARCHITECTURES.largest()} <= set(taken)
    metrics = true_metrics(found.population)
    on_front = non_dominated(np.column_stack([-metrics["val_accuracy"], metrics["latency_s"]]))
    assert on_front[FIRST:].mean() > on_front[:FIRST].mean()
    again = run(profile, tmp_path)
    assert len(taken) == len(found.population)  # all from the file
    assert np.array_equal(again.population, found.population) and np.array_equal(again.val_accuracy, found.val_accuracy)
    (tmp_path / "part").mkdir()
    text = (tmp_path / "inherited.json").read_text().splitlines()
    (tmp_path / "part" / "inherited.json").write_text("\n".join([*text[:30], text[30].rstrip(","), "}"]))
    resumed = run(profile, tmp_path / "part")
    assert np.array_equal(resumed.population, found.population)


@pytest.mark.parametrize("precision", ["fp32", "w2a8"])
def test_inherited_accuracies_are_those_of_files_in_the_most_bits(precision):
    data, tracer = load_data("digits"), BlockTracer(NETWORK, SHAPE)
    anatomy = Anatomy(ARCHITECTURES, tracer, (precision,))
    taken = Inheritance(NETWORK, ARCHITECTURES, anatomy, data, None, PROBLEM)
    builder = Builder(NETWORK, tracer, data, (precision,))
    for arch in (ARCHITECTURES.smallest(), ARCHITECTURES.largest()):
        found = taken._accuracy(arch)
        session = open_session(builder.build(arch).model, parse_device("cpu"))
        of_file = accuracy(session, *inherited_images(data))
        assert found == pytest.approx(of_file, abs=0.01)
