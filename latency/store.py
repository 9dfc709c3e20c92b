"""The store of measurements: one SQLite file per user, shared by all runs and processes.

A file that is damaged is set aside, and work goes on with a new one.  Opening and setting aside happen under a lock of
their own, so that of several processes that notice at once one moves the file, and none opens half of it.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import platformdirs
from filelock import FileLock

from latency.measurement import Measurement, Settings

FILE_NAME = "measurements.sqlite"
CACHE_VARIABLE = "HWNAS_CACHE"

_BUSY_S = 30.0
_WAL_TRIES, _WAL_PAUSE_S = 600, 0.05
_TABLE = """
CREATE TABLE IF NOT EXISTS measurements (
    subject TEXT NOT NULL, fingerprint TEXT NOT NULL, settings TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (subject, fingerprint, settings)
)
"""
_GET = "SELECT record FROM measurements WHERE subject = ? AND fingerprint = ? AND settings = ?"
_PUT = "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?)"
_COLUMNS = ["subject", "fingerprint", "settings", "record"]
_NAMES = "SELECT name FROM pragma_table_info('measurements') ORDER BY cid"
_COMPANIONS = ("", "-wal", "-shm")  # the files that SQLite keeps of one database
_MOST_ASIDE = 1000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # and nothing else: what is locked or full is whole
_SYSTEM = {  # SQLite's primary result code: the system's error, and what to do
    sqlite3.SQLITE_FULL: (errno.ENOSPC, f"the disk is full; free some space or point {CACHE_VARIABLE} elsewhere"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "reading or writing failed; check the disk and its free space"),
    sqlite3.SQLITE_CANTOPEN: (errno.ENOENT, f"it cannot be opened; point {CACHE_VARIABLE} to a folder of yours"),
    sqlite3.SQLITE_READONLY: (errno.EACCES, f"it cannot be written; point {CACHE_VARIABLE} to a folder of yours"),
    sqlite3.SQLITE_BUSY: (errno.EBUSY, f"another process held it for {_BUSY_S:.0f} s; end that one or try again"),
}


def default_path() -> Path:
    """The user's store: in the folder that HWNAS_CACHE names, else in the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("hwnas")) / FILE_NAME


class _Damaged(ValueError):
    """The file is no store of measurements, or no longer."""


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


class MeasurementStore:
    """Measurements by (subject, fingerprint, settings), for use in a `with` statement or with `close`.

    Any number of processes and threads may use it at once.

    Args:
        path: the SQLite file, made when absent; by default `default_path()`.
        remeasure: whether measurements from before count as absent, each until it is put anew.
        say: told when a damaged file is set aside.

    Raises:
        ValueError: a file that is damaged, and a new one in its place as well.
        OSError: it cannot be opened or written, or the disk is full.
    """

    def __init__(
        self, path: Path | None = None, *, remeasure: bool = False, say: Callable[[str], object] = _warn
    ) -> None:
        self.path = path or default_path()
        self._remeasure, self._say = remeasure, say
        self._put = set[tuple[str, str, str]]()  # keys of what was put here
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except _Damaged as damage:
            self._begin_anew(damage)

    def get(self, subject: str, fingerprint: str, settings: Settings = ()) -> Measurement | None:
        """The measurement under this key, or None; one that this version cannot read counts as absent.

        Raises:
            ValueError: a damaged file, and a new one in its place as well.
            OSError: it cannot be read.
        """
        record = self.get_record(subject, fingerprint, settings)
        try:
            return Measurement.from_json(record) if record else None
        except ValueError:
            return None

    def put(self, measurement: Measurement) -> None:
        """Keeps `measurement`, whole or not at all; one with the same key is replaced.

        Raises:
            ValueError: a damaged file, and a new one in its place as well.
            OSError: it cannot be written, or the disk is full (ENOSPC).
        """
        self.put_record(measurement.subject, measurement.fingerprint, measurement.settings, measurement.to_json())

    def get_record(self, subject: str, fingerprint: str, settings: Settings) -> str | None:
        """The text under this key, of whatever kind of measurement, or None; errors as of `get`."""
        key = (subject, fingerprint, _key(settings))
        if self._remeasure and key not in self._put:
            return None
        rows = self._execute(_GET, key)
        return str(rows[0][0]) if rows else None

    def put_record(self, subject: str, fingerprint: str, settings: Settings, record: str) -> None:
        """Keeps a text under this key; errors as of `put`."""
        key = (subject, fingerprint, _key(settings))
        self._execute(_PUT, (*key, record))
        self._put.add(key)

    def close(self) -> None:
        """Lets go of the file; closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> MeasurementStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _execute(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        """The rows of a statement; tried again on a new file where this one is damaged."""
        with self._lock:
            try:
                with self._errors():
                    return self._connection.execute(statement, values).fetchall()
            except _Damaged as damage:
                self._begin_anew(damage)
            with self._errors():
                return self._connection.execute(statement, values).fetchall()

    def _open(self) -> None:
        with self._moving():
            self._connect()

    def _connect(self) -> None:
        with self._errors():
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        self._opened = _identity(self.path)
        try:
            with self._errors():
                _use_wal(self._connection)
                self._connection.execute(_TABLE)
                columns = [name for (name,) in self._connection.execute(_NAMES)]
            if columns != _COLUMNS:
                raise _Damaged(self._damage(f"its table has the columns {', '.join(columns)}"))
        except BaseException:
            self._connection.close()
            raise

    def _begin_anew(self, damage: _Damaged) -> None:
        """Sets the damaged file aside, unless another process was first, and opens the one in its place."""
        self._connection.close()
        with self._moving():
            if _identity(self.path) == self._opened:
                aside = _set_aside(self.path)
                self._say(f"{damage}; it was set aside as {aside.name}, and what is needed is measured again")
            self._connect()

    def _moving(self) -> FileLock:
        """Held by a process while it opens the file or moves it."""
        return FileLock(self.path.with_name(self.path.name + ".lock"), timeout=_BUSY_S)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors in the words of a user."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if primary in _DAMAGED:
                raise _Damaged(self._damage(error)) from error
            if primary in _SYSTEM:
                number, advice = _SYSTEM[primary]
                raise OSError(number, f"measurement store: {advice} ({error})", str(self.path)) from error
            raise

    def _damage(self, why: object) -> str:
        return f"measurement store {self.path} is damaged or no store of measurements ({why})"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _set_aside(path: Path) -> Path:
    """Renames the files of the database to the first free `NAME.damaged-N`, which is returned."""
    for n in range(1, _MOST_ASIDE):
        aside = path.with_name(f"{path.name}.damaged-{n}")
        if not any(Path(f"{aside}{end}").exists() for end in _COMPANIONS):
            break
    else:
        raise ValueError(f"{path.parent} holds {_MOST_ASIDE} damaged stores already: delete them, and look at the disk")
    for end in reversed(_COMPANIONS):  # the database last: where this is cut short, it is found damaged again
        if Path(f"{path}{end}").exists():
            Path(f"{path}{end}").rename(f"{aside}{end}")
    return aside


def _key(settings: Settings) -> str:
    return json.dumps(settings, allow_nan=False)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers do not wait for a writer.  The switch does not honour SQLite's own busy timeout, so it is tried again."""
    deadline = time.monotonic() + _BUSY_S
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            over = not tries_left or time.monotonic() >= deadline
            if over or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_WAL_PAUSE_S)
