"""Inherited against stand-alone accuracies of a small trained run."""

import contextlib
import io
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from small_space import Small

import nas
from nas.fidelity_study import (
    ALONE,
    _Alone,
    _recipe,
    _report,
    compared,
    fidelity_report,
    measure_fidelity,
    read_truth,
)
from nas.folder import FIDELITY
from nas.progress import SilentReporter
from nas.tables import fidelity_view
from search_spaces.network import extract
from supernet.calibrate import calibration_images, device_of, inherited_accuracy
from supernet.fidelity import uncalibrated
from supernet.snapshots import find_snapshots


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return nas.train(Small, epochs=2, batch=64, lr=0.1, out=tmp_path_factory.mktemp("runs") / "t", quiet=True)


@pytest.fixture(scope="module")
def found(trained):
    return measure_fidelity(trained.folder, SilentReporter(), networks=6, epochs=1, space=Small)


def test_it_compares_the_extremes_and_others_evenly(trained, found):
    space = trained.space
    archs = compared(trained, 6, 0)
    assert archs[:2] == [space.smallest(), space.largest()] and len(set(archs)) == 6  # the middle is the largest here
    assert [network["arch"] for network in found["networks"]] == [dict(arch.values) for arch in archs]
    assert found["networks"][0]["inherited"] == inherited_accuracy(trained.network, archs[0], trained.dataset)


def test_it_says_all_that_was_asked(trained, found):
    assert found["n"] == 6 and json.loads((trained.folder / FIDELITY).read_text()) == found
    for name in ("kendall_tau", "spearman"):
        low, high = found[f"{name}_ci95"]
        assert -1 <= low <= found[name] <= high <= 1
    assert [c["step"] for c in found["course"]] == [e.step for e in trained.history.evaluated if e.step]
    assert found["course"][-1]["kendall_tau"] == found["kendall_tau"]
    apart = found["networks"][1]["stand_alone"] - found["networks"][1]["inherited"]
    assert found["gap_points"]["largest"] == pytest.approx(100 * apart)


def test_it_counts_the_batch_norms_that_are_out_of_date_without_calibration(trained, found):
    images = calibration_images(trained.dataset)
    for name, arch in (("smallest", trained.space.smallest()), ("largest", trained.space.largest())):
        far = uncalibrated(extract(trained.network, arch), images)
        assert far and uncalibrated(trained.extract(arch), images) == ()
        assert found["uncalibrated"][name] == {"norms": 1 + dict(arch.values)["depth"], "out_of_date": len(far)}
    smallest = found["uncalibrated"]["smallest"]
    console = Console(width=500, record=True, file=io.StringIO())
    console.print(fidelity_view(found))
    assert f"put right: {smallest['out_of_date']} of 2 in the smallest, " in console.export_text()


def test_networks_alone_take_as_many_steps_as_the_supernet_or_the_epochs_asked_for(trained):
    run = replace(trained, history=replace(trained.history, total_steps=7))  # less than an epoch
    assert (_recipe(run, None).steps, _recipe(run, None).epochs) == (7, None)
    assert (_recipe(run, 3).steps, _recipe(run, 3).epochs) == (None, 3)


def test_networks_alone_begin_with_the_pretrained_weights_of_the_run(trained, tmp_path):
    def fresh(pretrained):
        settings = trained.settings.model_copy(update={"pretrained": pretrained})
        return _Alone(replace(trained, settings=settings), None, Small, None)._fresh()

    weight = trained.network.classifier.weight
    assert torch.equal(fresh(str(trained.folder)).classifier.weight, weight)
    assert not torch.equal(fresh(None).classifier.weight, weight)
    with pytest.raises(ValueError, match=r"began with the weights of .*gone\.pth, and .* must too: there is no file"):
        fresh(str(tmp_path / "gone.pth"))


def test_advice_knows_the_validation_images_and_what_was_not_compared(trained, monkeypatch):
    worse = np.array([0.13, 0.12, 0.11, 0.1])
    monkeypatch.setattr("nas.fidelity_study.inherited_accuracies", lambda *_: worse)
    monkeypatch.setattr("nas.fidelity_study.find_snapshots", lambda _: {})

    def advised(archs):
        with SilentReporter().stage("fidelity") as stage:
            return _report(trained, archs, worse[::-1], 0, stage)["advice"]

    few, images = list(trained.space.enumerate())[:4], len(trained.dataset.x_val)
    assert "largest architecture, which are not all among them: add these" in advised(few)
    assert images < 2048 and f"that {images} validation images leave open" in advised(
        [*few[:3], trained.space.largest()]
    )


