import contextlib
import dataclasses
import errno
import os
import re
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latency.measurement import Measurement, settings_of
from latency.store import MeasurementStore, _Damaged, _set_aside, _use_wal, default_path
from latency.timing import Timing

ROOT = Path(__file__).parents[2]
ONE = Measurement("ab", "cpu", "cd", Timing((0.5, 0.25), 3, (0.5, 0.25), (2,)), settings_of({"rounds": 3}))
TWO = dataclasses.replace(ONE, timing=Timing((0.125,), 1, (0.125,), (1,)))


def get(store, m):
    return store.get(m.subject, m.fingerprint, m.settings)


def test_what_was_put_is_got_also_after_reopening(tmp_path):
    with MeasurementStore(tmp_path / "deep/er/store") as store:
        assert get(store, ONE) is None
        store.put(ONE)
        assert get(store, ONE) == ONE
    store.close()
    with MeasurementStore(tmp_path / "deep/er/store") as store:
        assert get(store, ONE) == ONE


def test_the_same_key_replaces_and_another_does_not(tmp_path):
    with MeasurementStore(tmp_path / "store") as store:
        store.put(ONE)
        store.put(TWO)
        assert get(store, ONE) == TWO
        for change in ({"subject": "x"}, {"fingerprint": "x"}, {"settings": ()}, {"settings": (("rounds", "3"),)}):
            assert get(store, dataclasses.replace(ONE, **change)) is None


def test_the_place_is_the_argument_the_variable_or_the_user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "here"))
    assert default_path() == tmp_path / "here/measurements.sqlite"
    with MeasurementStore() as store:
        assert store.path == default_path() and store.path.exists()
    monkeypatch.delenv("HWNAS_CACHE")
    assert "hwnas" in str(default_path())


JUNK = b"this is no database at all" * 100


@pytest.fixture
def said():
    return []


def test_a_damaged_file_is_set_aside_and_work_goes_on(tmp_path, said):
    for n in (1, 2):
        (tmp_path / "store").write_bytes(JUNK)
        with MeasurementStore(tmp_path / "store", say=said.append) as store:
            assert get(store, ONE) is None
            store.put(ONE)
            assert get(store, ONE) == ONE
        assert len(said) == n and "is damaged" in said[-1] and f"set aside as store.damaged-{n}" in said[-1]
        assert (tmp_path / f"store.damaged-{n}").read_bytes() == JUNK


def test_all_files_of_a_database_are_set_aside_under_one_free_name(tmp_path):
    for name in ("store", "store-wal", "store-shm", "store.damaged-1-wal"):
        (tmp_path / name).write_text(name)
    assert _set_aside(tmp_path / "store") == tmp_path / "store.damaged-2"
    for end in ("", "-wal", "-shm"):
        assert (tmp_path / f"store.damaged-2{end}").read_text() == f"store{end}"
    assert (tmp_path / "store.damaged-1-wal").read_text() == "store.damaged-1-wal"


def test_a_python_user_is_warned(tmp_path):
    (tmp_path / "store").write_bytes(JUNK)
    with pytest.warns(RuntimeWarning, match="set aside as store.damaged-1"), MeasurementStore(tmp_path / "store"):
        pass


def test_a_file_damaged_in_the_middle_is_set_aside_when_it_is_read(tmp_path, said):
    with MeasurementStore(tmp_path / "store") as store:
        each = [dataclasses.replace(ONE, subject=f"{i:04}") for i in range(300)]
        for m in each:
            store.put(m)
    content = (tmp_path / "store").read_bytes()
    assert len(content) > 10 * 4096
    (tmp_path / "store").write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with MeasurementStore(tmp_path / "store", say=said.append) as store:
        assert not any(get(store, m) for m in each)
        store.put(ONE)
        assert get(store, ONE) == ONE and len(said) == 1
    assert (tmp_path / "store.damaged-1").exists()


def test_a_table_of_another_program_is_set_aside(tmp_path, said):
    with contextlib.closing(sqlite3.connect(tmp_path / "store")) as other:
        other.execute("CREATE TABLE measurements (time REAL, value REAL)")
    with MeasurementStore(tmp_path / "store", say=said.append) as store:
        store.put(ONE)
    assert "has the columns time, value" in said[0]
    with contextlib.closing(sqlite3.connect(tmp_path / "store.damaged-1")) as other:
        assert other.execute("SELECT * FROM measurements").fetchall() == []


def test_what_another_process_has_set_aside_is_not_moved_again(tmp_path, said):
    with MeasurementStore(tmp_path / "store", say=said.append) as first:
        with MeasurementStore(tmp_path / "store", say=said.append) as second:
            for store in (first, second):
                store._begin_anew(_Damaged("both have seen the damage"))
            second.put(ONE)
        assert get(first, ONE) == ONE
        first.put(TWO)
    assert len(said) == 1 and not (tmp_path / "store.damaged-2").exists()
    with MeasurementStore(tmp_path / "store") as store:
        assert get(store, TWO) == TWO


def test_a_store_that_was_moved_away_does_not_harm_the_new_one(tmp_path, said):
    old = MeasurementStore(tmp_path / "store")
    old.put(ONE)
    with MeasurementStore(tmp_path / "store", say=said.append) as store:
        store._begin_anew(_Damaged("seen by one"))
        store.put(TWO)
        old.put(ONE)  # into the file that was moved
        old.close()
        assert get(store, TWO) == TWO
    with MeasurementStore(tmp_path / "store") as store:
        assert get(store, TWO) == TWO


