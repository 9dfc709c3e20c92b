"""A run carried to another device: one small run, its files really measured, with little effort."""

import json

import numpy as np
import pytest
from small_space import Small

import nas.inherit
import nas.pipeline
from latency.device import parse_device
from latency.worker import Effort
from nas.anatomy import Anatomy
from nas.config import Settings
from nas.executed import Executed
from nas.folder import open_folder, read_record, read_settings
from nas.known import read_known
from nas.pipeline import choose_finalists, run
from nas.profiling import Plan
from nas.progress import SilentReporter
from nas.results import run_data
from nas.retarget import retarget
from nas.transferred import fit_transferred, mixed_population, prepare_transfer
from supernet.data import load_data

SPACE = "small_space:Small"
CPU, TORCH = "cpu:batch=2", "cpu:torch,batch=2"
GLANCE = Effort(rounds=1, most_rounds=1, samples=2)


def with_little_effort(patch):
    """Every file is timed, hardly."""
    for name in ("nas.describe.QUICK", "nas.profiling.QUICK", "nas.retarget.QUICK", "nas.verify.QUICK"):
        patch.setattr(name, GLANCE)
    patch.setattr("nas.verify.CAREFUL", GLANCE)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished search on the CPU, for three objectives."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    dataset = load_data("digits")
    settings = Settings(
        space=SPACE,
        data_fingerprint=dataset.fingerprint,
        device=CPU,
        objectives=("latency", "memory"),
        epochs=1,
        evaluations=4,
        baselines=False,
        seed=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(folder.parent))
        with_little_effort(patch)
        patch.setattr(nas.pipeline, "SEARCHING", Plan(fit=8, check=2, every=False, blocks=8, repeats=0))
        for name, value in {"FIRST": 6, "SCALED": 4, "ROUNDS": 1, "A_ROUND": 2}.items():
            patch.setattr(nas.inherit, name, value)
        run(settings, Small, dataset, folder, SilentReporter())
    return folder


