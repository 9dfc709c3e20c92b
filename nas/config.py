"""The settings of a run: checked once, and the identity of a run."""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.metrics import COSTS, Cost
from nas.objectives import Bound, Problem, maximize, minimize
from supernet.catalog import DATASETS, WEIGHT_FILES
from supernet.find_source import find_source

IN_PYTHON = "python:"  # before the name of data that were given as objects
_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)((?:[eE][+-]?[0-9]+)?)"
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "\N{MICRO SIGN}": 1e-6, "\N{GREEK SMALL LETTER MU}": 1e-6, "n": 1e-9}
_LARGE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
# Unit to its prefixes, an example.
_QUANTITIES = {"s": (_SMALL, "2ms"), "J": (_SMALL, "5mJ"), "B": (_LARGE, "1MB"), "": (_LARGE, "30M")}
_TIME_UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


class Training(BaseModel):
    """How a supernet is trained.

    Everything that the result depends on, in SI base units; two runs with equal settings are the same run.  What is
    None is as `supernet.recipe.Recipe` has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    space: str = "mbconv"
    preset: str | None = None
    space_fingerprint: str = ""
    data: str = "digits"
    data_fingerprint: str = ""
    image_size: int | None = Field(default=None, ge=4, le=4096)
    sparsity: tuple[str, ...] = ()  # patterns that blocks may have, besides dense
    strategy: str = "sandwich"
    seed: int = Field(default=0, ge=0)
    budget_s: float = Field(default=240.0, gt=0)
    epochs: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=2)
    lr: float | None = Field(default=None, gt=0)
    optimizer: str | None = None
    weight_decay: float | None = Field(default=None, ge=0)
    label_smoothing: float | None = Field(default=None, ge=0, lt=1)
    ema_decay: float | None = Field(default=None, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    mixup: float | None = Field(default=None, ge=0)
    erase: float | None = Field(default=None, ge=0, le=1)
    autocast: bool | None = None  # whether in bfloat16; None for what is faster
    train_precisions: tuple[str, ...] = ()  # in which weights are trained, by block and step; none for fp32 alone
    pretrained: str | None = None  # whose weights the training begins with
    pretrained_fingerprint: str | None = None

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits over all settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


class Settings(Training):
    """What a search is asked to do, its training included, whose `budget_s` is that of the whole run."""

    device: str = "cpu"
    precisions: tuple[str, ...] = ("fp32", "int8")
    objectives: tuple[str, ...] = ("latency",)  # costs to make small, beside accuracy
    searcher: str = "linas"
    supernet: str | None = None  # the folder of a training whose weights are taken, instead of training
    supernet_fingerprint: str | None = None
    evaluations: int = Field(default=28, ge=4)
    baselines: bool = True
    max_latency_s: float | None = Field(default=None, gt=0)
    max_energy_joules: float | None = Field(default=None, gt=0)
    max_size_bytes: float | None = Field(default=None, gt=0)
    max_macs: float | None = Field(default=None, gt=0)
    max_parameters: float | None = Field(default=None, gt=0)
    max_memory_bytes: float | None = Field(default=None, gt=0)
    max_traffic_bytes: float | None = Field(default=None, gt=0)
    max_roofline_s: float | None = Field(default=None, gt=0)
    min_accuracy: float | None = Field(default=None, gt=0, le=1)
    profile: str | None = None  # the file of the device's profile, for a device that is not attached
    profile_fingerprint: str | None = None
    source: str | None = None  # the digest of the run that this one was retargeted from
    timings: int | None = Field(default=None, ge=10)  # on the new device, for that

    @property
    def problem(self) -> Problem:
        """Validation accuracy against the costs that are objectives, within the bounds."""
        metrics = [cost.metric for cost in COSTS.values()]
        bounds = [Bound(metric, limit) for metric in metrics if (limit := getattr(self, f"max_{metric}"))]
        bounds += [Bound("val_accuracy", self.min_accuracy, at_least=True)] if self.min_accuracy else []
        return Problem((maximize("val_accuracy"), *(minimize(cost.metric) for cost in self.costs)), tuple(bounds))

    @property
    def costs(self) -> tuple[Cost, ...]:
        """What is made small."""
        return tuple(COSTS[name] for name in self.objectives)


def data_setting(data: str) -> str:
    """How a run remembers its data: names as they are, paths from the root, so that they are found from any folder.

    Raises:
        ValueError: there are no such data.
    """
    find_source(data)
    return data if data in DATASETS else str(Path(data).expanduser().absolute())


def pretrained_setting(source: str) -> str:
    """How a run remembers whose weights it begins with: files and run folders from the root, timm's names as they are.

    Of `NAME:FILE`, a file of the weights of timm's network NAME, the file alone is a path.
    """
    whole = Path(source).expanduser()
    if whole.is_dir() or (whole.suffix in WEIGHT_FILES and (":" not in source or whole.exists())):
        return str(whole.absolute())
    name, colon, file = source.rpartition(":")
    return f"{name}:{Path(file).expanduser().absolute()}" if colon and Path(file).suffix in WEIGHT_FILES else source


def first_line(error: Exception) -> str:
    """The gist of an error in one line; of a pydantic error, the first setting that is wrong."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        # Without a place it is the whole file that is wrong: too long to show.
        return f"{where}: {first['msg']}, got {reprlib.repr(first['input'])}" if where else first["msg"]
    return (str(error).splitlines() or [type(error).__name__])[0]


def parse_quantity(text: str, unit: str) -> float:
    """`2ms` with unit `s` → 0.002; `1MB` with `B` → 1e6; `30M` with no unit → 3e7; a bare number is in base units.

    Times take the prefixes m, u or µ, and n; sizes and counts take k, M, G and T.

    Raises:
        ValueError: not a positive number with this unit.
    """
    prefixes, example = _QUANTITIES[unit]
    match = re.fullmatch(rf"\s*{_NUMBER}\s*([{''.join(prefixes)}]?)((?:{unit})?)\s*", text)
    if match is None or (match[3] and not match[4] and unit):
        raise ValueError(f"expected a quantity such as {example}, got {text!r}")
    return _positive(float(match[1] + match[2]) * prefixes[match[3]], text, f"a quantity such as {example}")


def parse_duration(text: str) -> float:
    """`90s`, `4m`, `4min`, `1.5h` or a bare number of seconds, in seconds.

    Raises:
        ValueError: anything else.
    """
    example = "a duration such as 90s, 4m or 1h"
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(s|m|min|h|)\s*", text)
    if match is None:
        raise ValueError(f"expected {example}, got {text!r}")
    return _positive(float(match[1] + match[2]) * _TIME_UNITS[match[3]], text, example)


def _positive(value: float, text: str, example: str) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"expected {example}, above zero, got {text!r}")
    return value
