"""Laws of the journal: whatever moment a run is killed at, it is resumed as if it had never stopped.

Run as a program, this file is such a run: it searches in the folder given and may kill itself on the way.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

import nas.journal
from nas.evaluating import one_by_one
from nas.journal import Journal
from nas.loop import run_loop
from nas.objectives import Problem, maximize, minimize
from nas.searchers.nsga2 import NSGA2
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace("s", [Choice(f"c{j}", (1, 2, 3, 4)) for j in range(6)])
PROBLEM = Problem((maximize("accuracy"), minimize("latency_s")))
BUDGET = 30

pytestmark = pytest.mark.filterwarnings("ignore:The value of `grace_period`")


class Measure:
    """Notes every call in a file, outside of the journal; some architectures fail."""

    def __init__(self, folder, before=lambda call: None):
        self.file, self.before, self.calls = folder / "measured.txt", before, 0

    def __call__(self, arch):
        self.calls += 1
        with self.file.open("a") as file:
            file.write(f"{arch}\n")
        self.before(self.calls)
        if sum(arch.indices) % 5 == 0:
            raise ValueError("does not run")
        return {"accuracy": 1 - 1 / (3 + sum(arch.indices)), "latency_s": 1e-3 + sum(i**2 for i in arch.indices) / 7}


def journal_of(folder):
    return Journal(folder / "journal.log", "search", SPACE, PROBLEM)


def search(folder, measure, seen=lambda _: None):
    searcher = NSGA2(SPACE, 2, seed=0, population=8)
    with ThreadPoolExecutor(1) as executor:
        return run_loop(
            searcher,
            SPACE,
            PROBLEM,
            one_by_one(measure, executor),
            budget=BUDGET,
            batch=5,
            journal=journal_of(folder),
            on_evaluation=seen,
        )


def measured(folder):
    return Counter((folder / "measured.txt").read_text().splitlines())


def recorded(folder):
    """The architectures that the journal holds, as text."""
    return {str(arch) for arch in journal_of(folder)._known}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The evaluations of a run that was never stopped, and what it measured."""
    folder = tmp_path_factory.mktemp("whole")
    found = search(folder, Measure(folder))
    assert 10 < len(found) < BUDGET and set(measured(folder).values()) == {1}
    return found, measured(folder), (folder / "journal.log").read_bytes()


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("moment", ["measuring", "writing", "recorded"])
def test_a_killed_run_is_resumed_as_if_it_never_stopped(tmp_path, monkeypatch, expected, moment):
    monkeypatch.setattr(nas.journal, "_GRACE_S", 1)
    process = start(tmp_path, moment, "12")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    before, kept = measured(tmp_path), recorded(tmp_path)
    assert len(kept) >= {"measuring": 8, "writing": 11, "recorded": 12}[moment]  # 8: the batches before
    assert search(tmp_path, Measure(tmp_path)) == expected[0]
    assert not kept & set(measured(tmp_path) - before)
    assert set(measured(tmp_path)) == set(expected[1])


def test_a_run_killed_from_outside_is_resumed_as_if_it_never_stopped(tmp_path, monkeypatch, expected):
    monkeypatch.setattr(nas.journal, "_GRACE_S", 1)
    process = start(tmp_path, "slow", "0")
    file, deadline = tmp_path / "journal.log", time.monotonic() + 60
    while time.monotonic() < deadline and (not file.exists() or file.read_bytes().count(b"\n") < 9):
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=60)
    before, kept = measured(tmp_path), recorded(tmp_path)
    assert 5 <= len(kept) < BUDGET
    assert search(tmp_path, Measure(tmp_path)) == expected[0]
    assert not kept & set(measured(tmp_path) - before)


def test_a_journal_cut_at_any_byte_loses_only_what_was_not_whole(tmp_path):
    space = SearchSpace("tiny", [Choice("c0", (1, 2, 3, 4))])
    evaluations = [PROBLEM.evaluation(a, {"accuracy": 0.5, "latency_s": 1.0}, "verified") for a in space.enumerate()]
    file = tmp_path / "journal.log"
    whole = Journal(file, "search", space, PROBLEM)
    for evaluation in evaluations:
        whole.record(evaluation)
    content = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")][2:]  # the first two make the study
    for cut in [*range(0, ends[1], 7), *range(ends[1], len(content) + 1)]:
        file.write_bytes(content[:cut])
        journal = Journal(file, "search", space, PROBLEM)
        left = sum(end <= cut for end in ends)
        assert [journal.find(e.arch) for e in evaluations] == [*evaluations[:left], *[None] * (4 - left)]
        if cut % 300 == 7:
            for evaluation in evaluations:
                journal.record(evaluation)
            again = Journal(file, "search", space, PROBLEM)
            assert len(again) == len(again.study.trials) == 4


@pytest.mark.parametrize("share", [0.01, 0.4, 0.95, 0.999])
def test_a_run_whose_journal_was_cut_is_resumed_as_if_it_never_stopped(tmp_path, expected, share):
    content = expected[2]
    (tmp_path / "journal.log").write_bytes(content[: int(share * len(content))])
    assert search(tmp_path, Measure(tmp_path)) == expected[0]
    journal = journal_of(tmp_path)
    assert len(journal) == len(journal.study.trials) == BUDGET


def test_two_processes_on_one_journal_lose_and_double_nothing(tmp_path, expected):
    processes = [start(tmp_path, "slow", "0") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    costs = [list(e.costs) for e in expected[0]]
    assert [json.loads(output) for output in outputs] == [costs, costs]
    assert recorded(tmp_path) == set(expected[1])
    assert all(json.loads(line) for line in (tmp_path / "journal.log").read_text().splitlines())


def test_two_processes_that_record_different_architectures_keep_both(tmp_path):
    processes = [start(tmp_path, "record", str(half)) for half in (0, 1)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    journal = journal_of(tmp_path)
    assert len(journal) == len(journal.study.trials) == 80


# -- as a program ------------------------------------------------------------------------------------


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def die_writing(number):
    """Makes the record `number` stop halfway, with the lock held."""
    append, calls = JournalFileBackend.append_logs, []

    def broken(self, logs):
        calls.append(1)
        if len(calls) < number:
            return append(self, logs)
        self._lock.acquire()
        line = json.dumps(logs[0]).encode()
        with Path(self._file_path).open("ab") as file:
            file.write(line[: len(line) // 2])
        return kill_oneself()

    JournalFileBackend.append_logs = broken


def record_half(folder, half):
    journal = journal_of(folder)
    for i, arch in zip(range(80), SPACE.enumerate(), strict=False):
        if i % 2 == half:
            journal.record(PROBLEM.evaluation(arch, {"accuracy": i / 80, "latency_s": 1.0}, "verified"))


def main(folder, moment, number):
    if moment == "record":
        return record_half(folder, number)
    if moment == "writing":
        die_writing(number + 2)  # the first two records make the study
    reported = []

    def before(call):
        if moment == "slow":
            time.sleep(0.01)
        if moment == "measuring" and call == number:
            kill_oneself()

    def seen(evaluation):
        reported.append(evaluation)
        if moment == "recorded" and len(reported) == number:
            kill_oneself()

    return print(json.dumps([e.costs for e in search(folder, Measure(folder, before), seen)]))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
