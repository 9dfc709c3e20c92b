"""The settings of a run: checked once, stored as `config.json`, and the identity of its folder."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nas.objectives import Bound, Problem, maximize, minimize

FILE = "config.json"
_PREFIX = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_TIME_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


class Settings(BaseModel):
    """What a search is asked to do.

    Everything that the result depends on, in SI base units; two runs with equal settings are the same run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "mbconv"
    preset: str | None = None
    data: str = "digits"
    data_fingerprint: str = ""
    image_size: int | None = Field(default=None, ge=4, le=4096)
    device: str = "cpu"
    precisions: tuple[str, ...] = ("fp32", "int8")
    searcher: str = "guided"
    seed: int = Field(default=0, ge=0)
    budget_s: float = Field(default=240.0, gt=0)
    epochs: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=2)
    lr: float | None = Field(default=None, gt=0)
    evaluations: int = Field(default=36, ge=4)
    baselines: bool = True
    max_latency_s: float | None = Field(default=None, gt=0)
    max_size_bytes: float | None = Field(default=None, gt=0)
    max_macs: float | None = Field(default=None, gt=0)
    min_accuracy: float | None = Field(default=None, gt=0, le=1)

    @property
    def problem(self) -> Problem:
        """Validation accuracy against latency, within the bounds."""
        limits = (
            ("latency_s", self.max_latency_s, False),
            ("size_bytes", self.max_size_bytes, False),
            ("macs", self.max_macs, False),
            ("val_accuracy", self.min_accuracy, True),
        )
        bounds = tuple(Bound(metric, limit, least) for metric, limit, least in limits if limit is not None)
        return Problem((maximize("val_accuracy"), minimize("latency_s")), bounds)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over all settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


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
    if file.exists():
        _check_same(read_settings(folder), settings, folder)
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and holds no run: name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
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
        if was[name] != now[name]:
            raise ValueError(
                f"{folder} holds a run with {name}={was[name]}, now {name}={now[name]}: name another folder with --out"
            )


def first_line(error: Exception) -> str:
    """The gist of an error in one line; of a pydantic error, the first setting that is wrong."""
    details: list[Any] = getattr(error, "errors", list)() if hasattr(error, "errors") else []
    if details:
        where = ".".join(map(str, details[0]["loc"])) or "settings"
        return f"{where}: {details[0]['msg']}, got {details[0]['input']!r}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def parse_quantity(text: str, unit: str) -> float:
    """`2ms` with unit `s` → 0.002; `1MB` with `B` → 1e6; `30M` with no unit → 3e7; a bare number is in base units.

    Raises:
        ValueError: not a positive number with this unit.
    """
    match = re.fullmatch(rf"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([numkKMGµ]?)({re.escape(unit)})?\s*", text)
    if match is None or (match[2] and unit and not match[3]):
        example = {"s": "2ms", "B": "1MB", "": "30M"}[unit]
        raise ValueError(f"expected a quantity such as {example}, got {text!r}")
    value = _number(match[1], text) * _PREFIX[match[2]]
    if value <= 0:
        raise ValueError(f"expected a quantity above zero, got {text!r}")
    return value


def parse_duration(text: str) -> float:
    """`90s`, `4m`, `4min`, `1.5h` or a bare number of seconds, in seconds.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*(s|m|min|h)?\s*", text)
    if match is None or _number(match[1], text) <= 0:
        raise ValueError(f"expected a duration such as 90s, 4m or 1h, got {text!r}")
    return _number(match[1], text) * _TIME_UNITS[match[2] or "s"]


def _number(digits: str, text: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None
