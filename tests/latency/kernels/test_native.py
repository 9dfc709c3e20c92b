"""Native code equals the reference bit for bit, by every instruction set of this processor."""

import os
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from native_programs import (
    float32,
    program_of,
    some_block,
    some_codes,
    some_convolution,
    some_depthwise,
    some_network,
    some_rounding,
    some_weight,
)

from latency.kernels import native
from latency.kernels.contract import (
    Add,
    AveragePool,
    Concatenate,
    Convolution,
    Logits,
    Multiply,
    Program,
    Quantize,
    Resize,
    Rounding,
    Step,
    Table,
    WindowAverage,
    WindowMaximum,
)
from latency.kernels.lowered import Kind
from latency.kernels.program import encoded

CASES = int(os.environ.get("HWNAS_KERNEL_CASES", "40"))  # of each property
many = settings(max_examples=CASES, deadline=None, derandomize=CASES <= 40, database=None)

seeds = st.integers(0, 2**32 - 1)
channels = st.one_of(st.integers(1, 20), st.sampled_from([16, 24, 31, 32, 33, 47, 48, 49, 65, 97, 112]))
sizes = st.integers(1, 17)
paddings = st.tuples(*[st.integers(0, 4)] * 4)
threads = st.integers(1, 3)


def assert_equals_reference(program, x, count=1):
    expected = program.run(x)
    for name in native.instruction_sets():
        with native.open_program(program, name) as opened:
            np.testing.assert_array_equal(opened.crowd().run(x, count), expected, name)


@many
@given(seeds, channels, channels, st.tuples(sizes, sizes), st.integers(1, 2), threads, st.booleans())
def test_1x1_convolutions(seed, inputs, outputs, size, batch, count, adds):
    rng = np.random.default_rng(seed)
    first, second = some_convolution(rng, inputs, outputs), some_convolution(rng, outputs, outputs, residual=True)
    program = program_of((inputs, *size), first, (second, (2, 2)) if adds else second)
    assert_equals_reference(program, some_codes(rng, batch, (inputs, *size)), count)


kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))


@many
@given(seeds, channels, channels, st.tuples(sizes, sizes), kernels, st.integers(1, 3), paddings, threads)
def test_dense_convolutions(seed, inputs, outputs, size, kernel, stride, padding, count):
    rng = np.random.default_rng(seed)
    size = [max(n, k) for n, k in zip(size, kernel, strict=True)]
    program = program_of((inputs, *size), some_convolution(rng, inputs, outputs, kernel, stride, padding))
    assert_equals_reference(program, some_codes(rng, 1, (inputs, *size)), count)


@many
@given(seeds, channels, st.tuples(sizes, sizes), kernels, st.integers(1, 3), paddings, threads)
def test_depthwise_convolutions_of_any_kernel(seed, width, size, kernel, stride, padding, count):
    rng = np.random.default_rng(seed)
    size = [max(n, k) for n, k in zip(size, kernel, strict=True)]
    program = program_of((width, *size), some_depthwise(rng, width, kernel, stride, padding))
    assert_equals_reference(program, some_codes(rng, 1, (width, *size)), count)


block_kernels, strides = st.sampled_from([3, 5, 7]), st.sampled_from([1, 2])


@many
@given(seeds, channels, st.tuples(sizes, sizes), block_kernels, strides, paddings, threads)
def test_depthwise_convolutions(seed, width, size, kernel, stride, padding, count):
    rng = np.random.default_rng(seed)
    size = [max(n, kernel) for n in size]
    program = program_of((width, *size), some_depthwise(rng, width, (kernel, kernel), stride, padding))
    assert_equals_reference(program, some_codes(rng, 1, (width, *size)), count)


