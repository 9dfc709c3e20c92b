"""The run folder: its name, its `config.json`, which says whose it is, and the record of a finished run."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from nas.config import Settings, Training, first_line

AnyTraining = TypeVar("AnyTraining", bound=Training)

FILE, RECORD, PROFILE, JOURNAL = "config.json", "record.json", "profile.json", "journal.log"
CHECKPOINT, FIDELITY = "checkpoint.safetensors", "fidelity.json"
TRAINING = "training.json"  # instead of `FILE`, of a run that is a training and nothing more
LEAST_FREE_BYTES = 200_000_000  # checkpoint, report and files of a run
LOCK_FILE = "run.lock"
_MOST_LETTERS = 100  # of a default name before its digest; file systems take 255 bytes


def default_folder(settings: Training) -> Path:
    """`runs/SPACE-DATA-DEVICE-DIGEST`: the same settings find their run again, others get their own folder.

    A training has its strategy in the place of the device.
    """
    last = settings.device if isinstance(settings, Settings) else settings.strategy
    parts = (settings.space.rpartition(":")[2], Path(settings.data).stem, last)
    name = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)
    return Path("runs") / f"{name[:_MOST_LETTERS]}-{settings.digest}"


def open_folder(folder: Path, settings: Training) -> bool:
    """Makes the run folder with its `config.json` (of a training: `training.json`), or finds it; whether it was there.

    Raises:
        ValueError: the folder holds a run of other settings, or something that is no run.
        OSError: it cannot be written.
    """
    file = folder / (FILE if isinstance(settings, Settings) else TRAINING)
    part = file.with_suffix(".part")
    if file.exists():
        _check_same(_read(file, type(settings)), settings, folder)
        return True
    # A run killed while it wrote its config leaves the unfinished file and nothing else.
    if folder.exists() and (not folder.is_dir() or any(path != part for path in folder.iterdir())):
        raise ValueError(f"{folder} exists and holds no run: name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(settings.model_dump(), indent=2) + "\n")
    part.replace(file)
    return False


def read_settings(folder: Path) -> Settings:
    """The settings of the run in `folder`.

    Raises:
        ValueError: there is no run, or its config cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        raise ValueError(f"{folder} holds no run (no {FILE}): give the folder that `nas search` printed")
    return _read(file, Settings)


def read_training(folder: Path) -> Training:
    """The settings of the training in `folder`, be it a run of its own or part of a search.

    Raises:
        ValueError: there is none, or its config cannot be read.
    """
    if (folder / TRAINING).exists():
        return _read(folder / TRAINING, Training)
    if not (folder / FILE).exists():
        raise ValueError(f"{folder} holds no run: give the folder that `nas train` or `nas search` printed")
    return _read(folder / FILE, Settings)


_NAMED_ANYWAY = frozenset({"space", "space_fingerprint", "data", "data_fingerprint"})  # where they are objects
OF_TRAINING = tuple(name for name in Training.model_fields if name not in ("seed", "budget_s"))
"""Settings that a search has from the training whose weights it takes."""


def with_supernet(settings: Settings, folder: Path) -> Settings:
    """The settings of a search with the weights of the training in `folder`, of which it has space and data too.

    Raises:
        ValueError: there is no training, it has not ended, or the settings ask for another one.
    """
    training, file = read_training(folder), folder / CHECKPOINT
    from nas.training import read_history  # here, since it loads torch, and not before there is a training

    read_history(folder)
    taken = {name: getattr(training, name) for name in OF_TRAINING}
    for name in sorted(set(OF_TRAINING) - _NAMED_ANYWAY):
        given = getattr(settings, name)
        if given not in (Training.model_fields[name].default, taken[name]):
            raise ValueError(f"the training in {folder} has {name}={taken[name]!r}, not {given!r}: leave that out")
    digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return settings.model_copy(update=taken | {"supernet": str(folder.absolute()), "supernet_fingerprint": digest})


def _read(file: Path, kind: type[AnyTraining]) -> AnyTraining:
    try:
        return kind.model_validate_json(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not the config of a run of this version: {first_line(error)}") from error


def _check_same(found: Training, expected: Training, folder: Path) -> None:
    was, now = found.model_dump(), expected.model_dump()
    for name in was:
        if was[name] != now[name] and name == "space_fingerprint":
            raise ValueError(
                f"{folder} holds a run of {found.space} before it was changed: name another folder with --out"
            )
        if was[name] != now[name]:
            raise ValueError(
                f"{folder} holds a run with {name}={was[name]}, now {name}={now[name]}: name another folder with --out"
            )


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished run.

    Raises:
        ValueError: no run, or one that is not finished.
    """
    read_settings(folder)
    file = folder / RECORD
    if not file.exists():
        raise ValueError(f"the run in {folder} is not finished: repeat its `nas search` with --out {folder} to go on")
    record: dict[str, Any] = json.loads(file.read_text())
    return record | read_fidelity(folder)


def read_fidelity(folder: Path) -> dict[str, Any]:
    """What `nas fidelity` found out about the run's supernet, as a part of the record; empty if nobody asked it."""
    file = folder / FIDELITY
    return {"fidelity": json.loads(file.read_text())} if file.exists() else {}


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the run; the system lets go of the lock when its holder dies.

    Raises:
        ValueError: another process is at work there.
    """
    try:
        with FileLock(folder / LOCK_FILE, blocking=False):
            yield
    except Timeout as error:
        raise ValueError(f"another process is at work in {folder}: wait for it, or name another folder") from error


def check_disk(folder: Path) -> None:
    """Refuses a disk that the run would fill.

    Raises:
        OSError: ENOSPC.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if shutil.disk_usage(existing).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, f"less than {LEAST_FREE_BYTES / 1e6:.0f} MB free", str(existing))
