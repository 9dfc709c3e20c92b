"""Files of JSON lines that studies add to row by row, and go on with after they were killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file; a last line that was left unfinished is dropped.

    Raises:
        ValueError: another line is not JSON.
    """
    *whole, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    rows = []
    for number, line in enumerate(whole, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is not JSON ({error}): mend or delete it") from error
    return [*rows, json.loads(last)] if _finished(last) else rows


def open_lines(path: Path) -> TextIO:
    """Opens a file to add rows, each written out with its newline; the next one begins on a line of its own.

    What `read_lines` drops is cut off, so that only one process may write to a file.
    """
    with path.open("a+b") as file:
        file.seek(0)
        last = file.read().rpartition(b"\n")[2]
        if _finished(last):
            file.write(b"\n")
        elif last:
            file.truncate(file.tell() - len(last))
    return path.open("a", buffering=1)


def _finished(line: bytes) -> bool:
    """Whether a line without a newline is whole: no part of a JSON object is JSON."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
