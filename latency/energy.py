"""Energy of calls, read from the counters that the CPU keeps of its packages (RAPL).

What is counted is all that the packages take, also while others compute or nobody does: leave the machine alone, and
compare like with like.  Linux offers the counters of Intel's and AMD's CPUs under one name; most virtual machines hide
them.  Source: Linux, Documentation/power/powercap; counters move about once a millisecond (Hähnel et al., "Measuring
energy consumption for short code paths using RAPL", 2012), so that many calls are read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latency.clock import SYSTEM_CLOCK, Clock
from latency.timing import Call

POWERCAP = Path("/sys/class/powercap")
SHORTEST_S = 1.0  # a thousand steps of the counter

_MOST_CALLS = 10**8


@dataclass(frozen=True)
class Energy:
    """What calls took.

    Args:
        joules: of the packages, all calls together.
        seconds: wall time of all calls together.
    """

    joules: float
    seconds: float
    calls: int

    @property
    def joules_per_call(self) -> float:
        """Of the packages, also what they would have taken idle."""
        return self.joules / self.calls

    @property
    def watts(self) -> float:
        """The mean power of the packages."""
        return self.joules / self.seconds


@dataclass(frozen=True)
class Counter:
    """The energy counter of one package.

    Args:
        file: holds microjoules, and starts again at 0 beyond `range_uj`.
    """

    file: Path
    range_uj: int

    def read_uj(self) -> int:
        """The counter now, in microjoules.

        Raises:
            PermissionError: it may not be read, with what to do.
            ValueError: the file holds no number.
        """
        return _number(self.file)

    def between_uj(self, before: int, after: int) -> int:
        """Microjoules from one reading to a later one, with at most one new start in between."""
        return after - before if after >= before else after - before + self.range_uj + 1


def find_counters(folder: Path = POWERCAP) -> tuple[Counter, ...]:
    """The counters of all packages, tried once.

    Args:
        folder: of the kernel's powercap zones; zones inside a package and of the whole platform are not taken.

    Raises:
        FileNotFoundError: there are none.
        PermissionError: they may not be read, with what to do.
        ValueError: a file that holds no number.
    """
    zones = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
    packages = [z for z in zones if _text(z / "name").startswith("package")]
    if not packages:
        raise FileNotFoundError(
            f"no energy counters: {folder} has no package of intel-rapl; virtual machines hide them, and on a machine "
            f"of your own the kernel's module intel_rapl_msr must be loaded (sudo modprobe intel_rapl_msr)"
        )
    counters = tuple(Counter(z / "energy_uj", _number(z / "max_energy_range_uj")) for z in packages)
    for counter in counters:
        counter.read_uj()
    return counters


def measure_energy(
    call: Call, counters: tuple[Counter, ...], at_least_s: float = SHORTEST_S, clock: Clock = SYSTEM_CLOCK
) -> Energy:
    """The energy of calls one after the other, as many as fill `at_least_s`, after one that is not counted.

    Args:
        at_least_s: shorter than a counter takes to start again twice: minutes are safe.

    Raises:
        ValueError: no counters, a time that is not positive, or a file that holds no number.
        PermissionError: a counter may not be read.
    """
    if not counters or not at_least_s > 0:
        raise ValueError(f"energy needs counters and a positive time, got {len(counters)} and {at_least_s} s")
    call()
    before, start, calls, now = [c.read_uj() for c in counters], clock.wall(), 0, -1.0
    while calls < _MOST_CALLS and now - start < at_least_s:
        call()
        calls, now = calls + 1, clock.wall()
    used = sum(c.between_uj(b, c.read_uj()) for c, b in zip(counters, before, strict=True))
    return Energy(used * 1e-6, now - start, calls)


def _number(file: Path) -> int:
    text = _text(file)
    if not text.isdecimal():
        raise ValueError(f"{file} must hold a whole number, got {text!r}")
    return int(text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError as error:
        allow = f"sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj (until the next start)"
        raise PermissionError(f"the energy counter {file} may be read by the administrator only: {allow}") from error
