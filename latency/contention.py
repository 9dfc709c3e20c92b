"""Who else used the machine while something was measured: cores in use by others, and a core that was not left alone.

Cores in use come from `/proc/stat` (Linux, proc(5)) less the CPU time of this process; elsewhere from the load average.
A neighbour on the same physical core is on no list of processes: the loop of `latency/pace.py` shows it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latency.pace import Pace

_STAT = Path("/proc/stat")
_BUSY_CORES = 0.3  # what a desktop does by itself stays below
_BUSY_STEAL = 0.1
_BUSY_DISTURBED = 0.25
_DRIFTED = 0.05


@dataclass(frozen=True)
class Contention:
    """What else went on during a measurement.

    Args:
        seconds: how long it was watched for.
        other_cores: cores in use by other processes, on average; None where the system does not tell.
        stolen_cores: cores that the hypervisor gave to others, on average; None where the system does not tell.
        disturbed: the share of the pace loops that a neighbour on the same physical core slowed down.
        drift: by how much the best pace loop was slower than the best one known before; 0 where none was.
    """

    seconds: float
    other_cores: float | None
    stolen_cores: float | None
    disturbed: float
    drift: float

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Contention:
        """The value whose fields these are, as `plain` or JSON has them.

        Raises:
            KeyError: a field is missing.
            TypeError, ValueError: a field is no number.
        """
        return Contention(
            seconds=_finite(fields["seconds"]),
            other_cores=None if fields["other_cores"] is None else _finite(fields["other_cores"]),
            stolen_cores=None if fields["stolen_cores"] is None else _finite(fields["stolen_cores"]),
            disturbed=_finite(fields["disturbed"]),
            drift=_finite(fields["drift"]),
        )

    @staticmethod
    def together(parts: Iterable[Contention]) -> Contention | None:
        """One value for several measurements: averages by time; None of none."""
        parts = list(dict.fromkeys(parts))  # measurements that were interleaved share one
        if not parts:
            return None
        return Contention(
            seconds=sum(part.seconds for part in parts),
            other_cores=_average([(part.other_cores, part.seconds) for part in parts]),
            stolen_cores=_average([(part.stolen_cores, part.seconds) for part in parts]),
            disturbed=_average([(part.disturbed, part.seconds) for part in parts]) or 0.0,
            drift=_average([(part.drift, part.seconds) for part in parts]) or 0.0,
        )

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @property
    def others_busy(self) -> bool:
        """Whether other processes or other machines had a noticeable part of the CPU."""
        return (self.other_cores or 0) >= _BUSY_CORES or (self.stolen_cores or 0) >= _BUSY_STEAL

    @property
    def warning(self) -> str | None:
        """One line on what was going on, or None where the machine was quiet."""
        found = []
        if (self.other_cores or 0) >= _BUSY_CORES:
            found.append(f"{self.other_cores:.1f} other cores in use")
        if (self.stolen_cores or 0) >= _BUSY_STEAL:
            found.append(f"{self.stolen_cores:.1f} cores taken by the hypervisor")
        if self.disturbed >= _BUSY_DISTURBED:
            found.append(f"{100 * self.disturbed:.0f} % of looks found a neighbour on the same core")
        if self.drift >= _DRIFTED:
            found.append(f"{100 * self.drift:.0f} % slower than at its best")
        return f"the machine was busy: {', '.join(found)}" if found else None


class Watch:
    """Watches the machine from its making until `reading` is asked for, in the process that measures."""

    def __init__(self, pace: Pace, stat: Path = _STAT) -> None:
        self._pace, self._stat = pace, stat
        self._pace_before = pace.counts
        self._best_before_s = pace.watch_best()
        self._before = _Reading.now(stat)

    def reading(self) -> Contention:
        """What went on so far."""
        before, after = self._before, _Reading.now(self._stat)
        seconds = max(after.wall_s - before.wall_s, 1e-9)
        own = (after.own_s - before.own_s) / seconds
        other: float | None = None
        stolen: float | None = None
        if before.busy_s is not None and after.busy_s is not None:
            other = max(0.0, (after.busy_s - before.busy_s) / seconds - own)
        elif after.load is not None:
            other = max(0.0, after.load - own)
        if before.stolen_s is not None and after.stolen_s is not None:
            stolen = max(0.0, (after.stolen_s - before.stolen_s) / seconds)
        loops, disturbed = (now - then for now, then in zip(self._pace.counts, self._pace_before, strict=True))
        return Contention(seconds, other, stolen, disturbed / loops if loops else 0.0, self._drift())

    def _drift(self) -> float:
        best_s = self._pace.watched_best_s
        if not (0 < self._best_before_s < math.inf and best_s < math.inf):
            return 0.0
        return max(0.0, best_s / self._best_before_s - 1)


@dataclass(frozen=True)
class _Reading:
    """Counters at one moment: seconds of all cores since the system began, and of this process."""

    wall_s: float
    own_s: float
    busy_s: float | None
    stolen_s: float | None
    load: float | None

    @staticmethod
    def now(stat: Path) -> _Reading:
        own = os.times()
        busy_s, stolen_s = read_stat(stat)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        own_s = own.user + own.system + own.children_user + own.children_system
        return _Reading(time.perf_counter(), own_s, busy_s, stolen_s, load)


def read_stat(file: Path) -> tuple[float | None, float | None]:
    """Seconds that all cores were busy, and that the hypervisor took from them; None and None where it is not told.

    The first line is `cpu user nice system idle iowait irq softirq steal guest guest_nice`, in clock ticks; guests'
    time is in user's already.
    """
    try:
        fields = file.read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None, None
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"contention is in finite numbers, got {number}")
    return number


def _average(values: list[tuple[float | None, float]]) -> float | None:
    known = [(value, seconds) for value, seconds in values if value is not None]
    total_s = sum(seconds for _, seconds in known)
    return sum(value * seconds for value, seconds in known) / total_s if total_s else None
