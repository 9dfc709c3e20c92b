"""A search for a device that is not attached: a made-up one, whose latencies follow a formula."""

import json
from dataclasses import asdict

import pytest
from small_space import Small

import nas.inherit
from latency.device import parse_device
from latency.timing import Timing
from nas.absent import run_absent, with_profile
from nas.config import Settings
from nas.folder import read_record
from nas.profile_data import ProfileData
from nas.profiles import built_space, profiled_space
from nas.profiling import Plan, planned
from nas.progress import SilentReporter
from nas.report import headline
from nas.results import verify_again
from nas.tables import result_view
from supernet.data import load_data

SPACE, CPU = "small_space:Small", parse_device("cpu")
PLAN = Plan(fit=12, check=6, every=False, blocks=12, repeats=0)


def timing(seconds):
    return asdict(Timing((seconds,) * 3, 1, (seconds,) * 3, (3,)))


def seconds_of(anatomy, subject):
    """A call costs 10 µs, a MAC 1 ns, a quarter of it in int8."""
    if subject.role == "call":
        return 1e-5
    placed = anatomy.placed(anatomy.joined(subject.arch))
    if subject.role == "block":
        placed = [(block, subject.kind) for block, _ in placed if block.name == subject.block]
    return 1e-5 + sum(block.counts.macs * (1e-9 if p == "fp32" else 0.25e-9) for block, p in placed)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A profile of a GPU somewhere."""
    _, anatomy, space = built_space(SPACE, profiled_space(SPACE, None, 8, 1, 10, ("fp32", "int8")), 0)
    subjects = planned(anatomy, PLAN, 0, by_parts=False)
    for subject in subjects:
        subject.results["wall"], subject.size_bytes = timing(seconds_of(anatomy, subject)), 2000
    file = tmp_path_factory.mktemp("profiles") / "far.json"
    ProfileData(
        device="gpu",
        threads=1,
        runtime="onnxruntime",
        fingerprint="far",
        environment={"cpu": "another"},
        space=space,
        seed=0,
        subjects=subjects,
    ).write(file)
    return file


def settings_for(profile, dataset, **others):
    chosen = {"epochs": 1, "evaluations": 4, "baselines": False, **others}
    return with_profile(Settings(space=SPACE, data_fingerprint=dataset.fingerprint, **chosen), profile)


@pytest.fixture(scope="module")
def finished(profile, tmp_path_factory):
    folder, dataset = tmp_path_factory.mktemp("runs") / "run", load_data("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(folder.parent))
        for module in ("latency.harness", "nas.describe", "nas.profiling", "nas.verify"):
            patch.setattr(f"{module}.measure_models", None)  # nothing is timed
        for name, value in {"FIRST": 8, "SCALED": 4, "ROUNDS": 1, "A_ROUND": 4}.items():
            patch.setattr(nas.inherit, name, value)
        run_absent(settings_for(profile, dataset, finetune=3), Small, dataset, folder, SilentReporter())
    return folder


def test_latencies_are_predicted_and_accuracies_are_those_of_the_files(finished):
    front = json.loads((finished / "front.json").read_text())
    assert front
    for point in front:
        assert point["provenance"] == {"accuracy": "verified", "latency": "predicted"}
        assert point["latency_s"].keys() == {"median", "ci95"} and point["latency_s"]["median"] > 1e-5
        low, high = point["latency_s"]["ci95"]
        assert low < point["latency_s"]["median"] < high
        assert (finished / point["file"]).stat().st_size == point["size_bytes"]
        assert point["val_accuracy"] == max(point["inherited_val_accuracy"], point["finetuned_val_accuracy"])
    record = read_record(finished)
    assert record["device"]["name"] == "gpu" and record["device"]["fingerprint"] == "far"
    assert [row["latency_s"] for row in record["space"]["rows"]] == sorted(
        row["latency_s"] for row in record["space"]["rows"]
    )
    assert result_view(record)


def test_the_report_says_what_latencies_are_and_how_to_verify_them(finished):
    said = headline(read_record(finished))
    assert "latencies are predictions of a profile taken at gpu" in said and "measured after export" not in said
    assert f"nas verify {finished} --bundle DIR" in said
    assert "accuracy verified, latency predicted" in (finished / "report.html").read_text()


def test_predictions_are_not_verified_on_another_machine(finished, monkeypatch):
    monkeypatch.setattr("nas.results.parse_device", lambda name: CPU)
    with pytest.raises(ValueError, match="predictions for cpu on another machine"):
        verify_again(finished, SilentReporter(), 0)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"precisions": ("fp32",)},
            r"for precisions fp32 int8, and the search has fp32.*--precision fp32 --device gpu",
        ),
        ({"device": "cpu:threads=2"}, "is a profile of 'gpu', got device 'cpu:threads=2'"),
    ],
)
def test_a_profile_of_another_space_is_refused(profile, tmp_path, others, message):
    dataset = load_data("digits")
    with pytest.raises(ValueError, match=message):
        run_absent(settings_for(profile, dataset, **others), Small, dataset, tmp_path / "run", SilentReporter())
    assert not (tmp_path / "run").exists()


def test_images_of_another_size_are_refused_with_the_command_that_profiles_them(profile, tmp_path):
    dataset = load_data("digits", image_size=12)
    with pytest.raises(ValueError, match="nas profile --space small_space:Small --image-size 12 --channels 1"):
        run_absent(settings_for(profile, dataset), Small, dataset, tmp_path / "run", SilentReporter())
    assert not (tmp_path / "run").exists()
