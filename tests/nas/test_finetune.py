"""Points that are trained on before they are verified: one small run, its files really trained and measured."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from small_space import Small

import nas.finetune
import nas.inherit
import nas.pipeline
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.runtimes.session import accuracy
from latency.worker import Effort
from nas.candidate import Builder, Tuned
from nas.config import Settings
from nas.finetune import FinetunedBuilder, Tuning, name_of
from nas.folder import read_record
from nas.format import percent
from nas.pipeline import run
from nas.profiling import Plan
from nas.progress import SilentReporter
from nas.report import headline
from nas.results import export_point
from nas.retarget import retarget
from nas.spec import build_network
from quant_search.policy import joint_space, uniform
from search_spaces.network import find_blocks
from supernet.data import load_data

PRECISIONS = ("fp32", "int8", "w4a8")
GLANCE = Effort(rounds=1, most_rounds=1, samples=2)
CPU = parse_device("cpu")


def settings(dataset):
    return Settings(
        space="small_space:Small",
        data_fingerprint=dataset.fingerprint,
        precisions=PRECISIONS[1:],  # the most bits that blocks may have are those of int8
        objectives=("latency", "size"),
        epochs=2,
        evaluations=4,
        baselines=False,
        finetune=12,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, in which every file is timed, hardly."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(folder))
        for name in ("nas.describe.QUICK", "nas.profiling.QUICK", "nas.retarget.QUICK", "nas.verify.QUICK"):
            patch.setattr(name, GLANCE)
        patch.setattr("nas.verify.CAREFUL", GLANCE)
        patch.setattr("latency.timing.Timing.doubtful", False)  # what is doubtful would be timed again
        patch.setattr(nas.pipeline, "SEARCHING", Plan(fit=8, check=2, every=False, blocks=8, repeats=0))
        for name, value in {"FIRST": 6, "SCALED": 4, "ROUNDS": 1, "A_ROUND": 2}.items():
            patch.setattr(nas.inherit, name, value)
        yield folder


@pytest.fixture(scope="module")
def dataset():
    return load_data("digits")


@pytest.fixture(scope="module")
def finished(place, dataset):
    run(settings(dataset), Small, dataset, place / "run", SilentReporter())
    return place / "run"


def points_of(folder):
    return json.loads((folder / "front.json").read_text())


def files_of(folder, point):
    name = name_of(point["arch"], point["policy"])
    return folder / "finetuned" / f"{name}.onnx", folder / "finetuned" / f"{name}.fp32.onnx"


def test_the_files_of_the_front_are_those_that_were_trained(finished, dataset):
    for point in points_of(finished):
        file, before_rounding = files_of(finished, point)
        content = (finished / point["file"]).read_bytes()
        assert content == file.read_bytes()
        found = accuracy(open_session(content, CPU), dataset.x_val, dataset.y_val)
        inherited, tuned = point["inherited_val_accuracy"], point["finetuned_val_accuracy"]
        assert point["val_accuracy"] == found == max(inherited, tuned)
        assert point["weights"] == ("finetuned" if tuned >= inherited else "inherited")
        assert before_rounding.exists() == (point["weights"] == "finetuned")


def test_the_record_tells_how_all_trainings_went(finished):
    found = read_record(finished)["verify"]["finetuned"]
    tuned = [Tuned(**json.loads(file.read_text())) for file in (finished / "finetuned").glob("*.json")]
    assert found["steps"] == 12 and found["failed"] == 0 and found["median_gain"] == np.median([t.gain for t in tuned])
    assert found["trained"] == read_record(finished)["verify"]["candidates"] == len(tuned)
    assert found["kept"] == sum(t.kept for t in tuned) > 0


def test_the_report_shows_both_accuracies(finished):
    page, said = (finished / "report.html").read_text(), headline(read_record(finished))
    assert "validation, inherited</th>" in page and "fine-tuned</th>" in page
    assert "candidates were trained 12 steps on, each in its own precisions: +" in said
    for point in points_of(finished):
        assert percent(point["inherited_val_accuracy"]) in page and percent(point["finetuned_val_accuracy"]) in page


def test_a_run_killed_while_it_trains_goes_on_with_what_it_has(finished, place, dataset, monkeypatch):
    again = place / "again"
    shutil.copytree(finished, again)
    for name in ("record.json", "front.json", "report.html"):
        (again / name).unlink()
    shutil.rmtree(again / "front")
    unfinished = sorted((again / "finetuned").glob("*.json"))[-1]
    unfinished.unlink()  # killed before it said that the file of this one stands
    trained, train = [], nas.finetune.train

    def counted(model, *arguments, **options):
        trained.append(model)
        return train(model, *arguments, **options)

    monkeypatch.setattr(nas.finetune, "train", counted)
    run(settings(dataset), Small, dataset, again, SilentReporter())
    assert len(trained) == 1 and unfinished.exists()
    for before, after in zip(points_of(finished), points_of(again), strict=True):
        assert (finished / before["file"]).read_bytes() == (again / after["file"]).read_bytes()
        assert {**before, "latency_s": None, "images_per_s": None} == {**after, "latency_s": None, "images_per_s": None}


def test_an_exported_point_has_the_trained_weights_in_torch(finished, dataset, tmp_path):
    number, point = next((i, p) for i, p in enumerate(points_of(finished)) if p["weights"] == "finetuned")
    card = export_point(finished, number, tmp_path / "deploy", 0, Small, dataset)
    network = torch.export.load(tmp_path / "deploy" / "model.pt2").module()
    with torch.no_grad():
        logits = network(torch.from_numpy(dataset.x_val[:64])).numpy()
    expected = open_session(files_of(finished, point)[1].read_bytes(), CPU).run(dataset.x_val[:64])
    assert np.allclose(logits, expected, atol=1e-4)
    assert card["weights"] == "finetuned" and card["difference_to_torch_fp32"] < 1


def test_a_retargeted_run_takes_what_is_trained(finished, place, monkeypatch):
    trained, train = [], nas.finetune.Tuning.train

    def counted(self, arch, progress):
        trained.append(arch)
        return train(self, arch, progress)

    monkeypatch.setattr(nas.finetune.Tuning, "train", counted)
    folder, record = retarget(finished, "cpu:batch=2", place / "other", SilentReporter(), timings=10, space=Small)
    known = {file.name for file in (finished / "finetuned").glob("*.json")}
    found = {file.name for file in (folder / "finetuned").glob("*.json")}
    assert known <= found and len(trained) == len(found) - len(known) < record["verify"]["candidates"]
    assert "no supernet was trained" in headline(record)
    for point in points_of(folder):
        assert (folder / point["file"]).read_bytes() == files_of(folder, point)[0].read_bytes()


@pytest.fixture(scope="module")
def builder(dataset):
    """Of a network that knows nothing yet."""
    network, architectures = build_network(Small, dataset.image_shape, dataset.num_classes, None, 0)
    space = joint_space(architectures, find_blocks(network), PRECISIONS)
    return Builder(network, BlockTracer(network, dataset.image_shape), dataset, PRECISIONS), space


def trained(builder, dataset, precision, steps=3):
    made, space = builder
    arch = uniform(space.largest(), precision)
    tuning = Tuning(made, dataset, CPU, steps, 0, space.largest())
    return arch, tuning.train(arch, lambda *_: None)


def test_what_became_worse_stands_as_it_was(builder, dataset, monkeypatch, tmp_path):
    scores = iter([0.5, 0.4])
    monkeypatch.setattr(Tuning, "_accuracy", lambda *_: next(scores))
    arch, found = trained(builder, dataset, "int8")
    assert found.tuned == Tuned(0.5, 0.4) and not found.tuned.kept
    assert found.file == builder[0].build(arch).model and found.unrounded is None
    kept = FinetunedBuilder(builder[0], tmp_path)
    kept.keep(arch, found)
    assert kept.build(arch).tuned == Tuned(0.5, 0.4) and kept.build(arch).model == found.file


def test_what_cannot_be_trained_stands_as_it_was_and_says_why(builder, dataset, monkeypatch):
    monkeypatch.setattr(nas.finetune, "_LR", 1e30)
    arch, found = trained(builder, dataset, "fp32")
    assert found.tuned.finetuned is None and "the loss is" in found.tuned.why and not found.tuned.kept
    assert found.file == builder[0].build(arch).model


def test_every_precision_is_kept_by_training(builder, dataset):
    for precision in PRECISIONS:
        arch, found = trained(builder, dataset, precision, steps=20)
        before = builder[0].build(arch)
        operators = [[node.op_type for node in onnx.load_from_string(m).graph.node] for m in (before.model, found.file)]
        assert operators[0] == operators[1] and len(found.file) == len(before.model)
        assert found.tuned.kept and found.file != before.model


def test_the_same_seed_gives_the_same_file(builder, dataset):
    first, second = (trained(builder, dataset, "w4a8")[1].file for _ in range(2))
    assert first == second


def test_other_architectures_are_built_as_ever(builder, tmp_path):
    made, space = builder
    arch = uniform(space.smallest(), "int8")
    assert FinetunedBuilder(made, tmp_path).build(arch) == made.build(arch)
    assert made.build(arch).tuned is None


def test_names_do_not_depend_on_the_space_of_policies():
    choices = {"width": 4, "kernel": (3, 5)}
    assert name_of({**choices, "stem.precision": "fp32"}, {"stem": "fp32"}) == name_of(choices, {"stem": "fp32"})
    assert name_of(choices, {"stem": "fp32"}) == name_of({"kernel": [3, 5], "width": 4}, {"stem": "fp32"})
    assert name_of(choices, {"stem": "fp32"}) != name_of(choices, {"stem": "int8"})
