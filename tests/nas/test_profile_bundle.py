"""A bundle from end to end: written, measured by its script without the toolkit, and read back."""

import json
import shutil
import subprocess
import sys

import pytest

from latency import standalone
from latency.device import environment, fingerprint, parse_device
from latency.parts import Parts, PartsEffort
from latency.timing import Timing
from latency.whole import Effort
from nas import profile_bundle
from nas.bundle import read_result
from nas.profile_bundle import import_profile, write_profile_bundle
from nas.profile_data import read_profile
from nas.profiling import Plan
from tests.nas.small_space import Small

PLAN = Plan(fit=2, check=1, every=False, blocks=4, repeats=1)
ALONE = """
import runpy, sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} must not be needed")
FORBIDDEN = {"latency", "nas", "search_spaces", "supernet", "predictors", "quant_search", "scipy", "torch", "onnx"}
sys.meta_path.insert(0, Refusing())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not FORBIDDEN & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder of a bundle with its result."""
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_bundle, "QUICK", Effort(rounds=1, most_rounds=1, samples=2))
        patch.setattr(profile_bundle, "LONG_S", 0.0)  # so that networks count as long, and are timed by parts
        patch.setattr(profile_bundle, "PARTS", PartsEffort(free=0, calls=4, seconds=1))
        write_profile_bundle(folder, Small, image_size=8, num_classes=4, plan=PLAN)
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "measure.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "models" in done.stderr and "left" in done.stderr and "nas profile --import" in done.stderr
    return folder


def lines(file):
    return file.read_text().splitlines(keepends=True)


def test_the_result_is_the_profile_that_the_toolkit_would_have_measured(measured, tmp_path):
    profile = import_profile(measured / "result.jsonl", Small)
    data, device = profile.data, parse_device("cpu")
    assert (data.device, data.threads, data.runtime) == ("cpu", 1, "onnxruntime")
    assert data.fingerprint == fingerprint(device)
    assert data.environment == json.loads(json.dumps(environment(device).plain()))
    data.write(tmp_path / "profile.json")
    assert read_profile(tmp_path / "profile.json") == data
    for subject in data.subjects:
        assert set(subject.results) == set(subject.ways) and subject.size_bytes > 0
        for way, found in subject.results.items():
            if way.startswith("parts"):
                assert Parts.of(found).plain() == found
                assert all(node.name for node in Parts.of(found).nodes)
            else:
                assert len(Timing.of(found).samples_s) >= 2
    assert set(profile.summary()["precisions"]) and data.wall_s > 0


def test_short_networks_are_timed_whole_and_in_batches(measured, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(measured, folder, ignore=shutil.ignore_patterns("*.jsonl"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["choice"]["beyond_s"] = 1e3
    manifest["digest"] = standalone.manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert standalone.main(["--batch", "3"], folder) == 0
    found = import_profile(folder / "result.jsonl", Small)
    assert {way for s in found.data.subjects for way in s.results} == {"wall", "wall again"}
    assert found.summary()["timed"] == "whole"
    assert (found.data.device, found.data.batch) == ("cpu:batch=3", 3)


def test_a_killed_run_goes_on_where_it_was(measured, tmp_path, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(measured, folder)
    whole = lines(folder / "result.jsonl")
    (folder / "result.jsonl").write_text("".join(whole[:-2]) + whole[-2][:20])
    with pytest.raises(ValueError, match=r"lacks 2 of \d+ models .* run measure.py on the device again"):
        import_profile(folder / "result.jsonl", Small)
    assert standalone.main(["--minutes", "1e-9"], folder) == 3
    assert "2 of" in capsys.readouterr().err
    assert standalone.main([], folder) == 0
    again = lines(folder / "result.jsonl")
    assert again[:-2] == whole[:-2] and [json.loads(a)["key"] for a in again[1:]] == [
        json.loads(b)["key"] for b in whole[1:]
    ]
    import_profile(folder / "result.jsonl", Small)


def test_what_is_wrong_is_said_in_a_line(measured, tmp_path, capsys):
    whole, file = lines(measured / "result.jsonl"), tmp_path / "result.jsonl"
    with pytest.raises(ValueError, match=r"no result .*missing.jsonl"):
        import_profile(tmp_path / "missing.jsonl", Small)
    file.write_text("{}\n")
    with pytest.raises(ValueError, match=r"is no result of measure\.py"):
        import_profile(file, Small)
    file.write_text("".join([whole[0], "{broken\n", *whole[2:]]))
    with pytest.raises(ValueError, match="damaged in line 2"):
        import_profile(file, Small)
    record = json.loads(whole[1])
    del record["results"]["wall"]["samples_s"]
    file.write_text("".join([whole[0], json.dumps(record) + "\n", *whole[2:]]))
    with pytest.raises(ValueError, match="what it says of call is damaged"):
        import_profile(file, Small)
    head = json.loads(whole[0])
    head["environment"]["cpu"] = "another"
    file.write_text("".join([json.dumps(head) + "\n", *whole[1:]]))
    with pytest.raises(ValueError, match="fingerprint"):
        import_profile(file, Small)
    assert standalone.main(["--out", str(file)], measured) == 1
    assert "was begun with another environment" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is the result of a bundle for `nas profile`"):
        read_result(measured / "result.jsonl", "verify")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_profile_bundle(measured, Small)


def test_damaged_bundles_are_refused_on_the_device(measured, tmp_path, capsys):
    folder = tmp_path / "bundle"
    shutil.copytree(measured, folder, ignore=shutil.ignore_patterns("*.jsonl"))
    (folder / "models" / "middle.onnx").write_bytes(b"")
    assert standalone.main([], folder) == 1
    assert "middle.onnx is damaged: copy it" in capsys.readouterr().err
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"at_once": ', '"at_once": 1'))
    assert standalone.main([], folder) == 1
    assert "was changed or is damaged" in capsys.readouterr().err
    (folder / "manifest.json").unlink()
    assert standalone.main([], folder) == 1
    assert "no manifest.json" in capsys.readouterr().err
