"""The run folder: its name, its `config.json`, which says whose it is, and the record of a finished run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nas.config import Settings, first_line

FILE, RECORD, PROFILE, JOURNAL = "config.json", "record.json", "profile.json", "journal.log"


def default_folder(settings: Settings) -> Path:
    """`runs/SPACE-DATA-DEVICE-DIGEST`: the same settings find their run again, others get their own folder."""
    parts = (settings.space.rpartition(":")[2], Path(settings.data).stem, settings.device)
    name = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts)
    return Path("runs") / f"{name}-{settings.digest}"


def open_folder(folder: Path, settings: Settings) -> bool:
    """Makes the run folder with its `config.json`, or finds it; whether it was there.

    Raises:
        ValueError: the folder holds a run of other settings, or something that is no run.
        OSError: it cannot be written.
    """
    file = folder / FILE
    part = file.with_suffix(".part")
    if file.exists():
        _check_same(read_settings(folder), settings, folder)
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
    try:
        return Settings.model_validate_json(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not the config of a run of this version: {first_line(error)}") from error


def _check_same(found: Settings, expected: Settings, folder: Path) -> None:
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
    return record
