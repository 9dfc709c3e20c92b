from types import SimpleNamespace

import numpy as np
import pytest
from small_space import Small

from latency.blocks import BlockTracer
from nas.errors import CannotBeDone
from nas.guide import Guide, choice_pairs, fit_guide, random_range_rows
from nas.progress import SilentReporter
from nas.spec import build_network
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.relaxed.cost_table import CostTable

FLAT = SearchSpace("flat", [Choice(f"c{i}", (0, 1, 2)) for i in range(20)])
TABLE = CostTable(1e-5, {"c0": np.array([0.0, 1e-5, 2e-5])}, error=0.03)
GUIDE = Guide(FLAT, TABLE, "fp32", FLAT.sample(10, np.random.default_rng(0)), np.full(10, 2e-5), 1e-5, 0.04)


def test_random_rows_are_of_all_costs():
    sums = random_range_rows(FLAT, 400, np.random.default_rng(0)).sum(1)
    assert sums.min() < 3 and sums.max() > 37
    plain = FLAT.sample(400, np.random.default_rng(0)).sum(1)
    assert plain.min() > 6 and plain.max() < 34


def test_pairs_are_of_choices_that_a_block_reads():
    network, space = build_network(Small, (1, 8, 8), 10)
    pairs = choice_pairs(BlockTracer(network, (1, 8, 8)), space, everywhere=set())
    assert set(map(frozenset, pairs)) == {
        frozenset(pair)
        for pair in (("width", "kernel0"), ("width", "kernel1"), ("width", "depth"), ("depth", "kernel1"))
    }
    assert len(choice_pairs(BlockTracer(network, (1, 8, 8)), space, everywhere={"kernel1"})) == 5


def test_pairs_of_too_many_options_have_no_table():
    space = SearchSpace("wide", [Choice("a", tuple(range(300))), Choice("b", tuple(range(300))), Choice("c", (1, 2))])
    tracer = SimpleNamespace(blocks=[SimpleNamespace(when=())], choices_of=lambda block: ["a", "b", "c"])
    assert choice_pairs(tracer, space, everywhere=set()) == [("a", "c"), ("b", "c")]


def test_costs_are_held_below_the_bound_by_what_the_models_err():
    assert GUIDE.error == pytest.approx(0.05)
    assert GUIDE.max_cost(1e-4) == pytest.approx(0.95e-4)
    assert GUIDE.max_cost(1.01e-5) == 1e-5  # the fastest, by the table
    assert GUIDE.max_cost(None) is None


def test_a_bound_below_the_fastest_is_refused_with_it():
    GUIDE.check(None)
    GUIDE.check(0.97e-5)  # the profile may err
    with pytest.raises(CannotBeDone, match="takes at most 9 µs: the fastest possible takes about 10 µs here; raise"):
        GUIDE.check(9e-6)


def test_a_run_that_goes_on_holds_costs_to_the_same_bound(tmp_path, monkeypatch):
    """Whatever the profile's error is once its networks were timed again."""
    kept = {"base": 1e-5, "tables": [[["c0"], [0.0, 1e-5, 2e-5]]], "error": 0.03, "precision": "fp32"}
    kept |= {"pool": GUIDE.pool.tolist(), "seconds": GUIDE.seconds.tolist(), "fastest_s": 1e-5}
    monkeypatch.setattr("nas.guide._fitted", lambda *_: kept)

    def fitted(mape):
        profile = SimpleNamespace(held_out=SimpleNamespace(mape=mape))
        with SilentReporter().stage("table") as stage:
            return fit_guide(None, FLAT, profile, 0, tmp_path, stage)

    first = fitted(0.04)
    assert first.max_cost(1e-4) == pytest.approx(0.95e-4)
    assert fitted(0.05).max_cost(1e-4) == first.max_cost(1e-4)