@pytest.fixture(scope="module")
def carried(source):
    """The same run on torch, which runs fp32 alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(source.parent))
        with_little_effort(patch)
        before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
        found = retarget(source, TORCH, source.parent / "torch", SilentReporter(), timings=10, space=Small)
        assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    return found


@pytest.fixture(scope="module")
def known(source):
    return read_known(source, run_data(read_settings(source)), Small)


def test_the_front_is_verified_on_the_new_device_and_timings_are_counted(carried):
    folder, record = carried
    assert record["retarget"]["timings"] == {"neutral": 6, "evaluations": 4, "all": 10}
    assert len(json.loads((folder / "timed.json").read_text())) == 6 and record["retarget"]["verified_files"] <= 24
    assert record["device"]["name"] == read_settings(folder).device == TORCH
    assert read_settings(folder).precisions == ("fp32",)
    for point in json.loads((folder / "front.json").read_text()):
        assert point["provenance"] == "verified" and set(point["policy"].values()) <= {"fp32"}
        assert (folder / point["file"]).stat().st_size == point["size_bytes"]
    page = (folder / "report.html").read_text()
    assert (
        "Carried over from a run on cpu:batch=2 with 10 timings here (6 of untrained networks, 4 of the search)" in page
    )


def test_the_same_call_reads_the_finished_run_and_another_is_refused(carried, source):
    folder, record = carried
    again = retarget(source, TORCH, folder, SilentReporter(), timings=10, space=Small)
    assert again == (folder, json.loads(json.dumps(record)))
    with pytest.raises(ValueError, match="timings=10, now timings=11"):
        retarget(source, TORCH, folder, SilentReporter(), timings=11, space=Small)


def test_what_was_timed_is_not_timed_again(carried, source, monkeypatch, tmp_path):
    """A run that was stopped after its timings and evaluations goes on from them."""
    folder, record = carried
    to = tmp_path / "run"
    open_folder(to, read_settings(folder))
    for name in ("timed.json", "journal.log"):
        (to / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setenv("HWNAS_CACHE", str(source.parent))  # the files of the front are in the store
    with_little_effort(monkeypatch)
    monkeypatch.setattr("latency.timing.Timing.doubtful", False)  # what is doubtful is timed again
    monkeypatch.setattr("nas.retarget.measure_models", None)
    found = retarget(source, TORCH, to, SilentReporter(), timings=10, space=Small)[1]
    assert found["search"]["groups"] == record["search"]["groups"]
    assert {p["file"]: p["arch"] for p in found["front"]} == {p["file"]: p["arch"] for p in record["front"]}


@pytest.mark.parametrize(
    ("device", "timings", "message"),
    [
        (CPU, 50, "name another device"),
        ("cpu", 50, r"memory on cpu cannot be told from .*: search there anew, with --device cpu"),
        ("tpu", 50, "unknown device 'tpu'"),
        (TORCH, 9, "at least 10 timings"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(source, tmp_path, device, timings, message):
    with pytest.raises(ValueError, match=message):
        retarget(source, device, tmp_path / "run", SilentReporter(), timings=timings, space=Small)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_cores")
def test_a_retargeted_or_unfinished_run_is_refused(carried, tmp_path):
    with pytest.raises(ValueError, match="itself retargeted"):
        retarget(carried[0], "cpu:threads=2", tmp_path / "run", SilentReporter(), space=Small)
    open_folder(tmp_path / "begun", Settings())
    with pytest.raises(ValueError, match="not finished"):
        retarget(tmp_path / "begun", TORCH, tmp_path / "run", SilentReporter())


def test_accuracies_are_inherited_near_the_new_front_too(source, carried):
    before, after = (json.loads((folder / "inherited.json").read_text()) for folder in (source, carried[0]))
    assert before.items() < after.items() and carried[1]["accuracy_predictor"]["inherited"] == len(after)


def test_all_objectives_are_found_of_the_batch_and_shown(source, carried):
    for folder in (source, carried[0]):
        record = read_record(folder)
        assert record["device"]["batch"] == 2 and {len(row) for row in record["search"]["groups"]["search"]} == {3}
        for point in record["front"]:
            assert point["images_per_s"] == pytest.approx(2 / point["latency_s"]["median"])
            assert (
                point["memory_bytes"]
                == Executed(("memory_bytes",), parse_device(CPU)).of((folder / point["file"]).read_bytes())[
                    "memory_bytes"
                ]
            )
        page = (folder / "report.html").read_text()
        assert 'id="figure-front_memory"' in page and "2 images a call" in page and "images/s" in page


def test_evaluations_are_seen_in_the_smaller_space_where_they_are_all_fp32(known):
    assert len(known.evaluations) == 4
    assert [e for _, e in known.seen_in(known.anatomy.space)] == list(known.evaluations)
    for arch, evaluation in known.seen_in(known.architectures):
        assert {k: v for k, v in evaluation.arch.values.items() if not k.endswith(".precision")} == dict(arch.values)
        assert set(evaluation.arch.values.values()) & {"fp32", "int8"} == {"fp32"}


def test_a_device_bound_by_its_layers_is_learnt_from_few_timings(known):
    anatomy = Anatomy(known.architectures, known.anatomy.tracer, ("fp32",))
    transfer = prepare_transfer(known, anatomy, 0)
    rows = transfer.chosen(10, 0)
    seconds = 2e-5 * anatomy.counts(rows)[:, 4] + 0.5 * transfer.source_s(rows)
    assert transfer.scores(rows, seconds)["held_out"].mape < 0.5 * transfer.scores(rows, seconds)["source"].mape
    predictor = fit_transferred(transfer, (rows, seconds), rows[:0], [])
    others = transfer.population
    truth = 2e-5 * anatomy.counts(others)[:, 4] + 0.5 * transfer.source_s(others)
    assert np.abs(predictor.predict(others)["latency_s"] / truth - 1).mean() < 0.05


def test_populations_are_in_every_precision(known):
    rows = mixed_population(known.anatomy, 60, 0)
    policies = [set(known.anatomy.space.row(row).values.values()) & {"fp32", "int8"} for row in rows]
    assert {"fp32"} in policies and {"int8"} in policies and {"fp32", "int8"} in policies


def test_devices_on_other_machines_may_have_the_same_name(source, tmp_path):
    record = read_record(source)
    record["device"]["fingerprint"] = "another"
    from nas.retarget import _check

    _check(source, read_settings(source), record, parse_device(CPU), 50)


def test_at_most_so_many_files_are_verified(known):
    many = list(known.evaluations)
    assert len(choose_finalists(many, 2, 2)) == min(2, len(choose_finalists(many, 2)))
