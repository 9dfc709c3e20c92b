"""Differentiable searches through the whole pipeline: real training, real files, real ONNX Runtime."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from command import nas as command
from small_operations import Rigid

import nas
from latency.worker import Effort
from nas.config import Settings
from nas.errors import CannotBeDone
from nas.fidelity_study import measure_fidelity
from nas.guide import Guide
from nas.profiling import Plan
from nas.progress import SilentReporter
from nas.relaxed import check_relaxed, find
from nas.retarget import retarget
from nas.training import read_history
from search_spaces.space import SearchSpace
from search_spaces.value import Choice
from supernet.checkpoint import FILE_NAME, load_checkpoint
from supernet.relaxed.cost_table import CostTable

BOUND_S = 0.01
SEARCH = ("--space", "small_operations:Operations", "--strategy", "proxyless", "--epochs", "2", "--batch", "64")


def search(folder, cache, *more):
    return command(
        "search", *SEARCH, "--evaluations", "4", "--out", folder, "--json", *more, cwd=folder.parent, cache=cache
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search in which every file is timed, hardly."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("describe.QUICK", "profiling.QUICK", "relaxed.QUICK", "verify.QUICK", "verify.CAREFUL"):
            patch.setattr(f"nas.{name}", Effort(rounds=1, most_rounds=1, samples=4))
        patch.setattr("nas.pipeline.SEARCHING", Plan(fit=8, check=3, every=False, blocks=12, repeats=0))
        done = search(folder, folder.parent / "cache", "--max-latency", f"{BOUND_S}s")
        assert done.returncode == 0, done.stderr
        yield folder, done


def test_every_point_is_a_measured_file_within_the_bound(finished):
    folder, done = finished
    record = json.loads(done.stdout)
    assert record["front"] == json.loads((folder / "front.json").read_text()) != []
    for point in record["front"]:
        assert point["provenance"] == "verified" and point["latency_s"]["median"] <= BOUND_S
        assert (folder / point["file"]).stat().st_size == point["size_bytes"]
        assert len(set(point["policy"].values())) == 1
    for stage in ("profile", "table", "relax", "choose", "train", "search", "verify"):
        assert f"{stage}: " in done.stderr
    assert "held-out error" in done.stderr.split("table: ")[1].split("relax: ")[0]


def test_found_and_random_are_judged_alike(finished):
    record = json.loads(finished[1].stdout)
    assert set(record["search"]["groups"]) == {"search", "random"} == set(record["search"]["hypervolume"])
    candidates = json.loads((finished[0] / "relaxed" / "candidates.json").read_text())
    assert record["relaxed"]["candidates"] == {name: len(rows) for name, rows in candidates.items()}
    assert len(record["search"]["groups"]["search"]) == 2 * len(candidates["search"]) == 4


def test_both_trainings_keep_their_checkpoints(finished):
    folder, done = finished
    record = json.loads(done.stdout)
    searched, trained = (load_checkpoint(path / FILE_NAME) for path in (folder / "relaxed", folder))
    assert "ProxylessNAS" in searched.meta["identity"]["recipe"]["strategy"]
    assert "Among" in trained.meta["identity"]["recipe"]["strategy"]
    assert record["training"]["total_steps"] == read_history(folder).total_steps
    trace = record["relaxed"]["trace"]
    assert set(trace["entropy"]) == {"op0", "op1", "op2"}
    assert all(len(values) == len(trace["progress"]) and values[0] == 1 for values in trace["entropy"].values())
    assert "How sure the search became" in (folder / "report.html").read_text()


def test_an_interrupted_run_goes_on_with_the_same_candidates(finished):
    folder, done = finished
    kept = {name: (folder / "relaxed" / name).read_bytes() for name in (FILE_NAME, "table.json", "candidates.json")}
    (folder / "record.json").unlink()
    again = search(folder, folder.parent / "cache", "--max-latency", f"{BOUND_S}s", "--quiet")
    assert again.returncode == 0, again.stderr
    assert {name: (folder / "relaxed" / name).read_bytes() for name in kept} == kept
    old, new = json.loads(done.stdout), json.loads(again.stdout)
    assert new["search"]["groups"] == old["search"]["groups"]
    assert np.allclose(new["relaxed"]["trace"]["progress"], old["relaxed"]["trace"]["progress"])


def test_its_weights_serve_no_other_run(finished, tmp_path):
    with pytest.raises(ValueError, match=r"those of the networks that strategy 'proxyless' found: give .* `nas train`"):
        nas.search(supernet=finished[0], out=tmp_path / "other", quiet=True)
    with pytest.raises(ValueError, match="serve no other device: search there anew"):
        retarget(finished[0], "cpu:torch", tmp_path / "other", SilentReporter())
    with pytest.raises(ValueError, match=r"few networks that strategy 'proxyless' found: .*`nas train`"):
        measure_fidelity(finished[0], SilentReporter())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("darts", "no choice of 'Rigid' can be relaxed"), ("superkernel", "'Rigid' has none: take another strategy")],
)
def test_a_space_with_nothing_to_relax_is_refused_before_anything_is_written(strategy, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nas.search(Rigid, strategy=strategy, out=tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_choice_that_depends_on_too_much_is_refused_at_once():
    many = [Choice(f"c{i}", tuple(range(16))) for i in range(5)]
    last = Choice("last", (1, 2), (tuple(choice.among(1) for choice in many),))
    with pytest.raises(ValueError, match=r"cost of last depends on 6 choices of space 'tangled'.* or fewer conditions"):
        check_relaxed(Settings(), None, SearchSpace("tangled", [*many, last]), None)


def test_a_bound_that_the_fastest_files_break_is_refused_before_the_search_trains(tmp_path, monkeypatch):
    space = SearchSpace("toy", [Choice("c", (1, 2))])
    pool = np.array([[0], [1]])
    guide = Guide(space, CostTable(1e-5, {"c": [0, 1e-5]}), "fp32", pool, np.array([1e-5, 2e-5]), 1e-5, 0.1)
    monkeypatch.setattr("nas.relaxed.fit_guide", lambda *_: guide)
    monkeypatch.setattr("nas.relaxed._train", lambda *_: pytest.fail("the search was trained"))
    settings = Settings(max_latency_s=1.05e-5, strategy="darts")
    anatomy = SimpleNamespace(joined=lambda arch, precision: arch)
    setup = SimpleNamespace(
        settings=settings, folder=tmp_path, reporter=SilentReporter(), anatomy=anatomy, architectures=space
    )
    with pytest.raises(CannotBeDone, match=r"the fastest of 2 takes 12 µs; raise --max-latency"):
        find(setup, None, lambda arch: 1.2e-5)
