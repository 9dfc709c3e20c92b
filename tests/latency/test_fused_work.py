"""Counts of inner loops follow from shapes as native code cuts them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from latency.fused_programs import Layers, pairs, repeated
from latency.fused_work import CHUNK, GROUP, TERMS, TILES, work_of
from latency.kernels import build
from latency.kernels.contract import Add, Program, Rounding
from latency.kernels.lowered import Kind, lowered

AVX512 = TILES["avx512"]


def works_of(program: Program, cache_bytes: int = 0):
    records, shapes = lowered(program)
    return {record.kind: work_of(record, shapes, AVX512, cache_bytes) for record in records}


def one(operation, image):
    return works_of(repeated([operation], 1, image).short)


@pytest.mark.parametrize(
    ("header", "name"),
    [("avx512.hpp", "avx512"), ("avx2.hpp", "avx2"), ("avx2.hpp", "avx-vnni"), ("portable.hpp", "portable")],
)
def test_tiles_are_those_of_native_code(header, name):
    text = (build.SOURCES / header).read_text()
    told = {key: int(value) for key, value in re.findall(r"\b([A-Z_]+) = (\d+)", text)}
    tiles = TILES[name]
    assert (tiles.rows, tiles.vectors) == (told["ROWS"], told["VECTORS"])
    assert (tiles.pixels, tiles.block_rows) == (told["PIXELS"], told["BLOCK_ROWS"])


def test_groups_and_chunks_are_those_of_native_code():
    text = (build.SOURCES / "program.hpp").read_text()
    assert f"constexpr int GROUP = {GROUP};" in text and f"constexpr int CHUNK = {CHUNK};" in text


def test_a_pointwise_layer_by_hand():
    # 6 x 6 pixels are a chunk of 28, in four tiles of 7, and one of 8, in a tile of 8; 40 outputs are two vectors and
    # a half; 18 inputs are five times four, the last two of them with zeros.
    work = one(Layers(np.random.default_rng(0)).convolution(18, 40), (18, 6, 6))[Kind.POINTWISE]
    assert work == {"step": 1, "tile": 5, "made": 36 * 3, "dot": 36 * 5 * 2.5}


def test_sums_that_wait_for_each_other_cost_a_chain():
    work = one(Layers(np.random.default_rng(0)).convolution(32, 16), (32, 1, 1))[Kind.POINTWISE]
    assert work["dot"] == 8 * AVX512.chain


def test_a_block_by_hand():
    # 5 x 5 pixels, 64 expanded channels in groups of two vectors each, 3 x 3: a row below is not there.
    block = Layers(np.random.default_rng(0)).block(8, 64, 16, 3, 1)
    work = one(block, (8, 5, 5))[Kind.BLOCK]
    # The first row of the output is made alone, of rows 0 and 1 pushed together; then two rows at once, of two rows
    # each, the last one of row 4 and of one of padding.
    expand, depthwise, project = 5 * 2 * 2 * 10, 5 * 4 * 3 * 5, 16 * 25
    assert work["dot"] == expand + depthwise + project
    assert work["pushed"] == 5 * 5 * 4 and work["made"] == 25 * 4 + 25
    assert work["word"] == 4 * 5 * 4 + 7 * 2 * 3 / 4 and work["sifted"] == (1 + 2) * 4
    assert work["tile"] == (2 * 2 + 1) * 2 + 4 and work["far"] == 0


@pytest.mark.parametrize(
    ("k", "stride", "height", "padding", "pushes"),
    [
        (3, 1, 4, 1, (1, 2, 1)),  # row 0; 1 and 2; row 3; padding
        (3, 1, 6, 0, (3, 0, 0)),
        (3, 2, 6, 1, (3, 0, 0)),
        (5, 1, 5, 2, (2, 1, 2)),
        (5, 2, 7, 2, (3, 1, 2)),
        (7, 1, 3, 3, (1, 1, 3)),
    ],
)
def test_rows_are_pushed_in_twos_where_there_are_two(k, stride, height, padding, pushes):
    block = Layers(np.random.default_rng(0)).block(16, 48, 16, k, stride)
    padded = replace(block.depthwise, padding=(padding,) * 4)
    work = one(replace(block, depthwise=padded), (16, height, 9))[Kind.BLOCK]
    twos, ones, below = pushes
    assert work["pushed"] == (2 * twos + ones) * 9 * 3
    lines = (9 + 2 * padding) * 3 * (1 if k == 3 else 5) / 4
    assert work["word"] == (twos + ones + below) * 9 * 3 + lines


def test_without_an_expansion_rows_are_pushed_as_they_stand():
    work = one(Layers(np.random.default_rng(0)).block(16, 16, 16, 5, 2), (16, 6, 6))[Kind.BLOCK]
    assert work["pushed"] == 0 and work["word"] == 7 * 6 + 10 * 3 * 5 / 4  # rows 0 to 6 are pushed, in five lines


def test_what_leaves_the_cache_is_far():
    pair = repeated([Layers(np.random.default_rng(0)).block(8, 96, 16, 3, 1)], 1, (8, 10, 10))
    used = 100 * (8 + 96)
    assert works_of(pair.short, used)[Kind.BLOCK]["far"] == 0
    assert works_of(pair.short, used // 2)[Kind.BLOCK]["far"] == pytest.approx(100 * 2 / 2)


def test_rows_of_two_tensors_added_are_lines():
    add = Add(np.float32(1), Rounding(np.ones(1, np.float32), np.zeros(1, np.float32)))
    pair = repeated([add], 1, (24, 4, 3), reads=2)
    assert works_of(pair.short)[Kind.ADD] == {"step": 1, "add": 4 * 5}  # of 72 codes each


def test_images_of_few_channels_are_packed():
    pair = repeated([Layers(np.random.default_rng(0)).convolution(3, 16)], 1, (3, 4, 20))
    assert works_of(pair.short)[Kind.QUANTIZE] == {"step": 1, "packed": 4 * 2, "resized": 0}
    pair = repeated([Layers(np.random.default_rng(0)).convolution(6, 16)], 1, (6, 4, 20))
    assert works_of(pair.short)[Kind.QUANTIZE] == {"step": 1, "quantized": 4 * 2, "partly": 4 * 2, "resized": 0}


def test_zero_blocks_of_weights_take_no_dot_products():
    layer = Layers(np.random.default_rng(0)).convolution(64, 32)
    weight = layer.weight.copy()
    weight[:, :32] = 0
    work = one(replace(layer, weight=weight), (64, 4, 7))[Kind.POINTWISE]
    assert work["dot"] == 28 * 2 * 8 and work["tile"] == 2 * 2
    narrow = Layers(np.random.default_rng(0)).convolution(64, 24)
    narrow = one(replace(narrow, weight=weight[:24]), (64, 4, 7))[Kind.POINTWISE]
    assert narrow["dot"] == 28 * (8 + 8 / 2) and narrow["tile"] == 2 * 2  # half of the last vector


def test_sparse_expansions_are_tiles_of_rows():
    block = Layers(np.random.default_rng(0)).block(16, 96, 16, 3, 1)
    weight = block.expand.weight.copy()
    weight[:, 4:] = 0  # a block of each vector stays
    work = one(replace(block, expand=replace(block.expand, weight=weight)), (16, 5, 17))[Kind.BLOCK]
    dense = one(block, (16, 5, 17))[Kind.BLOCK]
    assert dense["dot"] - work["dot"] == 5 * 17 * 6 * 3 and work["pushed"] == dense["pushed"] == 5 * 17 * 6


def test_programs_for_prices_have_all_terms():
    seen = set()
    for pair in pairs():
        seen |= {term for work in works_of(pair.long, 2**20).values() for term, count in work.items() if count}
    assert seen == set(TERMS)
