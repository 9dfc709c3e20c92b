"""Files that are whole or absent: written beside their place, then moved there in one step."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


def write_atomic(file: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `file`, then put it in place with one `os.replace`.

    A reader, or a run killed at any moment, sees the old file or the new one, never a part. When `write`
    fails (disk full, interrupt) the temporary file is removed, the old file stays and the error passes through.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=file.suffix, dir=file.parent)
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        _flush(part)
        part.chmod(_default_mode())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Put `content` into `file`, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """

    def fill(part: Path) -> None:
        part.write_bytes(content)

    write_atomic(file, fill)


def write_json(file: Path, content: object) -> None:
    """Put `content` into `file` as indented JSON, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    write_bytes(file, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make `folder` with the files `contents`, by name, whole or not at all.

    Raises:
        OSError: the folder holds something, or cannot be written, or the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
            (part / name).write_bytes(content)
            _flush(part / name)
        part.chmod(0o777 & ~_mask())
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_parts(file: Path) -> None:
    """Remove the temporary files that killed processes left beside `file`; no other process may be writing it."""
    for part in file.parent.glob(f".{file.name}.*{file.suffix}"):
        part.unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Bring the file's bytes to the disk, so that a power cut after the move cannot leave an empty file."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _default_mode() -> int:
    """Permissions a plainly opened file would get; `mkstemp` makes its files private."""
    return 0o666 & ~_mask()


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
