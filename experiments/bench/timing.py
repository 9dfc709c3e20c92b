"""How well latencies repeat: the same files measured again, by the median of all samples and of undisturbed ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.harness import QUICK, measure_models
from nas.profiling import neutral_model
from nas.spec import build_network

NETWORKS, REPEATS = 12, 6
_SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Row:
    """One line of the table: of how networks' repeated latencies differ from their own median.

    Args:
        typical: the median deviation.
        worst: the largest one.
        kept: the share of samples that the statistic looks at.
    """

    name: str
    typical: float
    worst: float
    kept: float

    def __str__(self) -> str:
        return f"{self.name:<24} typical {self.typical:6.1%}   worst {self.worst:6.1%}   samples kept {self.kept:4.0%}"


def bench() -> tuple[Row, ...]:
    """Measures random networks of the preset `tiny` again and again, each time in a turn of its own."""
    network, space = build_network("mbconv", _SHAPE, 10)
    tracer = BlockTracer(network, _SHAPE)
    archs = map(space.row, space.sample(NETWORKS, np.random.default_rng(0)))
    models = [neutral_model(network, tracer, arch, ("fp32",), _SHAPE).SerializeToString() for arch in archs]
    device = parse_device("cpu")
    turns = [[measure_models([m], device, QUICK)[0] for m in models] for _ in range(REPEATS)]
    kept = [len(m.undisturbed.samples_s) / len(m.timing.samples_s) for turn in turns for m in turn]
    everything = np.array([[m.timing.median_s for m in turn] for turn in turns])
    undisturbed = np.array([[m.undisturbed.median_s for m in turn] for turn in turns])
    assert (undisturbed <= 1.001 * everything).all()  # a lower quantile of the same samples
    return _row("all samples", everything, 1.0), _row("undisturbed samples", undisturbed, float(np.mean(kept)))


def _row(name: str, seconds: np.ndarray, kept: float) -> Row:
    deviation = np.abs(seconds / np.median(seconds, axis=0) - 1)
    return Row(name, float(np.median(deviation)), float(deviation.max()), kept)