def test_all_networks_go_to_the_device(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained.folder, tmp_path / "run", ignore=lambda *_: [ALONE, FIDELITY])
    seen = []

    def taken(network, archs, dataset):
        seen.append(("inherited", device_of(network).type))
        return np.arange(len(archs)) / 10

    def alone(network, *_):
        seen.append(("alone", device_of(network).type))
        return len(seen) / 10

    monkeypatch.setattr("nas.fidelity_study.joined", lambda: contextlib.nullcontext(torch.device("meta")))
    monkeypatch.setattr("nas.fidelity_study.inherited_accuracies", taken)
    monkeypatch.setattr("nas.fidelity_study.stand_alone", alone)
    monkeypatch.setattr("nas.fidelity_study.uncalibrated", lambda *_: ())
    with warnings.catch_warnings(action="ignore"):  # weights that are put nowhere
        measure_fidelity(folder, SilentReporter(), networks=5, space=Small)
    snapshots = len(find_snapshots(folder))
    assert snapshots and seen == [("alone", "meta")] * 5 + [("inherited", "meta")] * (1 + snapshots)


def test_a_study_that_was_interrupted_goes_on(trained, found):
    files = {file: file.stat().st_mtime_ns for file in (trained.folder / ALONE).rglob("*.safetensors")}
    assert len(files) == 6
    assert measure_fidelity(trained.folder, SilentReporter(), networks=6, epochs=1, space=Small) == found
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_the_report_shows_it(trained, found):
    text = fidelity_report(trained.folder).read_text()
    assert "Does inherited accuracy rank?" in text and "figure-fidelity" in text and "figure-course" in text
    assert f"rank 6 networks as training each alone does with Kendall tau {found['kendall_tau']:.2f}" in text
    assert "No point was verified" not in text


def test_a_table_may_hold_the_truth(trained, tmp_path, monkeypatch):
    archs = list(trained.space.enumerate())
    names = [choice.name for choice in trained.space.choices]
    rows = [",".join([*names, "accuracy"])]
    for i, arch in enumerate(archs):
        rows.append(",".join([*(str(arch.values.get(name, "")) for name in names), str(i / len(archs))]))
    file = tmp_path / "truth.csv"
    file.write_text("\n".join(rows))
    assert read_truth(file, trained.space) == {arch: i / len(archs) for i, arch in enumerate(archs)}
    monkeypatch.setattr("nas.fidelity_study.find_snapshots", lambda _: {})  # whose accuracies take a second
    told = measure_fidelity(trained.folder, SilentReporter(), truth=file, space=Small)
    assert told["n"] == len(archs) and np.isfinite(told["kendall_tau"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width,accuracy\n4,0.5", "has no column 'depth'"),
        ("", "has no rows"),
        ("width,depth,kernel0,kernel1,accuracy\n4,9,1,1,0.5", "line 2: choice 'depth' has options 1, 2, got '9'"),
        ("width,depth,kernel0,kernel1,accuracy\n4,1,1,1,50", "line 2: accuracy must lie between 0 and 1, got '50'"),
        ("width,depth,kernel0,kernel1,accuracy\n\n4,1,1,1", "line 3: there are 5 columns, got 4 cells"),
        ("width,depth,kernel0,kernel1,accuracy\n4,1,1,1,0.5,0.6", "line 2: there are 5 columns, got 6 cells"),
        ("width,depth,kernel0,kernel1,accuracy\n4,2,1,,0.5", "line 2: choice 'kernel1' counts .*, got an empty cell"),
        (
            "width,depth,kernel0,kernel1,accuracy\n4,1,1,,0.5\n4,1,1,3,0.6",
            "line 3: the network of line 2 is given again",
        ),
        ("width,depth,kernel0,kernel1,accuracy\n4,1,1,,0.5\n8,1,1,,0.6", "truth.csv: .* at least 3 networks, got 2"),
    ],
)
def test_a_wrong_table_is_refused(text, message, trained, tmp_path):
    file = tmp_path / "truth.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_truth(file, trained.space)


def test_too_few_networks_are_refused(trained):
    with pytest.raises(ValueError, match="needs at least 5 networks, got 4"):
        measure_fidelity(trained.folder, SilentReporter(), networks=4, space=Small)
