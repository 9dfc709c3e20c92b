"""Files measured from Python, whoever made them."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import nas
from latency.contention import Contention
from latency.harness import CAREFUL
from latency.timing import Timing
from latency.worker import Effort
from nas import measuring
from nas.cli import _run
from nas.errors import CannotBeDone
from nas.measuring import count_rounds, read_model, say_busy
from nas.progress import SilentReporter

FEW = Effort(rounds=2, most_rounds=2, samples=3, sample_s=1e-5)


@pytest.fixture(autouse=True)
def quickly(tmp_path, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Timing, "doubtful", property(lambda timing: False))  # whatever else the machine does
    for name in ("CAREFUL", "COMPARING", "QUICK"):
        monkeypatch.setattr(measuring, name, FEW)


def file_of(folder, name="net.onnx", width=4, nodes=None):
    """A product of images (batch, 8) with weights, under names of its own and with two outputs."""
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", size))  # noqa: E731
    weight = numpy_helper.from_array(np.ones((8, width), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [value("x", 8)], [value("z", width), value("y", width)], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def test_a_file_is_measured_and_then_known(tmp_path):
    file = file_of(tmp_path)
    found = nas.measure(file, batch=3)
    assert isinstance(found, nas.Measurement) and found.batch == 3 and found.throughput == 3 / found.median_s
    assert found.contention is not None and len(found.samples_s) >= 6
    assert nas.measure(str(file), batch=3) == found
    assert nas.measure(file, batch=3, remeasure=True) != found


def test_two_files_are_compared(tmp_path):
    found = nas.compare(file_of(tmp_path), file_of(tmp_path, "wide.onnx", 4096))
    assert isinstance(found, nas.Comparison) and found.ratio > 1 and found.verdict in ("slower", "no difference")


def test_weights_beside_the_file_are_read_with_it(tmp_path):
    whole = file_of(tmp_path).read_bytes()
    model = onnx.load_model_from_string(whole)
    onnx.save_model(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert onnx.load_model_from_string(read_model(tmp_path / "split.onnx")).graph.initializer[0].raw_data
    assert nas.measure(tmp_path / "split.onnx").median_s > 0
    (tmp_path / "w.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"split\.onnx lacks the file of its weights"):
        read_model(tmp_path / "split.onnx")


def test_errors_name_the_file(tmp_path):
    good = file_of(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model file .*none\.onnx"):
        nas.measure(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.onnx: ONNX Runtime cannot open"):
        nas.compare(good, tmp_path / "junk.onnx")
    reshape = [helper.make_node("Reshape", ["x", "shape"], ["z"]), helper.make_node("Neg", ["x"], ["y"])]
    shape = helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([3, 8])))
    failing = file_of(tmp_path, "failing.onnx", 8, [shape, *reshape])
    with pytest.raises(CannotBeDone, match=r"failing\.onnx: "):
        nas.measure(failing, batch=2)


def test_the_command_measures_compares_and_sets_a_damaged_store_aside(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path, "a.onnx")
    file_of(tmp_path, "b.onnx", 40_000)  # several times slower: on no machine the other way round
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "measurements.sqlite").write_bytes(b"no database" * 99)
    assert _run(["measure", "a.onnx", "b.onnx", "--batch", "2", "--json", "--out", "m.json"]) == 0
    out, err = capsys.readouterr()
    assert "measurements.sqlite.damaged-1" in "".join(err.split()) and "p99" in err
    a, b = json.loads(out)["files"]
    assert a["file"] == "a.onnx" and a["median_s"] < b["median_s"] and a["throughput"] == 2 / a["median_s"]
    assert a["p10_s"] <= a["p90_s"] <= a["p99_s"] and a["ci95_s"][0] <= a["median_s"] <= a["ci95_s"][1]
    assert len(json.loads((tmp_path / "m.json").read_text())["measurements"][0]["timing"]["samples_s"]) >= 6
    assert _run(["measure", "a.onnx", "--batch", "2", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == [a] and err == ""
    assert _run(["measure", "a.onnx", "b.onnx", "--compare", "--json", "--out", "c.json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["ratio"] > 1 and found["resolution"] >= 0.03 and "Ratio" in err
    assert json.loads((tmp_path / "c.json").read_text())["timings"]["control"]["samples_s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch"),
        (["--batch", "100000"], "batch must be a whole number from 1 to 65536"),
        (["--device", "cpu:batch=8", "--batch", "4"], "has 8 images in a call, got a batch of 4"),
        (["--compare", "--energy"], "leave out --energy"),
        (["--energy"], "the energy of a call on cpu cannot be measured: no energy counters"),
        (["--compare"], "--compare takes two files, got 1"),
        (["--device", "cpux"], "unknown device 'cpux'"),
        (["none.onnx"], "'none.onnx' does not exist"),
    ],
)
def test_wrong_usage_of_the_command(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("latency.energy.POWERCAP", tmp_path / "none")
    file_of(tmp_path, "a.onnx")
    assert _run(["measure", "a.onnx", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_the_bar_grows_with_further_rounds():
    told = []
    stage = SimpleNamespace(expect=lambda total: told.append(total), advance=lambda: told.append("+"))
    count = count_rounds(stage, others=4)
    for _ in range(CAREFUL.rounds + 2):
        count()
    n = CAREFUL.rounds
    assert told == [4 + n, *["+"] * n, 4 + n + 1, "+", 4 + n + 2, "+"]


def test_a_busy_machine_is_told_of_once():
    said = []
    reporter = SilentReporter()
    reporter.message = said.append
    say_busy(reporter, "verify", [None, Contention(1.0, 0.0, 0.0, 0.0, 0.0)])
    assert not said
    say_busy(reporter, "verify", [Contention(1.0, 1.0, 0.0, 0.0, 0.0)])
    assert said == ["verify: the machine was busy: 1.0 other cores in use"]


def test_what_is_reported_is_json(tmp_path):
    found = nas.measure(file_of(tmp_path))
    assert json.loads(json.dumps(found.plain()))["median_s"] == found.median_s
