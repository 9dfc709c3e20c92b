"""Files run by our own kernels, as sessions of a device."""

import time

import numpy as np
import pytest
from torch import nn

from latency.device import Device, parse_device
from latency.kernels.intake import program_of
from latency.kernels.native import open_program
from latency.lowering import to_onnx
from latency.runtimes import opening
from latency.runtimes.fused import open_parts, open_session
from latency.runtimes.onnx_runtime import open_session as open_onnx
from quant_search.onnx_qdq import activation_ranges, quantize
from tests.latency.runtimes.rows import floats

DEVICE = Device("cpu:fused", "cpu", 1, "fused")
NET = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(24, 5),
)  # fmt: skip


@pytest.fixture(scope="module")
def fp32():
    return to_onnx(NET, (3, 8, 9))


@pytest.fixture(scope="module")
def int8(fp32):
    return quantize(fp32, [n.name for n in fp32.graph.node], activation_ranges(fp32, floats(16, 3, 8, 9)))


@pytest.fixture(scope="module")
def session(int8):
    return open_session(int8.SerializeToString(), DEVICE)


def test_outputs_are_the_references_and_onnx_runtimes_within_a_code(session, int8):
    x = floats(7, 3, 8, 9)
    found = session.run(x)
    assert np.array_equal(found, program_of(int8).run(x))
    expected = open_onnx(int8.SerializeToString(), parse_device("cpu")).run(x)
    assert found.shape == expected.shape == (7, 5) and found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_images_have_the_shape_of_the_file_in_any_number(session):
    assert session.input_shape == (3, 8, 9) and session.fixed_batch is None
    assert session.batch_shape(4) == (4, 3, 8, 9)
    assert session.predict_labels(floats(5, 3, 8, 9), batch=2).shape == (5,)
    assert session.predict_labels(floats(0, 3, 8, 9)).shape == (0,)
    with pytest.raises(ValueError, match="images are"):
        session.run(floats(2, 3, 9, 9))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_threads_and_batches_change_nothing(session, int8, threads, batch):
    x = floats(batch, 3, 8, 9)
    other = open_session(int8.SerializeToString(), Device("cpu:fused", "cpu", threads, "fused", batch))
    assert np.array_equal(other.run(x), session.run(x))


def test_a_file_is_opened_by_its_name(int8, session, tmp_path):
    (tmp_path / "m.onnx").write_bytes(int8.SerializeToString())
    found = opening.open_session(tmp_path / "m.onnx", DEVICE)
    x = floats(1, 3, 8, 9)
    assert np.array_equal(found.run(x), session.run(x))
    with pytest.raises(FileNotFoundError, match="no model file"):
        open_session(tmp_path / "none.onnx", DEVICE)


def test_islands_in_fp32_are_refused_by_name_before_anything_is_compiled(fp32, monkeypatch):
    monkeypatch.setattr("latency.runtimes.fused.open_program", lambda _: pytest.fail("compiled"))
    half = quantize(fp32, ["/0/Conv"], activation_ranges(fp32, floats(4, 3, 8, 9)))
    said = r"do not cover 2 of \d+ nodes: '/2/Conv' \(Conv\): computes in fp32.*; '/6/Gemm' \(Gemm\): computes in fp32"
    for refuse in (open_session, opening.check_covered):
        with pytest.raises(ValueError, match=said) as caught:
            refuse(half.SerializeToString(), DEVICE)
        assert "\n" not in str(caught.value)
    opening.check_covered(half.SerializeToString(), parse_device("cpu"))  # whose run-time takes any file


def test_all_of_a_file_is_in_int8(int8):
    assert opening.int8_share(int8.SerializeToString(), DEVICE) == 1.0
    opening.check_covered(int8.SerializeToString(), DEVICE)


def test_a_file_that_is_no_model_is_refused():
    with pytest.raises(ValueError, match="fused kernels cannot read the model of 4 bytes"):
        open_session(b"junk", DEVICE)


@pytest.mark.parametrize("batch", [1, 3])
def test_each_step_is_timed_in_its_place(int8, batch):
    device = Device("cpu:fused", "cpu", 1, "fused", batch)
    session, x = open_parts(int8.SerializeToString(), device), floats(batch, 3, 8, 9)
    call, calls = session.call(x), 40
    begun_s = time.perf_counter()
    for _ in range(calls):
        call()
    all_s = time.perf_counter() - begun_s
    steps = session.end()
    assert [kind for _, kind, _, _ in steps] == ["quantize", "dense", "pointwise", "pool", "pointwise", "dequantize"]
    names = {node.name for node in int8.graph.node}
    assert all(name in names and inputs == 0 for name, _, inputs, _ in steps)
    seconds = np.array([seconds for *_, seconds in steps])
    assert seconds.shape == (6, calls) and (seconds >= 0).all() and 0 < seconds.sum() <= all_s


def test_steps_are_timed_in_one_thread(int8):
    with pytest.raises(ValueError, match="steps are timed in one thread, and 'cpu:fused,threads=2' has 2"):
        open_parts(int8.SerializeToString(), Device("cpu:fused,threads=2", "cpu", 2, "fused"))


def test_timed_steps_make_the_same_outputs_and_add_up(int8):
    x, y = floats(3, 3, 8, 9), np.empty((3, 5), np.float32)
    with open_program(program_of(int8)) as native:
        ns = np.zeros(native.steps, np.int64)
        call = native.timed(x, y, ns)
        call()
        once = ns.copy()
        call()
        assert np.array_equal(y, native.run(x)) and (ns >= once).all() and ns.sum() > once.sum() > 0
        for wrong in (ns[:-1].copy(), ns.astype(np.int32), np.zeros(2 * native.steps, np.int64)[::2]):
            with pytest.raises(ValueError, match=f"expected int64 of {native.steps} steps"):
                native.timed(x, y, wrong)
        with pytest.raises(ValueError, match="images are"):
            native.timed(x[:, :, 1:].copy(), y, ns)
