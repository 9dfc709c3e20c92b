"""The command line end to end, on one small but whole run: real training, real files, real ONNX Runtime."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from command import nas

from latency import standalone
from latency.whole import Effort
from nas import verify_bundle

ROOT = Path(__file__).parents[2]
NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
SPACE = ["--space", "small_space:Small"]
SMALL = [*SPACE, "--epochs", "1", "--evaluations", "4", "--no-baselines"]
WHOLE = [*SPACE, "--epochs", "8", "--evaluations", "6"]


def environment(cache):
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return {**os.environ, "PYTHONPATH": path, "HWNAS_CACHE": str(cache), "COLUMNS": "120"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A finished run with baselines: its folder, and what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = nas("search", *WHOLE, "--out", folder, "--json", cwd=folder.parent, cache=cache)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_search_prints_one_json_object_and_progress_beside_it(finished):
    folder, done = finished
    result = json.loads(done.stdout)
    assert result["run"] == str(folder)
    assert result["front"] == json.loads((folder / "front.json").read_text())
    for stage in ("space", "profile", "train", "inherit", "search", "verify"):
        assert f"{stage}:" in done.stderr
    assert set(result["search"]["hypervolume"]) == {"search", "random", "uniform"}
    assert "architectures" in done.stderr and "Verified front" in done.stderr and "Hypervolume" in done.stderr


def test_every_point_has_its_fields_and_its_file(finished):
    folder, _ = finished
    front = json.loads((folder / "front.json").read_text())
    assert front
    for point in front:
        assert {"file", "arch", "policy", "accuracy", "val_accuracy", "size_bytes", "macs"} < point.keys()
        assert point["traffic_bytes"] > point["memory_bytes"] > 0 and point["parameters"] > 0
        assert point["provenance"] == "verified"
        assert (folder / point["file"]).stat().st_size == point["size_bytes"]
        low, high = point["latency_s"]["ci95"]
        assert 0 < low <= point["latency_s"]["median"] <= high
        assert point["latency_s"]["contention"]["seconds"] > 0
    assert json.loads((folder / "record.json").read_text())["profile"]["contention"]["seconds"] > 0
    assert (folder / "report.html").stat().st_size > 1_000_000
    assert {"config.json", "journal.log", "checkpoint.safetensors", "record.json"} <= {p.name for p in folder.iterdir()}


def test_no_point_dominates_another(finished):
    folder, _ = finished
    front = json.loads((folder / "front.json").read_text())
    for a in front:
        for b in front:
            if a is not b:
                better = a["latency_s"]["median"] <= b["latency_s"]["median"] and a["val_accuracy"] >= b["val_accuracy"]
                assert not better


def test_accuracies_are_reproduced_from_the_written_test_data(finished, cache, tmp_path):
    folder, _ = finished
    done = nas("data", "digits", "--split", "test", "--out", tmp_path / "test.npz", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    test = np.load(tmp_path / "test.npz")
    for point in json.loads((folder / "front.json").read_text()):
        labels = ort.InferenceSession(folder / point["file"]).run(None, {"input": test["x"]})[0].argmax(1)
        assert float((labels == test["y"]).mean()) == point["accuracy"]


def test_the_same_command_reads_the_finished_run(finished, cache):
    folder, done = finished
    before = (folder / "record.json").read_bytes()
    again = nas("search", *WHOLE, "--out", folder, "--json", "--quiet", cwd=folder.parent, cache=cache)
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert again.stderr == "" and (folder / "record.json").read_bytes() == before


def test_other_settings_do_not_touch_a_run(finished, cache):
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    other = nas("search", *WHOLE, "--seed", "2", "--out", folder, cwd=folder.parent, cache=cache)
    assert other.returncode == 2 and "seed=0, now seed=2" in other.stderr and "--out" in other.stderr
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_report_and_verify(finished, cache, tmp_path):
    folder, _ = finished
    report = nas("report", folder, "--out", tmp_path, "--json", cwd=tmp_path, cache=cache)
    assert report.returncode == 0 and (tmp_path / "report.html").exists(), report.stderr
    assert json.loads(report.stdout)["search"] == json.loads((folder / "record.json").read_text())["search"]
    verify = nas("verify", folder, "--out", tmp_path, "--json", cwd=tmp_path, cache=cache)
    assert verify.returncode == 0, verify.stderr
    rows = json.loads(verify.stdout)["points"]
    front = json.loads((folder / "front.json").read_text())
    assert [row["accuracy"] for row in rows] == [point["accuracy"] for point in front]
    assert {row["verdict"] for row in rows} <= {"holds", "slower now", "faster now"}
    assert all(row["latency_s"]["contention"]["seconds"] > 0 for row in rows)


def test_a_bundle_verifies_the_front_elsewhere(finished, cache, tmp_path, monkeypatch):
    folder, _ = finished
    monkeypatch.setattr(verify_bundle, "CAREFUL", Effort(rounds=1, most_rounds=1, samples=2))
    verify_bundle.write_verify_bundle(folder, tmp_path / "bundle")
    assert standalone.main(["--batch", "2"], tmp_path / "bundle") == 1  # another measurement than the run's
    assert standalone.main([], tmp_path / "bundle") == 0
    result = tmp_path / "bundle" / "result.jsonl"
    done = nas("verify", folder, "--import", result, "--out", tmp_path, "--json", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).parent == tmp_path and found["fingerprint"] in found["file"]
    assert json.loads(Path(found["file"]).read_text())["points"] == found["points"]
    front = json.loads((folder / "front.json").read_text())
    for name in ("accuracy", "val_accuracy", "size_bytes"):  # the same machine, the same kernels
        assert [row[name] for row in found["points"]] == [point[name] for point in front]
    assert found["front"] == [row["point"] for row in found["points"] if row["verdict"] == "on the front"]
    assert found["front"] and "on the front there: " in done.stderr
    with result.open("r+") as stream:
        stream.truncate(result.stat().st_size - 10)
    with pytest.raises(ValueError, match=r"run measure\.py on the device again"):
        verify_bundle.import_verification(folder, result)


LOADED = """
import json, sys, numpy as np, onnxruntime as ort, torch
folder = sys.argv[1]
x = np.random.default_rng(0).standard_normal((3, 1, 8, 8)).astype("float32")
onnx = ort.InferenceSession(f"{folder}/model.onnx").run(None, {"input": x})[0]
program = torch.export.load(f"{folder}/model.pt2").module()(torch.from_numpy(x)).detach().numpy()
assert not {"nas", "search_spaces", "supernet"} & set(sys.modules)
print(json.dumps(float(abs(onnx - program).max() / abs(program).max())))
"""


def test_an_exported_point_loads_without_the_toolkit(finished, cache, tmp_path):
    folder, _ = finished
    front = json.loads((folder / "front.json").read_text())
    point = next((i for i, p in enumerate(front) if "int8" not in p["policy"].values()), 0)
    done = nas("export", folder, "--point", point, "--to", tmp_path / "deploy", cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "deploy" / "card.json").read_text())
    assert card["accuracy"] == front[point]["accuracy"] and card["settings"]["space"] == SPACE[1]
    command = [sys.executable, "-I", "-c", LOADED, str(tmp_path / "deploy")]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) < (1e-3 if "int8" not in front[point]["policy"].values() else 1)
    again = nas("export", folder, "--point", point, "--to", tmp_path / "deploy", cwd=tmp_path, cache=cache)
    assert again.returncode == 2 and "not an empty folder" in again.stderr
    beyond = nas("export", folder, "--point", 99, "--to", tmp_path / "other", cwd=tmp_path, cache=cache)
    assert beyond.returncode == 2 and f"points 0 to {len(front) - 1}, got 99" in beyond.stderr


def test_points_in_int8_are_exported_as_source(finished, cache, tmp_path):
    folder, _ = finished
    for i, point in enumerate(json.loads((folder / "front.json").read_text())):
        to, whole = tmp_path / str(i), "fp32" not in point["policy"].values()
        done = nas("export", folder, "--point", i, "--format", "native", "--to", to, cwd=tmp_path, cache=cache)
        assert done.returncode == (0 if whole else 2), done.stderr
        assert to.exists() == whole and (whole or f"point {i} has " in done.stderr)


def test_a_bound_that_nothing_meets_ends_with_the_best_possible_value(finished, cache, tmp_path):
    done = nas("search", *SMALL, "--max-latency", "1ns", "--out", tmp_path / "run", cwd=tmp_path, cache=cache)
    assert done.returncode == 1
    assert "latency_s ≤ 1e-09" in done.stderr and "best possible found" in done.stderr


def test_a_training_that_diverges_stops_and_keeps_its_checkpoint(finished, cache, tmp_path):
    done = nas("search", *SMALL, "--lr", "1e12", "--out", tmp_path / "run", "--quiet", cwd=tmp_path, cache=cache)
    assert done.returncode == 2
    assert done.stderr.startswith("nas: ") and done.stderr.count("\n") == 1 and "rate" in done.stderr
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_an_interrupt_in_a_finalizer_is_not_lost():
    code = """
import signal, time
from nas.cli import mind_interrupts

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

mind_interrupts()
made = Interrupted()
try:
    del made
    time.sleep(30)
except KeyboardInterrupt:
    raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=25).returncode == 7


def test_an_interrupted_search_says_how_to_go_on(finished, cache, tmp_path):
    command = [*NAS, "search", *SPACE, "--epochs", "5000", "--out", str(tmp_path / "run"), "--quiet"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(cache), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to go on, repeat the command" in errors and str(tmp_path / "run") in errors