@many
@given(
    seeds,
    st.tuples(channels, channels, channels),
    st.tuples(sizes, sizes),
    block_kernels,
    strides,
    threads,
    st.booleans(),
)
@example(0, (24, 144, 24), (30, 30), 3, 1, 2, True)
@example(1, (40, 240, 40), (14, 28), 5, 1, 3, True)
@example(2, (16, 96, 24), (29, 31), 3, 2, 1, True)
def test_inverted_residuals(seed, widths, size, kernel, stride, count, expands):
    rng = np.random.default_rng(seed)
    adds = stride == 1 and rng.random() < 0.5
    inputs, wide, outputs = widths if not adds else (widths[0], widths[1], widths[0])
    block = some_block(rng, inputs, wide, outputs, kernel, stride, (kernel // 2,) * 4, adds, expands)
    program = program_of((inputs, *size), block)
    assert_equals_reference(program, some_codes(rng, 1, (inputs, *size)), count)


@many
@given(seeds, channels, channels, st.tuples(sizes, sizes), block_kernels, strides, paddings, threads)
def test_expansion_and_depthwise_convolution_alone(seed, inputs, wide, size, kernel, stride, padding, count):
    rng = np.random.default_rng(seed)
    size = [max(n, kernel) for n in size]
    parts = some_convolution(rng, inputs, wide), some_depthwise(rng, wide, (kernel, kernel), stride, padding)
    assert_equals_reference(program_of((inputs, *size), *parts), some_codes(rng, 1, (inputs, *size)), count)


@many
@given(seeds, channels, st.tuples(sizes, sizes), st.floats(0.0, 1.0), st.booleans(), threads)
def test_block_sparse_weights(seed, inputs, size, density, in_block, count):
    rng = np.random.default_rng(seed)
    wide, outputs = 70, 37
    block = some_block(rng, inputs, wide, outputs, 3, 1, (1, 1, 1, 1))
    for layer in (block.expand, block.project):
        for begin in range(0, len(layer.weight), 16):
            for at in range(0, layer.weight.shape[1], 4):
                if rng.random() > density:
                    layer.weight[begin : begin + 16, at : at + 4] = 0
    operations = [block] if in_block else [block.expand, block.project]
    assert_equals_reference(program_of((inputs, *size), *operations), some_codes(rng, 1, (inputs, *size)), count)


@many
@given(seeds, channels, st.tuples(sizes, sizes), st.floats(0.0, 1.0), st.integers(1, 2), threads)
def test_block_sparse_kernels(seed, inputs, size, density, stride, count):
    rng = np.random.default_rng(seed)
    layer = some_convolution(rng, inputs, 37, (3, 2), stride, (1, 0, 1, 1))
    for begin, at, tap in np.ndindex(3, -(-inputs // 4), 3):
        if rng.random() > density:
            layer.weight[16 * begin : 16 * begin + 16, 4 * at : 4 * at + 4, tap] = 0
    assert_equals_reference(program_of((inputs, *size), layer), some_codes(rng, 1, (inputs, *size)), count)


@many
@given(seeds, channels, st.tuples(sizes, sizes), threads)
def test_operations_without_weights(seed, width, size, count):
    rng = np.random.default_rng(seed)
    x = some_codes(rng, 2, (width, *size))
    scale = Rounding(*rng.uniform(-2, 2, (2, 1)).astype(np.float32), 3, 250, zero=int(rng.integers(256)))
    zeros = [int(zero) for zero in rng.integers(0, 256, 2)]
    table = Table(rng.integers(0, 256, 256).astype(np.uint8))
    pool = AveragePool(some_rounding(rng, width, 255 * size[0] * size[1]))
    gate = Multiply(*zeros, some_rounding(rng, width, 255 * 255))
    assert_equals_reference(program_of((width, *size), table, (Add(float32(rng.normal()), scale), (1, 2))), x, count)
    assert_equals_reference(program_of((width, *size), table, pool, (gate, (2, 3))), x, count)
    assert_equals_reference(program_of((width, *size), table, (Concatenate(), (2, 1, 2))), x, count)


windows = st.tuples(st.integers(1, 4), st.integers(1, 4))


@many
@given(seeds, channels, st.tuples(sizes, sizes), windows, st.integers(1, 3), st.booleans(), st.booleans())
def test_windows(seed, width, size, window, stride, pads, counted):
    rng = np.random.default_rng(seed)
    size = [max(n, k) for n, k in zip(size, window, strict=True)]
    padding = tuple(int(rng.integers(0, k)) for k in window * 2) if pads else (0, 0, 0, 0)
    scale = Rounding(np.float32([rng.uniform(0.1, 2)]), np.float32([rng.integers(256)]), 5, 240)
    zero = int(rng.integers(256))
    for operation in (
        WindowMaximum(window, stride, padding),
        WindowAverage(window, float32(rng.uniform(0.1, 2)), scale, stride, padding, zero, counted),
    ):
        assert_equals_reference(program_of((width, *size), operation), some_codes(rng, 1, (width, *size)))


@many
@given(seeds, st.integers(1, 5) | channels, st.tuples(sizes, sizes), st.none() | st.tuples(sizes, sizes), threads)
def test_images_become_codes(seed, width, size, resized, count):
    rng = np.random.default_rng(seed)
    steps = [Step("codes", Quantize(float32(rng.uniform(0.01, 0.1)), int(rng.integers(256))), (0,), 1)]
    if resized:
        steps = [Step("resize", Resize(*resized), (0,), 5), Step("codes", steps[0].operation, (5,), 1)]
    program = Program((width, *size), [*steps, *program_of((width, *size)).steps[1:]])
    x = rng.normal(0, 5, (2, width, *size)).astype(np.float32)
    x.flat[::7] *= float32(1e30)
    assert_equals_reference(program, x, count)


@many
@given(seeds, st.integers(1, 200), st.integers(1, 70), st.tuples(st.integers(1, 3), st.integers(1, 3)), threads)
def test_logits(seed, inputs, classes, size, count):
    rng = np.random.default_rng(seed)
    scale, bias = rng.normal(0, 1, (2, classes)).astype(np.float32)
    layer = Logits(some_weight(rng, classes, inputs * size[0] * size[1]), scale, bias)
    steps = program_of((inputs, *size)).steps[:1]
    program = Program((inputs, *size), [*steps, Step("logits", layer, (1,), 2)])
    assert_equals_reference(program, some_codes(rng, 3, (inputs, *size)), count)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("scale", [1e-7, 3e-7, 1.0, 1e30, -1e30])
def test_sums_beyond_float32_and_codes_beyond_the_ends(weight, scale):
    rng = np.random.default_rng(0)
    inputs, outputs = 4099, 33
    signs = np.where(rng.random((outputs, inputs, 1, 1)) < 0.01, 3, weight).astype(np.int8)
    bias = rng.uniform(100, 150, outputs).astype(np.float32)
    layer = Convolution(signs, Rounding(np.full(outputs, scale, np.float32), bias))
    program = program_of((inputs, 2, 5), layer)
    assert_equals_reference(program, np.full((1, inputs, 2, 5), 255, np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_networks_in_any_number_of_threads_and_images(seed):
    rng = np.random.default_rng(seed)
    program = some_network(rng)
    x = rng.normal(0, 1, (5, *program.input_shape)).astype(np.float32)
    expected = program.run(x)
    for name in native.instruction_sets():
        with native.open_program(program, name) as opened:
            opened.crowd()
            for count in (1, 2, 3, 7):
                np.testing.assert_array_equal(opened.run(x, count), expected, f"{name}, {count} threads")
                np.testing.assert_array_equal(opened.run(x[:1], count), expected[:1], f"{name}, {count} threads")


def test_a_call_writes_into_the_array_that_it_was_made_for():
    rng = np.random.default_rng(0)
    program = program_of((3, 5, 5), some_convolution(rng, 3, 8))
    x = some_codes(rng, 2, (3, 5, 5))
    with native.open_program(program) as opened:
        y = np.zeros((2, opened.output_size), np.float32)
        call = opened.call(x, y)
        for images in (x, x[::-1].copy()):
            x[:] = images
            call()
            np.testing.assert_array_equal(y, program.run(x))
    with pytest.raises(ValueError, match="the program is closed; open it again"):
        call()


def test_a_program_that_several_threads_run():
    rng = np.random.default_rng(0)
    program = some_network(rng)
    x = rng.normal(0, 1, (4, *program.input_shape)).astype(np.float32)
    expected, found = program.run(x), {}
    with native.open_program(program) as opened:
        opened.crowd()
        callers = [
            threading.Thread(target=lambda i=i: found.update({i: opened.run(x[i : i + 1], 2)})) for i in range(len(x))
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    np.testing.assert_array_equal(np.concatenate([found[i] for i in range(len(x))]), expected)


def spans(data):
    """Where tensors but the image lie in memory, as the file has it."""
    count = int(np.frombuffer(data, "<i4", 1, 16)[0])
    height, width, depth, offset = np.frombuffer(data, "<i4", 4 * count, 64).reshape(-1, 4)[1:].T
    return list(zip(offset, offset + height * width * depth, strict=True))


@many
@given(seeds)
def test_nothing_is_written_outside_of_tensors(seed):
    rng = np.random.default_rng(seed)
    program = some_network(rng)
    data = encoded(program, gap_bytes=48)
    x = rng.normal(0, 1, (1, *program.input_shape)).astype(np.float32)
    outputs = np.full(37 + 64, np.float32(123), np.float32)
    for name in native.instruction_sets():
        with native.Native(data, name) as opened:
            opened.run(x)
            outside = np.ones(opened.memory().size, bool)
            for begin, end in spans(data):
                outside[begin:end] = False
            opened.memory()[:] = 0xAB
            opened.call(x, outputs[32:-32].reshape(1, -1))()
            assert (opened.memory()[outside] == 0xAB).all(), name
            assert (outputs[:32] == 123).all() and (outputs[-32:] == 123).all(), name
            np.testing.assert_array_equal(outputs[32:-32], program.run(x)[0], name)


def test_programs_that_are_cut_short_are_refused():
    data = encoded(some_network(np.random.default_rng(0)))
    for size in {*range(0, 400, 7), *range(0, len(data), 97), len(data) - 1}:
        with pytest.raises(ValueError, match="damaged"):
            native.Native(data[:size])
    with pytest.raises(ValueError, match="damaged"):
        native.Native(data + b"\0")


def test_a_block_that_writes_to_the_image_is_refused():
    program = program_of((3, 9, 9), some_block(np.random.default_rng(0), 3, 3, 5, 3, 1, (1, 1, 1, 1), expands=False))
    numbers = np.frombuffer(encoded(program), "<i4").copy()
    tensors, steps = numbers[4], numbers[5]
    places = (16 + 4 * tensors + 92 * np.arange(steps)).tolist()
    (between,) = (at + 4 for at in places if numbers[at] == Kind.BLOCK)
    numbers[19], numbers[between] = 2**30, 0  # where the image stands, which is as large as the depthwise codes
    with pytest.raises(ValueError, match="damaged: a step writes to the image"):
        native.Native(numbers.tobytes())


@pytest.mark.parametrize(
    ("shape", "operation", "sizes", "what"),
    [
        ((1, 8, 1), (Concatenate(), (1, 1)), (1, 8, 1), "a copy does not fit"),  # as many pixels, in a row
        (
            (16, 9, 9),
            some_block(np.random.default_rng(0), 16, 16, 5, 3, 1, (1, 1, 1, 1), expands=False),
            (9, 9, 1),
            "a block does not fit",
        ),
    ],
)
def test_images_of_other_sizes_than_a_step_reads_are_refused(shape, operation, sizes, what):
    numbers = np.frombuffer(encoded(program_of(shape, operation)), "<i4").copy()
    for tensor in (0, 1):  # the image and its codes
        numbers[16 + 4 * tensor : 19 + 4 * tensor] = sizes
    with pytest.raises(ValueError, match=f"damaged: {what}"):
        native.Native(numbers.tobytes())


def test_a_kernel_with_more_rows_than_it_says_is_refused():
    rng = np.random.default_rng(0)
    layer = some_depthwise(rng, 16, (3, 3), 1, (1, 1, 1, 1))
    layer.weight[:] = ord("M")
    data = bytearray(encoded(program_of((16, 9, 9), layer)))
    data[data.index(b"\0MMM" * 16 * 3)] = 1  # a fourth row, of the first channel and column
    with pytest.raises(ValueError, match="damaged: a kernel has too many rows"):
        native.Native(bytes(data))


@many
@given(seeds)
def test_programs_with_wrong_numbers_are_refused_or_run(seed):
    rng = np.random.default_rng(seed)
    program = some_network(rng)
    data = np.frombuffer(encoded(program), np.uint8).copy()
    tables = 64 + 16 * 30 + 352 * 20
    numbers = data[: tables // 4 * 4].view("<i4")
    for at in rng.integers(3, len(numbers), 3):
        numbers[at] = rng.choice([0, -1, 1, 2**31 - 1, -(2**31), 64, 3, numbers[at] + 1, numbers[at] - 64])
    try:
        opened = native.Native(data.tobytes())
    except (ValueError, MemoryError):
        return
    with opened:
        opened.run(np.zeros((2, opened.image_size), np.float32))


def test_what_is_no_image_or_no_instruction_set_is_refused():
    program = program_of((3, 4, 4), some_convolution(np.random.default_rng(0), 3, 5))
    with pytest.raises(ValueError, match=r"no instruction set 'mmx'; it has .*portable"):
        native.open_program(program, "mmx")
    with native.open_program(program) as opened:
        with pytest.raises(ValueError, match=r"images are float32 \(1, 3, 4, 5\), expected 1 times 48 float32"):
            opened.run(np.zeros((1, 3, 4, 5), np.float32))
        with pytest.raises(ValueError, match="0 images in 1 threads"):
            opened.run(np.zeros((0, 3, 4, 4), np.float32))
        with pytest.raises(ValueError, match="thread 0 has no memory yet"):
            opened.memory()
    with pytest.raises(ValueError, match="closed"):
        opened.run(np.zeros((1, 3, 4, 4), np.float32))
