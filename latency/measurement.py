"""A measurement: what was timed, where, how, and every sample."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latency.contention import Contention
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
        contention: who else used the machine meanwhile; None where nobody looked.
    """

    subject: str
    device: str
    fingerprint: str
    timing: Timing
    settings: Settings = ()
    contention: Contention | None = None

    @functools.cached_property
    def undisturbed(self) -> Timing:
        """The part of the timing that is reported: samples for which the device was left to the subject."""
        return self.timing.undisturbed()

    @property
    def samples_s(self) -> tuple[float, ...]:
        """All samples, disturbed ones too: wall seconds per call, as they came."""
        return self.timing.samples_s

    @property
    def median_s(self) -> float:
        """The latency: median wall time of one call, of undisturbed samples."""
        return self.undisturbed.median_s

    @functools.cached_property
    def ci95_s(self) -> tuple[float, float]:
        """The ends of the bootstrap 95 % interval of the latency."""
        return self.timing.ci95_s(undisturbed=True)

    @property
    def p10_s(self) -> float:
        """The wall time that a tenth of all samples stays below."""
        return self.timing.p10_s

    @property
    def p90_s(self) -> float:
        """The wall time that nine tenths of all samples stay below, disturbed ones too."""
        return self.timing.p90_s

    @property
    def p99_s(self) -> float:
        """The wall time that 99 of 100 samples stay below, disturbed ones too."""
        return self.timing.p99_s

    @property
    def cpu_median_s(self) -> float:
        """The median CPU time of one call on the calling thread, of undisturbed samples."""
        return self.undisturbed.cpu_median_s

    @property
    def undisturbed_share(self) -> float:
        """The share of samples that were undisturbed."""
        return len(self.undisturbed.samples_s) / len(self.samples_s)

    @property
    def quiet_rounds(self) -> int:
        """Sessions in which the core was left to the subject; with few, the latency may be too high."""
        return self.timing.quiet_rounds

    @property
    def batch(self) -> int:
        """Images in one call."""
        return int(dict(self.settings).get("batch", 1))

    @property
    def throughput(self) -> float:
        """Images per second: the batch over the latency."""
        return self.batch / self.median_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the latency: a busy machine, or hardly a sample that was left alone."""
        found = [self.contention.warning] if self.contention and self.contention.warning else []
        found += ["the core was hardly ever left to it: the latency may be too high"] if self.timing.doubtful else []
        return tuple(found)

    def plain(self, seed: int = 0) -> dict[str, Any]:
        """What is reported of it, as JSON: without the samples."""
        reported = ("median_s", "p10_s", "p90_s", "p99_s", "cpu_median_s", "throughput", "undisturbed_share")
        return {
            **{name: getattr(self, name) for name in reported},
            "ci95_s": list(self.timing.ci95_s(seed, undisturbed=True)),
            "quiet_rounds": self.quiet_rounds,
            "contention": self.contention and self.contention.plain(),
            "warnings": list(self.warnings),
        }

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
                contention=None if record["contention"] is None else Contention.of(record["contention"]),
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
