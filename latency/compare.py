"""Whether one subject is faster than another: both timed interleaved, the first of them twice.

The second timing of the first subject is the control: it shows what the comparison can resolve.  A claim needs a
difference beyond max(3 %, 3 x what the control deviates by), and an interval that excludes that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from latency.contention import Contention
from latency.timing import Timing, bootstrap_medians

Verdict = Literal["faster", "slower", "no difference"]

LEAST_CLAIM = 0.03  # differences below it are within what a change of code layout or of room temperature makes
_CONTROLS = 3  # deviations of the control that a difference must be beyond


@dataclass(frozen=True)
class Comparison:
    """How `b` compares with `a`, by the median of undisturbed samples.

    Args:
        a, control, b: what was timed, interleaved: the first subject, that one again, and the second.
        ratio: median of `b` over the one of `a`, both of whose timings count.
        ci95: the ends of its bootstrap 95 % interval.
        verdict: what can be said of `b`.
        contention: who else used the machine meanwhile, where that was looked at.
    """

    a: Timing
    control: Timing
    b: Timing
    ratio: float
    ci95: tuple[float, float]
    verdict: Verdict
    contention: Contention | None = None

    @property
    def control_ratio(self) -> float:
        """Median of the control over that of `a`: 1, but for noise."""
        return self.control.undisturbed().median_s / self.a.undisturbed().median_s

    @property
    def resolution(self) -> float:
        """The relative difference that a claim must be beyond."""
        return _resolution(self.control_ratio)

    def plain(self) -> dict[str, Any]:
        """As JSON, without the samples."""
        return {
            "verdict": self.verdict,
            "ratio": self.ratio,
            "ci95": list(self.ci95),
            "control_ratio": self.control_ratio,
            "resolution": self.resolution,
            "contention": self.contention and self.contention.plain(),
        }


def compare(
    a: Timing, control: Timing, b: Timing, contention: Contention | None = None, *, seed: int = 0
) -> Comparison:
    """What can be said of `b` against `a`, given that `control` is `a` timed again."""
    rng = np.random.default_rng(seed)
    both = _pooled(a, control)
    ratios = bootstrap_medians(b, rng, undisturbed=True) / bootstrap_medians(both, rng, undisturbed=True)
    low, high = (float(end) for end in np.quantile(ratios, (0.025, 0.975)))
    ratio = b.undisturbed().median_s / both.undisturbed().median_s
    resolution = _resolution(control.undisturbed().median_s / a.undisturbed().median_s)
    return Comparison(a, control, b, ratio, (low, high), judge(ratio, (low, high), resolution), contention)


def is_faster(seconds: float, than_s: float) -> bool:
    """Whether one median is below another by more than what a claim needs, 3 %."""
    return than_s > seconds * (1 + LEAST_CLAIM)


def judge(ratio: float, ci95: tuple[float, float], least: float = LEAST_CLAIM) -> Verdict:
    """The claim that a ratio of times allows: beyond 1 + `least` or 1 / (1 + `least`), in an interval without 1."""
    if ci95[0] > 1 and ratio > 1 + least:
        return "slower"
    if ci95[1] < 1 and ratio < 1 / (1 + least):
        return "faster"
    return "no difference"


def _resolution(control_ratio: float) -> float:
    return max(LEAST_CLAIM, _CONTROLS * (max(control_ratio, 1 / control_ratio) - 1))


def _pooled(a: Timing, b: Timing) -> Timing:
    """Both timings of a subject as one."""
    return Timing(
        samples_s=a.samples_s + b.samples_s,
        calls_per_sample=a.calls_per_sample,  # of b it may differ; samples are seconds per call all the same
        cpu_samples_s=a.cpu_samples_s + b.cpu_samples_s,
        groups=a.groups + b.groups,
    )
