import numpy as np
import pytest

from experiments.bench import kernel_lists
from experiments.bench.kernel_graphs import Block, Graph, layers, parse_blocks, sequence, timed
from latency.device import parse_device
from latency.kernels import packing
from latency.runtimes.onnx_runtime import open_session


def test_blocks_are_named_as_they_are_printed():
    found = parse_blocks("56,24,6,24,3,1; 13x17,20,1,24,5,2;")
    assert found == (Block(56, 56, 24, 6, 24, 3, 1), Block(13, 17, 20, 1, 24, 5, 2))
    assert [block.repeats for block in found] == [True, False]
    assert parse_blocks(";".join(map(str, kernel_lists.BLOCKS))) == kernel_lists.BLOCKS
    assert len(set(kernel_lists.BLOCKS)) == len(kernel_lists.BLOCKS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ; ", "^no block is named: give H,Cin,expansion,Cout,k,stride"),
        ("7,2,1,2,3", r"^block '7,2,1,2,3' is not H,Cin,expansion,Cout,k,stride: expected six positive numbers"),
        ("7,2,1,2,3,1,1", "expected six"),
        ("7x7x7,2,1,2,3,1", "expected six"),
        ("7x,2,1,2,3,1", "expected six"),
        ("7,2,0,2,3,1", "expected six"),
        ("7,2,1.5,2,3,1", "expected six"),
        ("7,2,²,2,3,1", "expected six"),
        ("7,2,1,2,3,1;7,2,1,2,4,1", r"^block '7,2,1,2,4,1' has a kernel of 4: expected an odd one"),
    ],
)
def test_what_is_no_block_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_blocks(text)
    assert "\n" not in str(error.value)


SMALL = {
    "chain": lambda: sequence(parse_blocks("9x6,8,3,8,5,1") * 3),
    "strided": lambda: sequence(parse_blocks("9x6,8,1,12,3,2;5x3,12,2,20,7,1")),
    "layers": lambda: layers(5, 48, 48, 0.5, 2),
    "layer": lambda: layers(5, 48, 20, 0.25, 1),
    "network": lambda: timed((3, 16, 16), _network),
}


def _network(graph):
    graph.convolve(8, 3, 2)
    graph.relu()
    graph.block(Block(8, 8, 8, 2, 12, 3, 2))
    graph.logits(30)


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_programs_and_files_are_of_one_network_with_codes_of_all_sizes(make):
    made = make()
    last = made.program.steps[-1].operation
    found = made.program.run(made.images)
    for file, tolerance in ((made.int8, 1.5 * last.scale), (made.fp32, 0.25 * np.ptp(found))):
        theirs = open_session(file, parse_device("cpu")).run(made.images)
        expected = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=tolerance)
    codes = np.rint(found / last.scale) + last.zero
    assert len(np.unique(codes)) > 20 and np.isin(codes, [0, 255]).mean() < 0.6  # half of what a ReLU makes is 0


def test_macs_are_those_of_the_networks():
    block = Block(7, 7, 16, 4, 24, 5, 2)
    assert sequence([block]).macs == 7 * 7 * 16 * 64 + 4 * 4 * 64 * (25 + 24)
    macs = []
    for body in kernel_lists.BODIES.values():
        graph = Graph((16, 112, 112))
        for each in body:
            assert graph.shape == (each.inputs, each.height, each.width)
            graph.block(each)
        macs.append(graph.macs)
    assert macs == [258_550_656, 273_829_248]
    whole = Graph(kernel_lists.IMAGE)
    kernel_lists.network(whole, kernel_lists.BODIES["MobileNetV2"])
    assert whole.macs == 300_774_272  # as published


def test_the_named_share_of_blocks_of_weights_is_zero():
    full, half, quarter = (layers(3, 96, 40, density, 1) for density in (1.0, 0.5, 0.25))
    weights = [made.program.steps[1].operation.weight for made in (full, half, quarter)]
    assert packing.sparse(weights[0]) is None
    kept = [len(packing.sparse(weight)[0]) for weight in weights[1:]]
    assert kept == [3 * 24 // 2, 3 * 24 // 4]
    assert [full.macs, half.macs, quarter.macs] == [9 * 96 * 40 // n for n in (1, 2, 4)]


def test_a_layer_is_repeated_on_the_same_codes():
    once = layers(4, 16, 8, 1.0, 1)
    thrice = once.repeated(3)
    assert [step.inputs for step in thrice.program.steps] == [(0,), (1,), (1,), (1,), (4,)]
    np.testing.assert_array_equal(thrice.program.run(once.images), once.program.run(once.images))
    assert thrice.int8 is once.int8
