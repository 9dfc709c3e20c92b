"""Damages taken by running: one quantized file for each group and option, in ONNX Runtime, on the same images.

Files are those that the subject builds; unless it says how, ranges of activations are taken once, and weights rounded
to the nearest.  Outputs in fp32 are taken once; of a file only its outputs are kept.  The time is that of groups x
options x images calls in int8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from latency.device import Device
from latency.runtimes.opening import open_session
from quant_search.precision import parse_precision
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions
from quant_search.sensitivity.subject import Build, Progress, Sensitivity, Subject

Score = Callable[[np.ndarray, np.ndarray], float]
"""The damage of outputs (n, classes), given those in fp32; 0 where both are the same."""

Direction = Literal["one", "all-but-one"]
_BATCH = 64


def by_running(
    measure: str,
    subject: Subject,
    score: Score,
    direction: Direction = "one",
    progress: Progress | None = None,
    threads: int = 1,
) -> Sensitivity:
    """The damage of each option to each group, by the outputs of files in which they are realised.

    Args:
        direction: with `one`, a group alone has the option and all others are in fp32; with `all-but-one` every
            group that has the option has it but this one, and the damage is what is won: score(all) - score(all but
            this one).

    Raises:
        ValueError: an unknown direction, or a model that ONNX Runtime does not run.
    """
    if direction not in ("one", "all-but-one"):
        raise ValueError(f"direction is 'one' or 'all-but-one', got {direction!r}")
    start, files = time.perf_counter(), _Files(subject, score, threads)
    damage = subject.table(files.alone if direction == "one" else files.won_without, progress)
    return Sensitivity(measure, tuple(subject.groups), subject.every_option, damage, time.perf_counter() - start)


def to_the_nearest(subject: Subject, threads: int = 1) -> Build:
    """What builds files of a subject, with the smallest and largest values of activations on its images as ranges.

    Raises:
        ValueError: a model that ONNX Runtime does not run.
    """
    every = [
        name
        for group, options in subject.of_group.items()
        if any(parse_precision(option).activation_bits for option in options)
        for name in subject.groups[group]
    ]
    ranges = activation_ranges(subject.model, subject.images, nodes=every, threads=threads)
    return lambda chosen: in_precisions(subject.model, subject.groups, chosen, ranges)


class _Files:
    """Scores of quantized files of a subject."""

    def __init__(self, subject: Subject, score: Score, threads: int) -> None:
        self._subject, self._score = subject, score
        self._device = Device("cpu", "cpu", threads, "onnxruntime")
        self._build = subject.build or to_the_nearest(subject, threads)
        self._fp32 = self._outputs(subject.model.SerializeToString())
        self._of_all: dict[str, float] = {}

    def alone(self, group: str, option: str) -> float:
        """The score where one group has an option."""
        return self._of({group: option})

    def won_without(self, group: str, option: str) -> float:
        """By how much the score of `option` everywhere falls where `group` stays in fp32."""
        every = {name: option for name, own in self._subject.of_group.items() if option in own}
        if option not in self._of_all:
            self._of_all[option] = self._of(every)
        return self._of_all[option] - self._of({name: option for name in every if name != group})

    def _of(self, chosen: Mapping[str, str]) -> float:
        if all(parse_precision(option).weight_bits is None for option in chosen.values()):
            return 0.0
        return self._score(self._outputs(self._build(chosen).SerializeToString()), self._fp32)

    def _outputs(self, file: bytes) -> np.ndarray:
        session, x = open_session(file, self._device), self._subject.images
        step = session.fixed_batch or _BATCH
        return np.concatenate([session.run(x[i : i + step]) for i in range(0, len(x), step)])
