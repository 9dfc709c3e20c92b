"""The store of measurements: one SQLite file per user, shared by all runs and processes."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import platformdirs

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
# The general error is what statements give on a table of other columns: somebody else's file.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
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


class MeasurementStore:
    """Measurements by (subject, fingerprint, settings), for use in a `with` statement or with `close`.

    Any number of processes and threads may use it at once.

    Args:
        path: the SQLite file, made when absent; by default `default_path()`.

    Raises:
        ValueError: a file that is damaged or no store.
        OSError: it cannot be opened or written, or the disk is full.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                _use_wal(self._connection)
                self._connection.execute(_TABLE)
        except BaseException:
            self._connection.close()
            raise

    def get(self, subject: str, fingerprint: str, settings: Settings = ()) -> Measurement | None:
        """The measurement under this key, or None.

        Raises:
            ValueError: a damaged file.
            OSError: it cannot be read.
        """
        with self._lock, self._errors():
            row = self._connection.execute(_GET, (subject, fingerprint, _key(settings))).fetchone()
        if row is None:
            return None
        try:
            return Measurement.from_json(row[0])
        except ValueError as error:
            raise ValueError(self._damaged(error)) from error

    def put(self, measurement: Measurement) -> None:
        """Keeps `measurement`, whole or not at all; one with the same key is replaced.

        Raises:
            ValueError: a damaged file.
            OSError: it cannot be written, or the disk is full (ENOSPC).
        """
        m = measurement
        with self._lock, self._errors():
            self._connection.execute(_PUT, (m.subject, m.fingerprint, _key(m.settings), m.to_json()))

    def close(self) -> None:
        """Lets go of the file; closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> MeasurementStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors in the words of a user."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if primary in _DAMAGED:
                raise ValueError(self._damaged(error)) from error
            if primary in _SYSTEM:
                number, advice = _SYSTEM[primary]
                raise OSError(number, f"measurement store: {advice} ({error})", str(self.path)) from error
            raise

    def _damaged(self, error: Exception) -> str:
        return (
            f"measurement store {self.path} is damaged or no store of measurements ({error}): move or delete it "
            f"(with its -wal and -shm files); what is needed is measured again"
        )


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