DAMAGED_TOGETHER = """
import pathlib, sys, time
from latency.measurement import Measurement
from latency.store import MeasurementStore
from latency.timing import Timing
folder = pathlib.Path(sys.argv[1])
(folder / f"ready-{sys.argv[2]}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
with MeasurementStore(folder / "store", say=print) as store:
    store.put(Measurement(sys.argv[2], "cpu", "f", Timing((1.0,), 1, (1.0,), (1,))))
"""


def test_several_processes_that_notice_at_once_lose_nothing(tmp_path):
    (tmp_path / "store").write_bytes(JUNK)
    arguments = [sys.executable, "-c", DAMAGED_TOGETHER, str(tmp_path)]
    workers = [
        subprocess.Popen([*arguments, str(w)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for w in range(4)
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(workers):
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    printed, errors = zip(*(worker.communicate() for worker in workers), strict=True)
    assert [worker.returncode for worker in workers] == [0] * 4, errors
    assert "".join(printed).count("set aside") == 1
    assert (tmp_path / "store.damaged-1").read_bytes() == JUNK and not (tmp_path / "store.damaged-2").exists()
    with MeasurementStore(tmp_path / "store") as store:
        assert all(store.get(str(w), "f") for w in range(4))


def test_a_damaged_record_counts_as_absent(tmp_path, said):
    with MeasurementStore(tmp_path / "store", say=said.append) as store:
        store.put(ONE)
        store._connection.execute("UPDATE measurements SET record = '{'")
        assert get(store, ONE) is None
        store.put(ONE)
        assert get(store, ONE) == ONE and not said


def test_what_is_to_be_measured_again_counts_as_absent_until_it_is_put(tmp_path):
    with MeasurementStore(tmp_path / "store") as store:
        store.put(ONE)
    with MeasurementStore(tmp_path / "store", remeasure=True) as store:
        assert get(store, ONE) is None
        store.put(TWO)
        assert get(store, ONE) == TWO


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY]
)
def test_what_is_only_locked_full_or_unreadable_stays_where_it_is(tmp_path, said, code, monkeypatch):
    with MeasurementStore(tmp_path / "store", say=said.append) as store:
        store.put(ONE)
        with monkeypatch.context() as patched:
            patched.setattr(store, "_connection", Busy(1, code))
            with pytest.raises(OSError, match="measurement store"):
                store.put(TWO)
        assert get(store, ONE) == ONE and not said and not list(tmp_path.glob("*damaged*"))


def test_a_full_disk_says_so_and_keeps_what_was_there(tmp_path):
    with MeasurementStore(tmp_path / "store") as store:
        store.put(ONE)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        large = dataclasses.replace(ONE, timing=Timing((0.1,) * 9999, 1, (0.1,) * 9999, (9999,)))
        with pytest.raises(OSError, match="disk is full") as caught:
            store.put(large)
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(store.path)
        assert get(store, ONE) == ONE


def test_a_store_that_cannot_be_written_says_so_and_can_be_read(tmp_path):
    with MeasurementStore(tmp_path / "store") as store:
        store.put(ONE)
        store._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(OSError, match="cannot be written; point HWNAS_CACHE") as caught:
            store.put(TWO)
        assert caught.value.errno == errno.EACCES and get(store, ONE) == ONE


@pytest.mark.parametrize("inside", ["store", "new/store"])
def test_a_read_only_folder_is_an_os_error_that_names_it(tmp_path, inside):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        MeasurementStore(tmp_path / inside)


def test_a_place_that_cannot_be_opened_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="cannot be opened"):
        MeasurementStore(tmp_path)


class Busy:
    """Refuses as SQLite does when another process is switching, `times` times."""

    def __init__(self, times, code=sqlite3.SQLITE_BUSY):
        self.left, self.code = times, code

    def execute(self, statement, values=()):
        if self.left:
            self.left -= 1
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = self.code
            raise error


def test_the_switch_to_wal_is_tried_again_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda s: None)
    waits = Busy(5)
    _use_wal(waits)
    assert waits.left == 0
    for hopeless in (Busy(10_000), Busy(1, sqlite3.SQLITE_FULL)):
        with pytest.raises(sqlite3.OperationalError):
            _use_wal(hopeless)


def test_threads_share_a_store(tmp_path):
    with MeasurementStore(tmp_path / "store") as store, ThreadPoolExecutor(4) as pool:
        each = [dataclasses.replace(ONE, subject=str(i)) for i in range(40)]
        list(pool.map(store.put, each))
        assert list(pool.map(lambda m: get(store, m), each)) == each


def test_several_processes_write_at_once(tmp_path):
    code = """
import dataclasses, sys, pathlib
from latency.measurement import Measurement
from latency.store import MeasurementStore
from latency.timing import Timing
with MeasurementStore(pathlib.Path(sys.argv[1])) as store:
    for i in range(30):
        store.put(Measurement(f"{sys.argv[2]}-{i}", "cpu", "f", Timing((1.0,), 1, (1.0,), (1,))))
        store.put(Measurement("shared", "cpu", "f", Timing((1.0,), 1, (1.0,), (1,))))
"""
    arguments = [sys.executable, "-c", code, str(tmp_path / "store")]
    workers = [subprocess.Popen([*arguments, str(w)], cwd=ROOT, stderr=subprocess.PIPE) for w in range(4)]
    errors = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, errors
    with MeasurementStore(tmp_path / "store") as store:
        assert all(store.get(f"{w}-{i}", "f") for w in range(4) for i in range(30)) and store.get("shared", "f")
