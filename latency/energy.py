"""Energy of calls, read from the counters that CPUs keep of their packages (RAPL) and NVIDIA's GPUs of their boards.

What is counted is all that packages or board take, also while others compute or nobody does: leave the machine alone,
and compare like with like.  Linux offers the counters of Intel's and AMD's CPUs under one name; most virtual machines
hide them.  They move about once a millisecond, those of GPUs ten times a second, so that many calls are read as one.
Source: Linux, Documentation/power/powercap; Hähnel et al., "Measuring energy consumption for short code paths using
RAPL" (2012); NVIDIA, NVML API reference; Yang et al., "Part-time power measurements" (arXiv:2312.02741).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from latency.clock import SYSTEM_CLOCK, Clock
from latency.contention import Contention, Watch
from latency.device import Device
from latency.pace import Pace
from latency.timing import Call

POWERCAP = Path("/sys/class/powercap")

_PIECE_S = {"cpu": 0.2, "gpu": 2.0}  # two hundred steps of the counter of a CPU, some twenty of a GPU's
_STEP_S = {"cpu": 0.1, "gpu": 1.0}  # within which a counter that is kept has moved
_MOST_CALLS = 10**8


class EnergyCounter(Protocol):
    """Counts up with the energy that something takes."""

    def read_uj(self) -> int:
        """The counter now, in microjoules."""
        ...

    def between_uj(self, before: int, after: int) -> int:
        """Microjoules from one reading to a later one."""
        ...


@dataclass(frozen=True)
class Energy:
    """What calls took.

    Args:
        joules: of packages or board, all calls together.
        seconds: wall time of all calls together.
    """

    joules: float
    seconds: float
    calls: int

    @property
    def joules_per_call(self) -> float:
        """Of packages or board, also what they would have taken idle."""
        return self.joules / self.calls

    @property
    def watts(self) -> float:
        """The mean power of packages or board."""
        return self.joules / self.seconds


@dataclass(frozen=True)
class EnergyMeasurement:
    """What calls of a model took, in some pieces, of which the one with least counts: what others take comes on top.

    Args:
        contention: who else used the machine meanwhile.
    """

    pieces: tuple[Energy, ...]
    contention: Contention

    @property
    def least(self) -> Energy:
        """The piece with the least energy a call."""
        return min(self.pieces, key=lambda energy: energy.joules_per_call)

    @property
    def joules_per_call(self) -> float:
        """What is reported."""
        return self.least.joules_per_call

    def plain(self) -> dict[str, Any]:
        """As JSON, with every piece."""
        return {"pieces": [asdict(piece) for piece in self.pieces], "contention": asdict(self.contention)}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> EnergyMeasurement:
        """The measurement that `plain` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        pieces = [Energy(float(p["joules"]), float(p["seconds"]), int(p["calls"])) for p in plain["pieces"]]
        return EnergyMeasurement(tuple(pieces), Contention.of(plain["contention"]))


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


@dataclass(frozen=True)
class BoardCounter:
    """The energy counter of an NVIDIA GPU, in steps of a millijoule."""

    read_mj: Callable[[], int]

    def read_uj(self) -> int:
        """The counter now, in microjoules."""
        return 1000 * self.read_mj()

    def between_uj(self, before: int, after: int) -> int:
        """Microjoules from one reading to a later one: it does not start again while the driver is loaded."""
        return after - before


def counters_of(kind: str) -> Sequence[EnergyCounter]:
    """The counters of what devices of this kind compute on: CPU packages, or the board of the GPU.

    Raises:
        ValueError: they are not there or may not be read, and what to do.
    """
    try:
        counters = (find_board(),) if kind == "gpu" else find_counters()
        _check_kept(counters, _STEP_S[kind])
    except OSError as error:
        raise ValueError(f"the energy of a call on {kind} cannot be measured: {error}") from error
    return counters


def _check_kept(counters: Sequence[EnergyCounter], within_s: float) -> None:
    """Refuses counters that stand still, as some virtual machines have them.

    Raises:
        OSError: they do.
    """
    before, end_s = [c.read_uj() for c in counters], SYSTEM_CLOCK.wall() + within_s
    while [c.read_uj() for c in counters] == before:
        if SYSTEM_CLOCK.wall() > end_s:
            raise OSError("its counters stand still, as virtual machines may have them")


def find_board() -> BoardCounter:
    """The counter of the GPU that CUDA calls number 0 here, tried once.

    Raises:
        FileNotFoundError: there is none, or what reads it is not installed; with what to do.
    """
    try:
        import pynvml
    except ImportError as error:
        raise FileNotFoundError("the package nvidia-ml-py is not installed: pip install nvidia-ml-py") from error
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if visible.isdecimal():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(visible)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        raise FileNotFoundError(
            f"no energy counter of GPU {visible!r} ({error}): NVIDIA's driver and a GPU from Volta on keep one, "
            "parts of a GPU (MIG) do not"
        ) from error
    return BoardCounter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))


def find_counters(folder: Path | None = None) -> tuple[Counter, ...]:
    """The counters of all packages, tried once.

    Args:
        folder: of the kernel's powercap zones, by default `POWERCAP`; those inside a package and of the whole platform
            are not taken.

    Raises:
        FileNotFoundError: there are none.
        PermissionError: they may not be read, with what to do.
        ValueError: a file that holds no number.
    """
    folder = folder or POWERCAP
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


def energy_of(call: Call, device: Device, pieces: int, pace: Pace, clock: Clock = SYSTEM_CLOCK) -> EnergyMeasurement:
    """The energy of calls on `device`, measured in so many pieces.

    Raises:
        ValueError: as of `counters_of`.
    """
    counters, watch = counters_of(device.kind), Watch(pace)
    found = [measure_energy(call, counters, _PIECE_S[device.kind], clock) for _ in range(pieces)]
    return EnergyMeasurement(tuple(found), watch.reading())


def measure_energy(
    call: Call, counters: Sequence[EnergyCounter], at_least_s: float, clock: Clock = SYSTEM_CLOCK
) -> Energy:
    """The energy of calls one after the other, as many as fill `at_least_s`, after one that is not counted.

    Args:
        at_least_s: shorter than a counter takes to start again twice: minutes are safe.

    Raises:
        ValueError: no counters, a time that is not positive, a file that holds no number, or counters that stand still.
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
    if not used > 0:
        raise ValueError(f"the energy counters stood still for {now - start:.1f} s: measure again")
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
