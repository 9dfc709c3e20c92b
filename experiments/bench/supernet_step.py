"""What a sandwich step costs beside a plain training step of the largest network, and beside what its MACs demand."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nas.training import costs_of
from search_spaces.catalog import SPACES
from search_spaces.elastic import current
from search_spaces.network import extract, find_space, run
from search_spaces.space import SearchSpace
from supernet.data import Dataset
from supernet.learner import Learner
from supernet.pace import using_threads
from supernet.recipe import Recipe
from supernet.strategies.only import Only
from supernet.strategies.sandwich import Sandwich
from supernet.strategy import Strategy

BATCHES: Final = (64, 128)
SETTINGS: Final = (("tiny", 32, 12), ("mobile", 64, 6))  # preset, pixels, steps at the smaller batch; half at the other
_CLASSES, _IMAGES, _ARCHS = 10, 512, 4
_TOP = 5


@dataclass(frozen=True)
class Row:
    """One line of the table: a sandwich step (largest, smallest, two random) of one setting.

    Args:
        step_s: median seconds of a step as training takes it.
        plain_step_s: those of a step that trains the largest network alone, in plain torch layers, and all else alike.
        step_cpu_s: median seconds of the process's CPU time, which other work on the machine disturbs less.
        plain_step_cpu_s: those of the plain step.
        mac_bound: MACs of a step's architectures over those of the largest, mean over steps.
        overhead: a step's time over that of the plain step, divided by its own bound; the median over steps.
        cpu_overhead: the same by CPU time.
        control: the ratio of two arms of the plain step by CPU time, which is 1 but for noise.
        peak_bytes: the most that torch held at once in a step, beyond what it held before.
        plain_peak_bytes: that of the plain step.
        operators: of a step, those with the most time of their own, and their shares.
    """

    name: str
    batch: int
    step_s: float
    plain_step_s: float
    step_cpu_s: float
    plain_step_cpu_s: float
    mac_bound: float
    overhead: float
    cpu_overhead: float
    control: float
    peak_bytes: int
    plain_peak_bytes: int
    operators: dict[str, float]

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.operators.items())
        memory = " and ".join(f"{held / 2**20:.0f}" for held in (self.peak_bytes, self.plain_peak_bytes))
        times = f"step {self.step_cpu_s:6.3f} s   plain {self.plain_step_cpu_s:6.3f} s"
        return (
            f"{self.name:<14} batch {self.batch:<3} {times}   "
            f"MACs {self.mac_bound:.2f}x   overhead {self.cpu_overhead:.2f} (wall time {self.overhead:.2f})   "
            f"A/A {self.control:.3f}   memory {memory} MiB\n  {shares}"
        )


def bench() -> tuple[Row, ...]:
    """Times all settings on one thread in float32."""
    with using_threads(1):
        return tuple(
            _Setting(preset, side, batch).row(steps * BATCHES[0] // batch)
            for preset, side, steps in SETTINGS
            for batch in BATCHES
        )


class _Setting:
    """A supernet in training, and its largest network in training twice."""

    def __init__(self, preset: str, side: int, batch: int) -> None:
        self.name, self.batch, self.data = f"{preset}, {side} px", batch, _noise(side)
        torch.manual_seed(0)
        network = SPACES["mbconv"].build(side, 3, _CLASSES, preset)
        self.space = find_space(network)
        largest = self.space.largest()
        self.macs = costs_of(network, self.space, self.data)
        plains = [extract(network, largest) for _ in range(2)]
        _check_equal(network, plains[0], self.space, self.data)
        self.sandwich = self._learner(network, Sandwich(randoms=_ARCHS - 2))
        self.plains = [self._learner(plain, Only(largest.indices)) for plain in plains]
        self.trained: list[tuple[int, ...]] = []
        network.register_forward_pre_hook(lambda *_: self._note())

    def row(self, steps: int) -> Row:
        """Times steps of all arms in turn, in alternating order, the first of each for warming up."""
        arms = (self.sandwich, *self.plains)
        times = np.empty((len(arms), steps + 1, 2))
        for t, i in itertools.product(range(steps + 1), range(len(arms))):
            arm = i if t % 2 else len(arms) - 1 - i
            times[arm, t] = _took_s(arms[arm], t)
        bounds = self._bounds(steps + 1)[1:]
        wall, cpu = times[:, 1:, 0], times[:, 1:, 1]
        operators, peak = _profiled(self.sandwich, steps + 1)
        _, plain_peak = _profiled(self.plains[0], steps + 1)
        return Row(
            self.name,
            self.batch,
            step_s=float(np.median(wall[0])),
            plain_step_s=float(np.median(wall[1:])),
            step_cpu_s=float(np.median(cpu[0])),
            plain_step_cpu_s=float(np.median(cpu[1:])),
            mac_bound=float(bounds.mean()),
            overhead=float(np.median(wall[0] / wall[1:].mean(0) / bounds)),
            cpu_overhead=float(np.median(cpu[0] / cpu[1:].mean(0) / bounds)),
            control=float(np.median(cpu[2] / cpu[1])),
            peak_bytes=peak,
            plain_peak_bytes=plain_peak,
            operators=operators,
        )

    def _learner(self, network: nn.Module, strategy: Strategy) -> Learner:
        return Learner(network, self.space, self.data, Recipe(strategy=strategy, epochs=1, batch=self.batch), 1000)

    def _note(self) -> None:
        """Note which architecture the supernet is called as."""
        values = {choice.name: current(choice) for choice in self.space.choices}
        self.trained.append(self.space.architecture(values).indices)

    def _bounds(self, steps: int) -> np.ndarray:
        """MACs of each step's architectures over those of the largest (steps,)."""
        macs = self.macs(np.array(self.trained)).reshape(steps, _ARCHS)
        ratios: np.ndarray = macs.sum(1) / macs[:, 0]
        return ratios


def _noise(side: int) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_IMAGES, 3, side, side)).astype(np.float32)
    y = rng.integers(_CLASSES, size=_IMAGES)
    return Dataset("noise", x, y, x[:32], y[:32], x[:32], y[:32], _CLASSES, (0.0,) * 3, (1.0,) * 3, True)


def _check_equal(network: nn.Module, plain: nn.Module, space: SearchSpace, data: Dataset) -> None:
    """The supernet's largest network gives what the plain one gives, so that both arms do the same work."""
    x = torch.from_numpy(data.x_val)
    logits = run(network.train(), x, space.largest())
    torch.testing.assert_close(logits, plain.train()(x), rtol=1e-3, atol=1e-3)


def _took_s(learner: Learner, t: int) -> tuple[float, float]:
    """Seconds of a step by the clock, and of the process's CPU time."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    learner.step(t)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _profiled(learner: Learner, t: int) -> tuple[dict[str, float], int]:
    """The operators of a step with the most time of their own with their shares, and the most bytes held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        learner.step(t)
    averages = profiler.key_averages()
    own = {event.key: event.self_cpu_time_total for event in averages}
    top = sorted(own, key=lambda name: -own[name])[:_TOP]
    events = profiler.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return {name: own[name] / sum(own.values()) for name in top}, max(itertools.accumulate(changes))
