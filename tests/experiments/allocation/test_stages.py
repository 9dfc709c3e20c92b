import dataclasses
import gzip
import itertools

import numpy as np
import pytest

from experiments.allocation.stages import (
    LATENCY,
    Stage,
    additive,
    best_within,
    even,
    layers_of,
    problem,
    read_stages,
    useful,
    with_budget,
)
from experiments.tables import DATA
from quant_search.allocate import allocate

SIDES = (112, 56, 28, 14, 14, 7)


def networks(seed=0, channels=(8, 16), count=3):
    """Made-up stages for all six places, each with every number of channels before and after."""
    rng = np.random.default_rng(seed)
    made = []
    for place, side in enumerate(SIDES, 1):
        for before in channels:
            for after in channels:
                for _ in range(count):
                    time = float(rng.uniform(0.1, 1)) * after
                    loss = float(1 / time + rng.uniform(0, 0.2))
                    layers = f"3#{after}#None_5#{after}#{len(made)}"  # each another
                    made.append(Stage(place, f"stage{place}_0_0", layers, before, after, side, loss, time))
    return made


def chosen(places, allocation):
    named = [{stage.name: stage for stage in stages} for stages in places]
    return [of[name] for of, name in zip(named, allocation.choice.values(), strict=True)]


def test_lines_of_the_table_are_read_and_equal_ones_joined(tmp_path):
    lines = [
        "stage1_0_0,3#48#None_5#32#None,1x16x80x80,0.39,19.5,0.013,0.99",
        "stage1_0_0,3#48#None_5#32#None,1x16x80x80,0.37,19.5,0.013,0.99",
        "stage6_2_1,5#336#4,1x272x7x7,0.9578,15.2331,0.3141,0.3",
    ]
    with gzip.open(tmp_path / "spaceevo_onnx_vnni_blocks.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    (one, other), noise = read_stages(tmp_path)
    assert one == Stage(1, "stage1_0_0", "3#48#None_5#32#None", 16, 32, 80, pytest.approx(0.38), 0.99e-3)
    assert (other.place, other.in_channels, other.out_channels, other.side) == (6, 272, 336, 7)
    assert noise == pytest.approx(np.std([0.39, 0.37], ddof=1))
    assert layers_of(one) == [("0", "3#48#None", "16", 80, True), ("0", "5#32#None", "48", 40, False)]


def test_only_stages_that_none_like_them_beats_are_of_use():
    stages = networks()
    kept = {stage for place in useful(stages) for stage in place}
    for stage in stages:
        alike = [
            s
            for s in stages
            if (s.place, s.in_channels, s.out_channels) == (stage.place, stage.in_channels, stage.out_channels)
        ]
        beaten = any(s.loss <= stage.loss and s.latency_s < stage.latency_s for s in alike)
        assert (stage in kept) == (not beaten)


def test_stages_of_a_network_meet():
    # Of channels and sides that differ, so that most stages do not fit most others.
    smaller = [dataclasses.replace(s, kind=f"{s.kind[:-1]}1", side=s.side // 7 * 6) for s in networks(1)]
    stages = networks() + smaller
    places = useful(stages)
    for budget_s in (25.0, 35.0, 45.0):
        for method in ("milp", "dynamic-programming", "greedy"):
            network = chosen(places, allocate(with_budget(problem(places), budget_s), method))
            for before, after in itertools.pairwise(network):
                assert before.out_channels == after.in_channels
            sides = [stage.side for stage in network]
            assert sides in (list(SIDES), [side // 7 * 6 for side in SIDES])


def test_even_shares_keep_the_latency_and_are_no_better_than_the_best():
    places = useful(networks())
    found = even(places, 60.0)
    assert best_within(found, 1.0) is None
    for budget_s in (25.0, 35.0, 45.0):
        uniform = best_within(found, budget_s)
        if uniform is not None:
            assert uniform.costs[LATENCY] <= budget_s
            assert uniform.damage >= allocate(with_budget(problem(places), budget_s)).damage - 1e-9
    assert best_within(found, 60.0) is not None


def test_sums_of_layers_are_told_from_what_is_no_sum():
    rng = np.random.default_rng(0)
    layers = {f"{k}#{c}#None": float(rng.uniform(1, 5)) for k in (3, 5) for c in (16, 24)}
    stages = []
    for _ in range(400):
        taken = rng.choice(list(layers), int(rng.integers(1, 5))).tolist()
        total = sum(layers[name] for name in taken)
        stages.append(Stage(1, "stage1_0_0", "_".join(taken), 16, 16, 14, 1 + float(rng.random()), total))
    error, plain, count = additive(stages, "latency_s")
    assert error < 1e-3 < 0.1 < plain
    assert 40 < count < 120
    assert additive(stages, "loss")[0] > 0.05


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark tables are not in {DATA}")
def test_the_table_has_networks():
    stages, noise = read_stages(DATA)
    assert len(stages) == 125_835
    assert noise == pytest.approx(0.0021, abs=1e-4)
    small = [[s for s in place if s.side in (80, 40, 20, 10, 5)][::7] for place in useful(stages)]
    found = allocate(with_budget(problem(small), 0.006), "dynamic-programming")
    assert found.costs[LATENCY] <= 0.006
