import csv
import gzip
import re
from pathlib import Path

import pytest

from latency.blocks import BlockTracer
from search_spaces.nas_bench_macro import macro_architecture, nas_bench_macro
from search_spaces.network import check_network, find_blocks, find_space

DATA = Path(__file__).parents[2] / "../shared/data"
ROWS = {  # digits to the published parameters and MACs
    "00000000": (387882, 7713280),
    "02012100": (890666, 47327744),
    "11111221": (2181386, 65012224),
    "00011110": (1118378, 31390208),
    "02012220": (1886890, 65495552),
}


def costs(tracer, space, digits):
    blocks = tracer.trace(macro_architecture(space, digits))
    return tuple(sum(getattr(b.counts, what) for b in blocks) for what in ("parameters", "macs"))


@pytest.fixture(scope="module")
def space():
    return find_space(nas_bench_macro(8, 3, 10, "tiny"))


@pytest.mark.parametrize("digits", ROWS)
def test_parameters_and_macs_are_the_published_ones(digits):
    network = nas_bench_macro(32, 3, 10, "full")
    assert costs(BlockTracer(network, (3, 32, 32)), find_space(network), digits) == ROWS[digits]


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark tables are not there")
def test_parameters_and_macs_are_those_of_the_whole_table():
    network = nas_bench_macro(32, 3, 10, "full")
    tracer, space = BlockTracer(network, (3, 32, 32)), find_space(network)
    with gzip.open(DATA / "nas_bench_macro.csv.gz", "rt") as file:
        table = {row["arch"]: (int(row["params"]), int(row["macs"])) for row in csv.DictReader(file)}
    assert len(table) == space.size == 6_561
    assert {digits: costs(tracer, space, digits) for digits in table} == table


def test_digits_are_read_in_the_order_of_layers(space):
    assert macro_architecture(space, "01200021").indices == (0, 1, 2, 0, 0, 0, 2, 1)
    for wrong in ("0120002", "01200023", "0120002x"):
        with pytest.raises(ValueError, match=re.escape(f"is 8 digits from 0 to 2, got {wrong!r}")):
            macro_architecture(space, wrong)


def test_the_tiny_network_runs_at_every_option(space):
    check_network(nas_bench_macro(8, 1, 5), space, (1, 8, 8), 5)


def test_a_layer_that_changes_no_shape_may_hold_no_weights():
    blocks = {b.name: b for b in find_blocks(nas_bench_macro(8, 3, 10))}
    assert [b.has_weights({f"layer{i}": "identity" for i in range(1, 9)}) for b in blocks.values()] == [
        name in ("stem", "layer1", "layer3", "layer6", "head", "classifier") for name in blocks
    ]
