import itertools

import numpy as np
import pytest

from experiments import tables
from experiments.sample_efficiency.tasks import CHOSEN_ON, DEVICES
from experiments.tables import ACCURACY, COST, DATA, accel, cells, macro, nb201, ofa, read

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark tables are not in {DATA}")


@pytest.mark.parametrize(
    ("make", "size"), [(lambda: nb201(DATA, "pixel3"), 15_625), (lambda: macro(DATA), 6_561)], ids=["nb201", "macro"]
)
def test_whole_tables_list_the_space_once(make, size):
    benchmark = make()
    assert benchmark.whole
    assert len(benchmark.rows) == len(np.unique(benchmark.rows, axis=0)) == benchmark.space.size == size


@pytest.mark.parametrize("place", [0, 1234, 15_624])
def test_a_cell_has_the_values_of_its_line(place):
    benchmark, line = nb201(DATA, "pixel3"), read(DATA / "nb201.csv.gz")[place]
    names = [part.split("~")[0] for node in line["arch_str"].split("+") for part in node.strip("|").split("|")]
    arch = benchmark.space.architecture({f"edge{i}": name for i, name in enumerate(names)})
    found = benchmark.values(np.array([arch.indices]))
    assert found[ACCURACY][0] == pytest.approx(float(line["c10_test_200ep_mean"]) / 100)
    assert found[COST][0] == pytest.approx(float(line["lat_help_pixel3"]) / 1e3)


@pytest.mark.parametrize("place", [0, 4321])
def test_a_network_of_macro_has_the_values_of_its_line(place):
    benchmark, line = macro(DATA), read(DATA / "nas_bench_macro.csv.gz")[place]
    found = benchmark.values(np.array([[int(digit) for digit in line["arch"]]]))
    assert found[ACCURACY][0] == pytest.approx(float(line["acc_mean"]) / 100)
    assert found[COST][0] == pytest.approx(float(line["macs"]))


def test_devices_differ_in_latency_alone():
    assert not set(DEVICES) & set(CHOSEN_ON)
    _, rows, _ = cells(DATA)
    values = [nb201(DATA, device).values(rows) for device in (*DEVICES, *CHOSEN_ON)]
    for one, other in itertools.pairwise(values):
        assert np.array_equal(one[ACCURACY], other[ACCURACY])
        assert not np.array_equal(one[COST], other[COST])


@pytest.mark.parametrize("device", ["abacus", "rice_edgetpu"])
def test_a_device_without_all_cells_is_refused(device):
    with pytest.raises(ValueError, match=f"no latencies of all cells on '{device}'"):
        nb201(DATA, device)


def test_boosted_trees_follow_the_measured_networks(monkeypatch):
    trees = tables.HistGradientBoostingRegressor
    faster = {"max_iter": 60, "learning_rate": 0.2}  # the benchmark's own take seconds
    monkeypatch.setattr(tables, "HistGradientBoostingRegressor", lambda **given: trees(**{**given, **faster}))
    benchmark = accel(DATA)
    line = [float(r["val_top1"]) / 100 for r in read(DATA / "accel_nasbench.csv.gz") if r["latency_vck190"]]
    found = benchmark.values(benchmark.rows)
    assert not benchmark.whole
    assert np.abs(found[ACCURACY] - line).mean() < 0.005
    assert (found[COST] > 0).all()


def test_larger_networks_of_once_for_all_are_slower_and_more_accurate():
    benchmark = ofa(DATA)
    space = benchmark.space
    found = benchmark.values(np.array([space.smallest().indices, space.largest().indices]))
    assert 0.7 < found[ACCURACY][0] < found[ACCURACY][1] < 0.85
    assert 0.005 < found[COST][0] < found[COST][1] < 0.2
    assert np.array_equal(benchmark.rows, space.canonical(benchmark.rows))


def test_an_inactive_layer_of_once_for_all_adds_nothing():
    benchmark = ofa(DATA)
    row = np.array([benchmark.space.smallest().indices])
    other = row.copy()
    at = [c.name for c in benchmark.space.choices].index("kernel0.3")
    other[0, at] = 2  # of a layer beyond the depth
    for name, value in benchmark.values(other).items():
        assert value == benchmark.values(row)[name]
