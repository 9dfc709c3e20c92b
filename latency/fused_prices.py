"""Measuring the prices of fused kernels' inner loops: tiny programs, timed in pairs, which takes seconds.

The two programs of a pair differ in how often they run through a few inner loops, and so do their times.  The prices
that explain the differences best, none below zero, are kept as JSON beside the store of measurements.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from latency.device import Device, fingerprint, parse_device
from latency.fused_programs import Pair, pairs
from latency.fused_roofline import MACS_OF_DOT, FusedPrices, macs
from latency.fused_work import TERMS, TILES, Tiles, Work, work_of
from latency.kernels import build
from latency.kernels.contract import Program
from latency.kernels.lowered import lowered
from latency.kernels.native import Native, instruction_sets, open_program
from latency.peaks import write_whole
from latency.store import default_path

_DEVICE = "cpu:fused"
_SECOND_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
_METHOD = 3  # to be raised when the way of measuring changes, or the terms
_ROUNDS, _SAMPLES = 30, 2
_SAMPLE_S = 0.4e-3
_QUANTILE = 0.1  # of samples: the upper ones shared caches and clock with somebody
_REWEIGHTED, _NEAR = 10, 0.01
_SHORT_S = 20e-6  # of calls that tell what a call costs besides its steps


def prices_of(
    instruction_set: str | None = None, folder: Path | None = None, on_round: Callable[[], object] = lambda: None
) -> FusedPrices:
    """The prices of this processor's fused kernels; measured, which takes seconds, unless `folder` has them.

    Args:
        instruction_set: one of this processor; by default the best, which is what programs run in.
        folder: by default that of the user's store of measurements.
        on_round: called after each round of measuring.

    Raises:
        ValueError: this processor lacks the instruction set, or a file of prices that is damaged.
        RuntimeError: there is no C++ compiler, or it fails.
        OSError: it cannot be written.
    """
    chosen = instruction_set or instruction_sets()[0]
    place = f"{fingerprint(parse_device(_DEVICE))}-{build.library().stem}"
    file = (folder or default_path().parent) / f"prices-{place}-{chosen}-{_METHOD}.json"
    try:
        return _read(file)
    except FileNotFoundError:
        prices = measured_prices(chosen, on_round)
        write_whole(file, json.dumps(asdict(prices), indent=1))
        return prices


def prices_for(device: Device) -> FusedPrices | None:
    """The prices of a device's kernels; None for devices whose latencies have no closed form.

    Raises:
        RuntimeError, OSError: as of `prices_of`.
    """
    return prices_of() if device.runtime == "fused" and device.threads == 1 else None


def _read(file: Path) -> FusedPrices:
    try:
        return FusedPrices(**json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no prices ({error}): delete it, and they are measured again") from error


def measured_prices(instruction_set: str, on_round: Callable[[], object] = lambda: None) -> FusedPrices:
    """Measures prices anew; see `prices_of`."""
    found = list(pairs())
    programs = [program for pair in found for program in (pair.short, pair.long)]
    samples = cpu_samples(programs, instruction_set, on_round)
    return prices_from(found, samples, instruction_set, second_cache_bytes())


def cpu_samples(
    programs: Sequence[Program], instruction_set: str | None = None, on_round: Callable[[], object] = lambda: None
) -> list[np.ndarray]:
    """CPU seconds of calls of each program on one image in one thread; all take turns, in rounds.

    Thread time counts what this thread alone takes, so that nobody has to be waited for.
    """
    opened = [open_program(program, instruction_set) for program in programs]
    images = np.random.default_rng(0).standard_normal(max(native.image_size for native in opened)).astype(np.float32)
    calls = [_call(native, images) for native in opened]
    counts = [max(1, round(_SAMPLE_S / max(_timed(call, 2), 1e-9))) for call in calls]
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, count, samples in zip(calls, counts, found, strict=True):
            _timed(call, 1)  # the others have cooled the caches
            samples += [_timed(call, count) for _ in range(_SAMPLES)]
        on_round()
    return list(map(np.array, found))


def _call(native: Native, images: np.ndarray) -> Callable[[], None]:
    x, y = images[None, : native.image_size], np.empty((1, native.output_size), np.float32)
    return native.call(x, y)


def _timed(call: Callable[[], None], count: int) -> float:
    start_s = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - start_s) / count


def difference_s(short: np.ndarray, long: np.ndarray) -> float:
    """What a long program takes longer than a short one, from samples of both."""
    return float(np.quantile(long, _QUANTILE) - np.quantile(short, _QUANTILE))


def second_cache_bytes() -> int:
    """The size of a core's second cache; 0 where the system does not tell."""
    try:
        text = _SECOND_CACHE.read_text(encoding="utf-8").strip()
    except OSError:  # no Linux
        return 0
    return int(text[:-1]) * 1024 if text.endswith("K") and text[:-1].isdecimal() else 0


def prices_from(
    pairs: Sequence[Pair], samples: Sequence[np.ndarray], instruction_set: str, cache_bytes: int
) -> FusedPrices:
    """Prices from samples of the short and of the long program of each pair, one after the other (2n).

    Raises:
        ValueError: terms that no pair has.
    """
    tiles = TILES[instruction_set]
    shorts, longs = samples[::2], samples[1::2]
    works = [[_work(p, tiles, cache_bytes) for p in (pair.short, pair.long)] for pair in pairs]
    seconds = np.array([difference_s(short, long) for short, long in zip(shorts, longs, strict=True)])
    told = seconds > 0  # a long program that took less time was disturbed less
    rows = np.array([[long[term] - short[term] for term in TERMS] for short, long in works])[told]
    needed = [term for term in TERMS if term != "far" or cache_bytes]
    untold = [term for term in needed if not rows[:, list(TERMS).index(term)].any()]
    if untold:
        raise ValueError(f"no pair of programs tells the price of {', '.join(untold)}")
    prices = dict(zip(TERMS, _least_deviations(rows / seconds[told, None]).tolist(), strict=True))
    calls = [
        float(np.quantile(short, _QUANTILE)) - estimated
        for short, (work, _) in zip(shorts, works, strict=True)
        if (estimated := sum(count * prices[term] for term, count in work.items())) < _SHORT_S
    ]
    dots = [(macs(pair.long) - macs(pair.short)) / MACS_OF_DOT for pair in pairs]
    best = [long.min() - short.min() for short, long in zip(shorts, longs, strict=True)]
    least = min(t / n for t, n in zip(best, dots, strict=True) if n and t > 0)
    return FusedPrices(instruction_set, prices, float(least), max(0.0, float(np.median(calls))), cache_bytes)


def _least_deviations(rows: np.ndarray) -> np.ndarray:
    """Numbers (k,), none below zero, with which rows (n, k) are nearest to 1 in absolute value, not squared.

    A pair that was disturbed weighs little so.  By least squares with weights that are found anew a few times.
    """
    weights, found = np.ones(len(rows)), np.zeros(rows.shape[1])
    for _ in range(_REWEIGHTED):
        found, _ = nnls(rows * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(rows @ found - 1), _NEAR))
    return found


def _work(program: Program, tiles: Tiles, cache_bytes: int) -> Work:
    records, shapes = lowered(program)
    total = Work()
    for record in records:
        total.add(work_of(record, shapes, tiles, cache_bytes))
    return total
