"""Timing of calls: samples, their spread, and bootstrap intervals.

A sample is the mean of enough calls for the clock to resolve; several subjects are timed in rounds of
alternating order with fresh sessions, so that drift and luck of a session are inside the interval.
Source: the hierarchical bootstrap of Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time" (ISMM 2013).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latency.clock import SYSTEM_CLOCK, Clock
from latency.pace import Pace

Call = Callable[[], object]

SHORTEST_SAMPLE_S = 50e-6

_RESOLUTIONS_PER_SAMPLE = 100
_DISTURBED = 1.1  # a sample this much slower than the fastest one shared the machine with somebody
_RESCUE_S = 2.0  # for how long a subject without them waits, whatever the allowance
_WINDOW = 3  # samples in a warm-up window
_MOST_WINDOWS = 20
_STEADY = 0.02  # by which a window must be faster than the one before for the warm-up to go on
_MOST_DOUBLINGS = 30
_READINGS = 2000
_RESAMPLES = 1000
_DRAWN_AT_ONCE = 2**20  # numbers in memory, some 30 MB, however many samples there are


@dataclass(frozen=True)
class Timing:
    """What was timed, with every sample.

    Args:
        samples_s: wall seconds per call, one number a sample (n of them).
        calls_per_sample: the calls that each sample is the mean of.
        cpu_samples_s: CPU seconds per call of the calling thread alone (n).
        groups: samples in each round, in order; they sum to n.
        quiet: whether the core was left to the subject when each sample began (n); empty where nobody looked.

    Raises:
        ValueError: no samples, lengths that do not fit, or a time that is not finite and positive.
    """

    samples_s: tuple[float, ...]
    calls_per_sample: int
    cpu_samples_s: tuple[float, ...]
    groups: tuple[int, ...]
    quiet: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.samples_s)
        if n == 0 or len(self.cpu_samples_s) != n or sum(self.groups) != n or min(self.groups) < 1:
            got = f"{n} wall samples, {len(self.cpu_samples_s)} CPU samples and groups {self.groups}"
            raise ValueError(f"a timing needs samples, as many wall as CPU ones, in groups that sum to them: got {got}")
        if len(self.quiet) not in (0, n):
            raise ValueError(f"quiet must say of all {n} samples or of none, got {len(self.quiet)}")
        if self.calls_per_sample < 1:
            raise ValueError(f"calls_per_sample must be at least 1, got {self.calls_per_sample}")
        for t in self.samples_s:
            if not 0 < t < math.inf:
                raise ValueError(f"samples_s must be finite and positive, got {t}")
        for t in self.cpu_samples_s:
            if not 0 <= t < math.inf:  # 0 where the thread only waits
                raise ValueError(f"cpu_samples_s must be finite and not negative, got {t}")

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Timing:
        """The timing whose fields these are, as `dataclasses.asdict` or JSON has them.

        Raises:
            KeyError: a field is missing.
            TypeError, ValueError: a field is no number or list of numbers, or they do not fit.
        """
        return Timing(
            samples_s=tuple(map(float, fields["samples_s"])),
            calls_per_sample=int(fields["calls_per_sample"]),
            cpu_samples_s=tuple(map(float, fields["cpu_samples_s"])),
            groups=tuple(map(int, fields["groups"])),
            quiet=tuple(map(bool, fields.get("quiet", ()))),
        )

    @property
    def median_s(self) -> float:
        """The median wall time of one call."""
        return statistics.median(self.samples_s)

    @property
    def cpu_median_s(self) -> float:
        """The median CPU time of one call on the calling thread."""
        return statistics.median(self.cpu_samples_s)

    @property
    def p10_s(self) -> float:
        """The wall time of one call that a tenth of the samples stays below."""
        return self.quantile(0.1)

    @property
    def p90_s(self) -> float:
        """The wall time of one call that nine tenths of the samples stay below."""
        return self.quantile(0.9)

    @property
    def p99_s(self) -> float:
        """The wall time of one call that 99 of 100 samples stay below."""
        return self.quantile(0.99)

    @property
    def spread(self) -> float:
        """(p90 - p10) / median of the wall samples."""
        return (self.p90_s - self.p10_s) / self.median_s

    def quantile(self, p: float) -> float:
        """The wall time that a share `p` of the samples stays below, interpolated linearly.

        Raises:
            ValueError: `p` outside 0 to 1.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"a quantile is asked for with p from 0 to 1, got {p}")
        return float(np.quantile(self.samples_s, p))

    def undisturbed_in_rounds(self) -> list[list[int]]:
        """For each round the positions of its samples that are within a tenth of the fastest of all.

        Of many samples the third fastest counts as that, so that a single lucky one decides nothing.
        """
        fastest = sorted(self.samples_s)[_fastest(np.array(len(self.samples_s)))]
        limit, ends = _DISTURBED * fastest, itertools.accumulate(self.groups)
        return [
            [i for i in range(end - size, end) if self.samples_s[i] <= limit]
            for end, size in zip(ends, self.groups, strict=True)
        ]

    def undisturbed(self) -> Timing:
        """The samples within a tenth of the fastest: what the subject takes when it is left alone.

        Sessions that are slower throughout, by luck of their memory, go with the disturbed ones.

        What others on the machine add says something of them, and nothing of the subject: it is positive, comes
        and goes, and does not repeat (Chen and Revels, "Robust benchmarking in noisy environments",
        arXiv:1608.04295).
        """
        rounds = self.undisturbed_in_rounds()
        kept = [i for inside in rounds for i in inside]
        return Timing(
            samples_s=tuple(self.samples_s[i] for i in kept),
            calls_per_sample=self.calls_per_sample,
            cpu_samples_s=tuple(self.cpu_samples_s[i] for i in kept),
            groups=tuple(len(inside) for inside in rounds if inside),
            quiet=tuple(self.quiet[i] for i in kept) if self.quiet else (),
        )

    @property
    def quiet_rounds(self) -> int:
        """Rounds of which half the samples at least began with the core left to them, and are near the fastest."""
        quiet = self.quiet or (True,) * len(self.samples_s)
        rounds = zip(self.undisturbed_in_rounds(), self.groups, strict=True)
        return sum(2 * sum(quiet[i] for i in near) >= size for near, size in rounds)

    @property
    def doubtful(self) -> bool:
        """Whether hardly any sample had the core left to it, so that the whole may be twice too slow."""
        if not self.quiet:
            return False
        quiet = sum(self.quiet[i] for inside in self.undisturbed_in_rounds() for i in inside)
        return quiet <= int(_fastest(np.array(len(self.quiet))))

    def is_better_than(self, other: Timing) -> bool:
        """Whether of two timings of one subject this is the one to keep: the faster, since what others add is positive.

        One that is not doubtful is kept beside a doubtful one that is no more than a tenth faster: both say the same.
        """
        mine, others = self.undisturbed().median_s, other.undisturbed().median_s
        if self.doubtful == other.doubtful:
            return mine < others
        sure, unsure = (mine, others) if other.doubtful else (others, mine)
        return (sure <= _DISTURBED * unsure) == other.doubtful

    def ci95_s(self, seed: int = 0, *, undisturbed: bool = False) -> tuple[float, float]:
        """The ends of the bootstrap 95 % interval of the median; groups are drawn first, then samples inside them.

        Args:
            undisturbed: of the median of undisturbed samples, which are chosen anew of every draw.
        """
        medians = bootstrap_medians(self, np.random.default_rng(seed), undisturbed)
        low, high = np.quantile(medians, (0.025, 0.975))
        return float(low), float(high)


