import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from latency.count import count
from search_spaces.cell import EDGES, OPERATIONS, Cell, cell_network, nas_bench_201, operations_of
from search_spaces.elastic import Elastic
from search_spaces.network import check_network, extract, find_space
from search_spaces.value import Choice

DATA = Path(__file__).parents[2] / "../shared/data"
CONV = "nor_conv_3x3"
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def plain_cell(operations):
    cell = Cell([Choice(f"edge{i}", (name,)) for i, name in enumerate(operations)], 16)
    return extract(cell, find_space(cell).smallest()).eval()


def numbered(*operations):
    """A cell in which every edge's convolution multiplies by a number of its own."""
    cell = plain_cell(operations)
    for i, (source, target) in enumerate(EDGES):
        if operations[i].startswith("nor_conv"):
            layers = list(cell.get_submodule(f"{source}to{target}").children())
            nn.init.constant_(layers[1].weight, 0.0)
            layers[1].weight.data[range(16), range(16), 0, 0] = 10.0**i
            layers[2].eps = 0.0
    return cell


def test_a_cell_is_written_as_in_the_table():
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    names = ("avg_pool_3x3", "nor_conv_1x1", "skip_connect", "none", "skip_connect", "nor_conv_3x3")
    assert operations_of(text) == names


@pytest.mark.parametrize("text", ["", "|none~0|", "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match=re.escape("expected a cell |op~0|")):
        operations_of(text)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="conv_9x9"):
        operations_of("|conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    for wrong in (["none"] * 5, ["none"] * 5 + ["conv_9x9"]):
        with pytest.raises(ValueError, match="a cell has 6 operations"):
            cell_network(wrong, 0)


@torch.no_grad()
def test_edges_are_in_the_order_of_the_table():
    x = torch.ones(1, 16, 4, 4)
    one = "nor_conv_1x1"
    everything = numbered(*[one] * 6)(x)
    # 0→1 is 1, 0→2 is 10, 1→2 is 100, 0→3 is 1,000, 1→3 is 10,000, 2→3 is 100,000.
    expected = 1_000 + 1 * 10_000 + (10 + 1 * 100) * 100_000
    assert torch.allclose(everything, torch.full_like(x, float(expected)))
    assert torch.allclose(numbered("none", one, one, "none", "none", one)(x), torch.full_like(x, 10.0 * 100_000))
    assert torch.allclose(numbered("none", "none", "none", "skip_connect", "none", one)(x), x)


@torch.no_grad()
def test_a_pool_counts_no_padding():
    cell = plain_cell(["none", "none", "none", "avg_pool_3x3", "none", "none"])
    assert torch.allclose(cell(torch.ones(1, 16, 4, 4)), torch.ones(1, 16, 4, 4))


def test_parameters_and_macs_of_the_largest_cell_are_the_published_ones():
    found = count(cell_network([CONV] * 6, 0), (3, 32, 32))
    assert found.parameters == 1_531_546
    assert found.macs == pytest.approx(220.12e6, rel=0.01)


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark tables are not there")
def test_parameters_are_those_of_the_table():
    with gzip.open(DATA / "nb201.csv.gz", "rt") as file:
        strings = {row["index"]: row["arch_str"] for row in csv.DictReader(file)}
    with gzip.open(DATA / "nb201_zero_cost_725.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "cifar10"]
    for row in rows[::300]:
        network = cell_network(operations_of(strings[row["index"]]), 0)
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(1e6 * float(row["params"]), rel=1e-5)


def test_a_seed_initialises_as_torch_does_and_leaves_its_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (cell_network(["none"] * 6, seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    stem = cell_network(["none"] * 6, 0).stem[0].weight
    assert stem.abs().max() <= 27**-0.5 and stem.std().item() == pytest.approx(27**-0.5 / 3**0.5, rel=0.1)


def test_the_elastic_network_holds_every_cell():
    torch.manual_seed(0)
    net = nas_bench_201(8, 3, 4)
    space = find_space(net)
    assert [choice.options for choice in space.choices] == [OPERATIONS] * len(EDGES)
    check_network(net, space, (3, 8, 8), 4)


@torch.no_grad()
def test_a_subnet_equals_the_plain_network():
    torch.manual_seed(0)
    net = nas_bench_201(8, 3, 10, "full").eval()
    for name, tensor in net.state_dict().items():
        if tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    space = find_space(net)
    for row in space.sample(3, np.random.default_rng(0)):
        arch = space.row(row)
        plain = extract(net, arch)
        assert not any(isinstance(module, Elastic) for module in plain.modules())
        torch.testing.assert_close(plain(X), net(X, arch), rtol=1e-5, atol=1e-4)
