import json
import logging
import math

import optuna
import pytest

import nas.journal
from nas.journal import Journal
from nas.objectives import Bound, Problem, maximize, minimize
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

DEPTH = Choice("depth", (1, 2, 3))
SPACE = SearchSpace("s", [DEPTH, Choice("kernel", (3, 5, 7), DEPTH.among(2, 3)), Choice("scale", (0.5, 1.0))])
ARCHS = list(SPACE.enumerate())
PROBLEM = Problem((maximize("accuracy"), minimize("latency_s")))


def evaluation(i, problem=PROBLEM):
    return problem.evaluation(
        ARCHS[i], {"accuracy": math.sin(i), "latency_s": (i + 1) / 3, "macs": 7.0 * i}, "verified"
    )


def opened(path, space=SPACE, problem=PROBLEM):
    return Journal(path, "search", space, problem)


def test_what_is_recorded_is_read_back_as_it_was(tmp_path):
    journal = opened(tmp_path / "journal.log")
    for i in (0, 5, 11):
        journal.record(evaluation(i))
    for found in (journal, opened(tmp_path / "journal.log")):
        assert len(found) == 3
        assert [found.find(ARCHS[i]) for i in (0, 5, 11)] == [evaluation(i) for i in (0, 5, 11)]
        assert ARCHS[5] in found and ARCHS[1] not in found and found.find(ARCHS[1]) is None


def test_failures_are_remembered(tmp_path):
    opened(tmp_path / "journal.log").record_failure(ARCHS[3], "ValueError: no ONNX form")
    again = opened(tmp_path / "journal.log")
    assert ARCHS[3] in again and again.find(ARCHS[3]) is None
    [trial] = again.study.trials
    assert trial.state is optuna.trial.TrialState.FAIL
    assert trial.user_attrs == {"reason": "ValueError: no ONNX form"}


def test_the_study_reads_as_any_of_optunas(tmp_path):
    journal = opened(tmp_path / "journal.log")
    journal.record(evaluation(5))
    [trial] = journal.study.trials
    assert trial.params == dict(ARCHS[5].values)
    assert trial.values == [evaluation(5).values["accuracy"], evaluation(5).values["latency_s"]]
    assert journal.study.metric_names == ["accuracy", "latency_s"]
    assert [d.name for d in journal.study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_any_storage_will_do():
    storage = optuna.storages.InMemoryStorage()
    opened(storage).record(evaluation(2))
    assert opened(storage).find(ARCHS[2]) == evaluation(2)


def test_the_first_record_of_an_architecture_counts(tmp_path):
    first, second = opened(tmp_path / "journal.log"), opened(tmp_path / "journal.log")
    first.record(evaluation(4))
    second.record(PROBLEM.evaluation(ARCHS[4], {"accuracy": 0.0, "latency_s": 9.0}, "verified"))
    second.record_failure(ARCHS[4], "late")
    assert second.find(ARCHS[4]) == evaluation(4)
    assert len(second.study.trials) == 1


def test_of_two_records_written_at_the_same_moment_the_first_counts(tmp_path):
    journal = opened(tmp_path / "journal.log")
    journal.record(evaluation(4))
    [trial] = journal.study.trials
    trial.set_user_attr("metrics", {"accuracy": 0.0, "latency_s": 9.0})
    journal.study.add_trial(trial)
    for found in (journal, opened(tmp_path / "journal.log")):
        found.refresh()
        assert len(found) == 1 and found.find(ARCHS[4]) == evaluation(4)


def test_what_others_record_is_seen_after_a_refresh(tmp_path):
    one, other = opened(tmp_path / "journal.log"), opened(tmp_path / "journal.log")
    other.record(evaluation(1))
    assert ARCHS[1] not in one
    one.refresh()
    assert one.find(ARCHS[1]) == evaluation(1)


def test_bounds_may_change_between_runs(tmp_path):
    opened(tmp_path / "journal.log").record(evaluation(8))
    tight = Problem(PROBLEM.objectives, (Bound("latency_s", 1.0),))
    assert opened(tmp_path / "journal.log", problem=tight).find(ARCHS[8]).violation == pytest.approx(2)


@pytest.mark.parametrize(
    ("objectives", "bounds", "said"),
    [
        ((minimize("accuracy"), minimize("latency_s")), (), "instead of minimize accuracy, minimize latency_s"),
        ((maximize("accuracy"),), (), "instead of maximize accuracy"),
        ((maximize("accuracy"), minimize("energy_joules")), (), "instead of maximize accuracy, minimize energy_joules"),
        (PROBLEM.objectives, (Bound("size_bytes", 1.0),), "metric 'size_bytes' of depth=1 scale=0.5 is missing"),
    ],
)
def test_a_journal_of_another_problem_is_refused(tmp_path, objectives, bounds, said):
    opened(tmp_path / "journal.log").record(evaluation(0))
    with pytest.raises(ValueError, match=f"journal's study 'search' .*{said}.*use another folder"):
        opened(tmp_path / "journal.log", problem=Problem(objectives, bounds))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([Choice("width", (8, 16))], "no choice 'depth'"),
        ([*SPACE.choices, Choice("width", (8, 16))], "'width' of space 's' is active but has no value"),
        (
            [Choice("depth", (1, 2)), Choice("kernel", (3, 5, 7)), SPACE.choices[2]],
            r"choice 'depth' has options \(1, 2\), in the journal \(1, 2, 3\)",
        ),
    ],
)
def test_a_journal_of_another_space_is_refused(tmp_path, choices, said):
    opened(tmp_path / "journal.log").record(evaluation(11))
    with pytest.raises(ValueError, match=f"of another space or problem .*{said}.*use another folder"):
        opened(tmp_path / "journal.log", space=SearchSpace("s", choices))


