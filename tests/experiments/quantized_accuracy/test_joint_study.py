import functools

import numpy as np
import pytest

from experiments.quantized_accuracy import curves, product
from experiments.quantized_accuracy.collect import PRECISIONS, Points, policies
from experiments.quantized_accuracy.product import at_once, one_after_the_other, policies_of, truth_of
from latency.blocks import BlockTracer
from nas.anatomy import Anatomy
from nas.searchers.linas import LINAS
from nas.spec import build_network
from quant_search.policy import joint_space
from search_spaces.network import find_blocks

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def points():
    network, space = build_network("mbconv", SHAPE, 10, "tiny")
    joint = joint_space(space, find_blocks(network), PRECISIONS)
    anatomy = Anatomy(joint, BlockTracer(network, SHAPE), PRECISIONS)
    rng = np.random.default_rng(0)
    plain, rows = anatomy.in_most_bits(space.sample(20, rng)), policies(joint, 20, rng)
    told = 0.9 + 0.01 * np.log10(anatomy.counts(plain)[:, 0])
    bits = np.log2(anatomy.bit_operations(rows) / anatomy.counts(rows)[:, 0])
    return Points(anatomy, space, (plain, told), (rows, 0.3 + 0.05 * bits, np.ones(20)))


def test_random_policies_go_from_uniform_to_mixed(points):
    joint = points.anatomy.space
    rows = policies(joint, 60, np.random.default_rng(1))
    used = [{v for name, v in joint.row(row).values.items() if name.endswith(".precision")} for row in rows]
    assert {len(u) for u in used} >= {1, 2, 3} and set().union(*used) == set(PRECISIONS)
    assert np.array_equal(rows, joint.canonical(rows))


def test_policies_of_chosen_networks_leave_these_as_they_are(points):
    chosen = points.architectures.sample(3, np.random.default_rng(2))
    space, lift = policies_of(points, chosen)
    rows = space.sample(40, np.random.default_rng(3))
    joint, d = lift(rows), len(points.architectures)
    assert np.array_equal(joint[:, :d], chosen[rows[:, 0]])
    assert len(np.unique(joint, axis=0)) == len(np.unique(rows, axis=0))  # no look-up is wasted on a twin
    assert np.array_equal(lift(space.largest().indices * np.ones((1, 1), int)), points.anatomy.in_most_bits(chosen[2:]))


def test_both_ways_have_as_many_look_ups(points, monkeypatch):
    monkeypatch.setattr(product, "LINAS", functools.partial(LINAS, generations=1, population=8))
    truth = truth_of(points, "size")
    assert len(at_once(truth, 31, 0)) == len(one_after_the_other(truth, 31, 0, 2)) == 31
    bits = truth_of(points, "bits").costs(points.files[0])
    assert (
        bits
        <= truth_of(points, "bits").costs(points.anatomy.in_most_bits(points.files[0][:, : len(points.architectures)]))
    ).all()


def test_curves_judge_all_sizes_by_the_same_files(points, monkeypatch):
    asked = []

    def perfect(points, known, others):
        asked.append((len(known), tuple(others)))
        assert not set(known) & set(others)
        return points.files[1][others]

    monkeypatch.setattr(curves, "METHODS", {"perfect": perfect})
    found = list(curves.compared(points, (0, 5, 10), 2))
    assert [f.kendall for f in found] == [pytest.approx(1)] * 6 and [f.error for f in found] == [0] * 6
    assert [n for n, _ in asked] == [0, 5, 10] * 2 and len({others for _, others in asked}) == 2


def test_an_interval_is_students():
    mean, half = curves.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / np.sqrt(3), rel=1e-3)
