import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from latency.device import Device, parse_device
from latency.parts import ProfilerCost
from latency.store import MeasurementStore
from nas.any_graph import default_file, profile_files
from nas.progress import SilentReporter
from nas.tables import files_profile_view
from predictors.kernel_profiling import KernelProfiler
from predictors.protocol import Prediction
from quant_search.onnx_qdq import neutral_ranges, quantize
from tests.latency.small_model import model


def int8_model():
    plain = onnx.load_model_from_string(model(8))
    return quantize(plain, [n.name for n in plain.graph.node], neutral_ranges(plain)).SerializeToString()


@pytest.fixture
def store(tmp_path):
    with MeasurementStore(tmp_path / "cache" / "m.sqlite") as store:
        yield store


def test_files_are_measured_beside_what_a_model_says_of_them(tmp_path, store, monkeypatch):
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file, width in zip(files, (4, 64), strict=True):
        file.write_bytes(model(width))
    # The fit itself takes minutes; tests/predictors has it.
    fitted = SimpleNamespace(
        fingerprint="f", predict=lambda networks: Prediction(np.full(len(networks), 2e-5), np.full(len(networks), 1e-5))
    )
    monkeypatch.setattr(KernelProfiler, "fit", lambda self, **_: fitted)
    monkeypatch.setattr(KernelProfiler, "_references", [])
    monkeypatch.setattr(KernelProfiler, "_cost", ProfilerCost(0.0, 0.0, 0.0))
    found = profile_files(files, parse_device("cpu"), store, SilentReporter())
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["heldout"]["n"] == 2 and 0 <= summary["heldout"]["coverage_90"] <= 1
    assert [row["file"] for row in summary["files"]] == list(map(str, files))
    assert summary["files"][0]["macs"] < summary["files"][1]["macs"] and summary["files"][0]["measured_s"] > 0
    assert files_profile_view(summary)


def test_what_is_wrong_shows_before_the_work(tmp_path, store, monkeypatch):
    monkeypatch.setattr(KernelProfiler, "fit", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot open"):
        profile_files([tmp_path / "junk.onnx"], parse_device("cpu"), store, SilentReporter())
    (tmp_path / "int8.onnx").write_bytes(int8_model())
    with pytest.raises(ValueError, match=r"int8\.onnx: kernel .* knows fp32 networks only"):
        profile_files([tmp_path / "int8.onnx"], parse_device("cpu"), store, SilentReporter())
    with pytest.raises(FileNotFoundError):
        profile_files([tmp_path / "none.onnx"], parse_device("cpu"), store, SilentReporter())
    with pytest.raises(ValueError, match="'cpu:torch': give cpu"):
        profile_files([], Device("cpu:torch", "cpu", 1, "torch"), store, SilentReporter())


def test_the_default_file_is_named_after_the_device():
    assert (
        default_file(Device("cpu:threads=2", "cpu", 2, "onnxruntime")).as_posix()
        == "profiles/kernels-cpu_threads_2.json"
    )
