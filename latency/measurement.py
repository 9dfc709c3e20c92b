"""A measurement: what was timed, where, how, and every sample."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latency.timing import Timing

Setting = str | int | float | bool
Settings = tuple[tuple[str, Setting], ...]


@dataclass(frozen=True)
class Measurement:
    """The timing of one model file on one device.

    Args:
        subject: digest of the ONNX bytes, as `subject_of` gives it.
        device: its name.
        fingerprint: of the environment and the device.
        settings: how it was timed, pairs sorted by name, as `settings_of` gives them.
    """

    subject: str
    device: str
    fingerprint: str
    timing: Timing
    settings: Settings = ()

    @functools.cached_property
    def undisturbed(self) -> Timing:
        """The part of the timing that is reported: samples for which the device was left to the subject."""
        return self.timing.undisturbed()

    def to_json(self) -> str:
        """One line of JSON that `from_json` turns back into an equal measurement."""
        record = dataclasses.asdict(self) | {"settings": dict(self.settings)}
        return json.dumps(record, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Measurement:
        """The measurement that `to_json` wrote.

        Raises:
            ValueError: text that is no measurement.
        """
        try:
            record = json.loads(text)
            return Measurement(
                subject=_text(record, "subject"),
                device=_text(record, "device"),
                fingerprint=_text(record, "fingerprint"),
                timing=Timing.of(record["timing"]),
                settings=settings_of(record["settings"]),
            )
        except KeyError as error:
            raise ValueError(f"a measurement in JSON lacks the field {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"not a measurement in JSON: {error}") from error


def subject_of(model: bytes) -> str:
    """The name of a model file: SHA-256 of its bytes, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def settings_of(settings: Mapping[str, Setting]) -> Settings:
    """The settings as pairs sorted by name: equal settings, equal values."""
    return tuple(sorted(settings.items()))


def _text(record: Mapping[str, Any], name: str) -> str:
    if not isinstance(record[name], str):
        raise ValueError(f"{name} must be text, got {record[name]!r}")
    return str(record[name])
