import numpy as np
import pytest

from latency.blocks import BlockTracer
from nas.anatomy import Anatomy
from nas.spec import build_network
from nas.sweep import Swept, best_within, front_by, sweep, widths_of
from quant_search.policy import joint_space
from search_spaces.network import find_blocks
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SHAPE, PRECISIONS = (1, 8, 8), ("fp32", "int8", "w4a8")


@pytest.fixture(scope="module")
def parts():
    network, space = build_network("resnet", SHAPE, 10)
    joint = joint_space(space, find_blocks(network), PRECISIONS)
    return space, Anatomy(joint, BlockTracer(network, SHAPE), PRECISIONS)


def test_widths_grow_and_nothing_else_changes(parts):
    space, anatomy = parts
    found = widths_of(space)
    macs = anatomy.counts(anatomy.in_most_bits(np.array([arch.indices for arch in found])))[:, 0]
    assert len(found) == 5 and (np.diff(macs) > 0).all()
    for name, value in space.scaled(0.5).values.items():
        if name.rpartition(".")[2] not in ("width", "inner", "expansion"):
            assert {arch.values[name] for arch in found} == {value}
    ends = [{arch.values["stage3.width"] for arch in found[:1]}, {arch.values["stage3.width"] for arch in found[-1:]}]
    assert ends == [{80}, {128}]


def test_a_base_says_the_other_choices_and_a_space_without_widths_is_refused(parts):
    space, _ = parts
    assert {a.values["stage1.depth"] for a in widths_of(space, space.largest())} == {3}
    with pytest.raises(ValueError, match="space 'plain' has no choice of width"):
        widths_of(SearchSpace("plain", [Choice("depth", (1, 2)), Choice("stem.width", (8,))]))


def test_every_width_comes_in_every_precision_and_its_ends_keep_theirs(parts):
    space, anatomy = parts
    widths, asked = widths_of(space)[::4], []

    def made(arch):
        asked.append(arch)
        return 0.5, 1000

    points = list(sweep(anatomy, widths, made, kept=("stem.0", "classifier")))
    assert [(p.width, p.precision) for p in points] == [(w, p) for w in (0, 1) for p in PRECISIONS]
    policies = [{arch.values[f"{block}.precision"] for block in ("stem.0", "classifier")} for arch in asked[:3]]
    assert policies == [{"fp32"}, {"int8"}, {"int8"}]
    assert asked[2].values["stage1.0.precision"] == "w4a8"
    assert points[0].bit_operations == 16 * points[1].bit_operations  # 32 · 32 against 8 · 8
    assert points[1].bit_operations / 2 < points[2].bit_operations < points[1].bit_operations


def test_bit_operations_are_those_of_each_blocks_precision(parts):
    _, anatomy = parts
    row = anatomy.space.sample(1, np.random.default_rng(3))
    bits = {"fp32": 32 * 32, "int8": 64, "w4a8": 32}
    values = anatomy.space.row(row[0]).values
    blocks = anatomy.tracer.trace(anatomy.space.row(row[0]))
    expected = sum(b.counts.macs * bits[values.get(f"{b.name}.precision", "fp32")] for b in blocks)
    assert anatomy.bit_operations(row).tolist() == [expected]
    names = [anatomy.space.choices[j].name for j in anatomy.policy_columns]
    assert names and all(name.endswith(".precision") for name in names)


def test_fronts_and_budgets(parts):
    space, _ = parts
    arch = space.smallest()
    rows = [("int8", 0, 0.7, 100), ("fp32", 0, 0.7, 300), ("w4a8", 1, 0.75, 200), ("int8", 1, 0.8, 300)]
    points = [Swept(arch, width, p, accuracy, size, 1e3 * size) for p, width, accuracy, size in rows]
    assert [(p.precision, p.width) for p in front_by(points, "size_bytes")] == [("int8", 0), ("w4a8", 1), ("int8", 1)]
    assert best_within(points, "bit_operations", 250e3) is points[2]
    assert best_within(points[:2], "size_bytes", 400) is points[0]  # as accurate, and smaller
    assert best_within(points, "size_bytes", 50) is None and front_by([], "size_bytes") == []