@pytest.mark.parametrize("content", ["hello", "hello\n", "hello\nworld\n", "{}\n{}\n", "{hello}\n", "[1]\n"])
def test_a_file_that_is_no_journal_is_refused(tmp_path, content):
    file = tmp_path / "journal.log"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"journal.log is not a journal .*use another folder"):
        opened(file)
    assert file.read_text().startswith(content)


def test_only_verified_evaluations_are_journaled(tmp_path):
    journal = opened(tmp_path / "journal.log")
    with pytest.raises(ValueError, match="verified evaluations, got an inherited one"):
        journal.record(PROBLEM.evaluation(ARCHS[0], {"accuracy": 1, "latency_s": 1}, "inherited"))
    assert len(journal) == 0


def test_trials_of_others_under_way_are_left_out(tmp_path):
    journal = opened(tmp_path / "journal.log")
    journal.study.enqueue_trial({"depth": 1})
    journal.study.ask()
    assert len(opened(tmp_path / "journal.log")) == 0


def test_an_unfinished_record_is_dropped_with_a_word(tmp_path, caplog):
    file = tmp_path / "journal.log"
    journal = opened(file)
    journal.record(evaluation(0))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 4, "worker')
    with caplog.at_level(logging.WARNING, "nas.journal"):
        journal.record(evaluation(1))  # a process that still runs, after another one died
    assert "the unfinished record was dropped" in caplog.text
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert [opened(file).find(ARCHS[i]) for i in (0, 1)] == [evaluation(0), evaluation(1)]


def test_a_relative_path_stays_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "other").mkdir()
    journal = opened(tmp_path.cwd().relative_to(tmp_path) / "runs" / "journal.log")
    monkeypatch.chdir(tmp_path / "other")
    journal.record(evaluation(0))
    assert len(opened(tmp_path / "runs" / "journal.log")) == 1


@pytest.mark.filterwarnings("ignore:The value of `grace_period`")
@pytest.mark.parametrize("relative", [False, True])
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, monkeypatch, relative):
    monkeypatch.setattr(nas.journal, "_GRACE_S", 1)
    monkeypatch.chdir(tmp_path)
    file = nas.journal.Path("journal.log") if relative else tmp_path / "journal.log"
    opened(file).record(evaluation(0))
    nas.journal._MendingLock(file).acquire()  # and its process dies
    journal = opened(file)
    journal.record(evaluation(1))
    assert len(opened(file)) == 2