def _fastest(n: np.ndarray) -> np.ndarray:
    """The position among n sorted samples of the one that counts as the fastest."""
    position: np.ndarray = np.minimum(2, n // 10)
    return position


def bootstrap_medians(timing: Timing, rng: np.random.Generator, undisturbed: bool = False) -> np.ndarray:
    """Medians of resampled wall times (1000,): groups with replacement, then samples inside each.

    Args:
        undisturbed: of the samples within a tenth of the fastest alone, which are chosen anew of every draw.

    Groups of unequal size are padded with infinity, which sorting puts behind every sample.
    """
    samples, sizes = np.array(timing.samples_s), np.array(timing.groups)
    starts = np.cumsum(sizes) - sizes
    groups = rng.integers(len(sizes), size=(_RESAMPLES, len(sizes)))
    rows_at_once = max(1, _DRAWN_AT_ONCE // (len(sizes) * int(sizes.max())))
    parts = []
    for part in np.split(groups, range(rows_at_once, _RESAMPLES, rows_at_once)):
        start, size = starts[part][:, :, None], sizes[part][:, :, None]
        inside = (rng.random((*part.shape, sizes.max())) * size).astype(np.intp)
        drawn = np.where(np.arange(sizes.max()) < size, samples[start + inside], np.inf)
        drawn = np.sort(drawn.reshape(len(part), -1), axis=1)
        n, rows = size.sum(axis=(1, 2)), np.arange(len(part))
        if undisturbed:
            n = (drawn <= _DISTURBED * drawn[rows, _fastest(n)][:, None]).sum(axis=1)
        parts.append((drawn[rows, (n - 1) // 2] + drawn[rows, n // 2]) / 2)
    return np.concatenate(parts)


def resolution_s(clock: Clock = SYSTEM_CLOCK) -> float:
    """The smallest step seen between successive wall readings; 0 where no two readings differed."""
    readings = [clock.wall() for _ in range(_READINGS)]
    return min((after - before for before, after in itertools.pairwise(readings) if after > before), default=0.0)


def measure_interleaved(
    openers: Sequence[Callable[[], Call]],
    *,
    rounds: int = 10,
    most_rounds: int | None = None,
    samples_per_round: int = 10,
    clock: Clock = SYSTEM_CLOCK,
    warm_up_s: float = 0.25,
    shortest_sample_s: float = SHORTEST_SAMPLE_S,
    pace: Pace | None = None,
    patience_s: float = 0.25,
    on_round: Callable[[], object] = lambda: None,
) -> list[Timing]:
    """Times several subjects in one process, a timing each, in the order of `openers`.

    Every round opens each subject anew, warms it up for at most about `warm_up_s` and takes a few samples; even
    rounds go forward through the subjects, odd ones backward.  A round is a group of the timing.  Each sample waits
    until the core is left to this thread: such moments may be as short as a millisecond.  It has as many calls as it
    takes to last `shortest_sample_s` and 100 steps of the clock.  A subject that found hardly any such moment is given
    a last round that waits for longer, whatever the allowance of `pace`.

    Args:
        openers: each opens a fresh session of its subject and returns the call to be timed.
        most_rounds: further rounds are given to each subject that has fewer than `rounds` undisturbed ones,
            up to this many in all and while `pace` has patience; by default none.
        pace: says when the core is left to this thread; by default one that begins to learn now.
        patience_s: for how long the samples of a round wait for that, together, before they go ahead anyway.
        on_round: called after each round.

    Raises:
        ValueError: no round or no sample asked for, fewer rounds at most than at least, or a clock that stands still.
    """
    most_rounds = rounds if most_rounds is None else most_rounds
    if rounds < 1 or samples_per_round < 1 or most_rounds < rounds:
        got = f"{rounds}, {most_rounds} and {samples_per_round}"
        raise ValueError(f"rounds, most_rounds and samples_per_round must be at least 1 and in order, got {got}")
    shortest_s = _shortest_s(clock, shortest_sample_s)
    pace = pace or Pace(clock)
    records: dict[int, _Record] = {}
    subjects = range(len(openers))

    def take_round(subject: int, patience_s: float, insist: bool = False) -> None:
        call = openers[subject]()  # the session ends on return, before the next one opens
        known = records[subject].calls if subject in records else None
        record = records.setdefault(subject, _Record(_prepare(call, known, clock, shortest_s, warm_up_s)))
        record.take_round(call, samples_per_round, clock, pace, patience_s, insist)

    with pace.measuring():
        for i in range(most_rounds):
            left = [s for s in subjects if i < rounds or records[s].timing().quiet_rounds < rounds]
            if i >= rounds and (not left or pace.patience_left_s <= 0):
                break
            begun_s = clock.wall()
            for subject in left if i % 2 == 0 else reversed(left):
                take_round(subject, patience_s)
            if i >= rounds:
                pace.spend(clock.wall() - begun_s)
            on_round()
        if doubtful := [subject for subject in subjects if records[subject].timing().doubtful]:
            for subject in doubtful:
                take_round(subject, _RESCUE_S, insist=True)
            on_round()
    return [records[subject].timing() for subject in subjects]


@dataclass
class _Record:
    """Samples of one subject as they come in."""

    calls: int
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    quiet: list[bool] = field(default_factory=list)  # whether each sample began undisturbed

    def take_round(
        self, call: Call, samples: int, clock: Clock, pace: Pace, patience_s: float, insist: bool = False
    ) -> None:
        """Takes a group of samples, each when the core is free or the patience of them all is at its end."""
        for _ in range(samples):
            before_s = clock.wall()
            self.quiet.append(pace.wait(patience_s, insist))
            patience_s -= clock.wall() - before_s
            call()  # waiting has cooled the caches
            self.take(call, clock)
        self.close_group()

    def take(self, call: Call, clock: Clock) -> None:
        wall, cpu = _sample(call, self.calls, clock)
        self.wall_s.append(wall)
        self.cpu_s.append(cpu)

    def close_group(self) -> None:
        self.groups.append(len(self.wall_s) - sum(self.groups))

    def timing(self) -> Timing:
        return Timing(tuple(self.wall_s), self.calls, tuple(self.cpu_s), tuple(self.groups), tuple(self.quiet))


def _sample(call: Call, calls: int, clock: Clock) -> tuple[float, float]:
    """Wall and CPU seconds per call; the CPU clock, a system call, is read outside the wall time."""
    cpu = clock.cpu()
    start = clock.wall()
    for _ in itertools.repeat(None, calls):
        call()
    end = clock.wall()
    return (end - start) / calls, (clock.cpu() - cpu) / calls


def _shortest_s(clock: Clock, shortest_sample_s: float) -> float:
    return max(shortest_sample_s, _RESOLUTIONS_PER_SAMPLE * resolution_s(clock))


def _prepare(call: Call, calls: int | None, clock: Clock, shortest_s: float, limit_s: float) -> int:
    """Warms `call` up; the calls per sample: `calls` where known, else found from the warm time of a call."""
    if calls is not None:
        _warm_up(call, calls, clock, limit_s)
        return calls
    warm_s = _warm_up(call, _lasting_calls(call, clock, shortest_s), clock, limit_s)
    # Warm, a call may be too short for the clock to see.
    return max(1, math.ceil(shortest_s / warm_s)) if warm_s else _lasting_calls(call, clock, shortest_s)


def _lasting_calls(call: Call, clock: Clock, shortest_s: float) -> int:
    """The first power of two of calls that lasts `shortest_s`."""
    for doubling in range(_MOST_DOUBLINGS):
        calls = 2**doubling
        if _sample(call, calls, clock)[0] * calls >= shortest_s:
            return calls
    raise ValueError(f"the clock stands still: 2^{_MOST_DOUBLINGS - 1} calls took less than {shortest_s} s")


def _warm_up(call: Call, calls: int, clock: Clock, limit_s: float) -> float:
    """Samples in windows until one is no more than 2 % faster than the one before; its median, seconds per call.

    Slower ones end the warm-up too: a disturbance is no warming, and waiting for it to pass is left to rounds.
    """
    start, before, median = clock.wall(), math.inf, math.inf
    for _ in range(_MOST_WINDOWS):
        before, median = median, statistics.median(_sample(call, calls, clock)[0] for _ in range(_WINDOW))
        if (before < math.inf and median >= (1 - _STEADY) * before) or clock.wall() - start >= limit_s:
            break
    return median
