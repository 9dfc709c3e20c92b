"""An ensemble of small neural networks, trained to hit values or only to order them.

Trained by torch (`predictors/mlp_training.py`), predicting without it.  Each member leaves one fold out.  Before the
metric, of which there are few values, the networks may learn statistics that cost nothing, such as MACs and
parameters, of many architectures (Dai et al., "FBNetV3: joint architecture-recipe search using predictor pretraining",
arXiv:2006.02049, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from predictors.committee import joined, left_out_folds, noise_of
from predictors.monotone import fit_monotone
from predictors.protocol import Prediction
from predictors.training import training_order
from predictors.warp import Warp, fit_warp, winsorised

if TYPE_CHECKING:
    from predictors.mlp_training import Layers

Features = Callable[[np.ndarray], np.ndarray]
_CHUNK = 8192  # rows predicted at a time


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of many architectures at no cost: a population (n, d) and columns of numbers (n, s)."""

    population: np.ndarray
    columns: np.ndarray

    def __post_init__(self) -> None:
        if self.columns.ndim != 2 or len(self.columns) != len(self.population) or not len(self.population):
            got = f"{len(self.population)} architectures and an array of shape {self.columns.shape}"
            raise ValueError(f"statistics are columns (n, s) of n architectures, got {got}")
        if not np.isfinite(self.columns).all():
            raise ValueError("statistics must be finite, got NaN or infinity: leave such architectures out")


@dataclass(frozen=True, eq=False)
class MLP:
    """Fitted networks.

    Args:
        center, scale: of the features (f,).
        layers: weights (members, in, out) and biases (members, 1, out).
        level, spread: of each member's scores (members, 1), to bring them to one scale.
        warp: from the metric to the scale of the scores.
        noise: the variance of one observation that the members' disagreement does not explain.
    """

    features: Features
    center: np.ndarray
    scale: np.ndarray
    layers: Layers
    level: np.ndarray
    spread: np.ndarray
    warp: Warp
    noise: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a population (n, d)."""
        x = ((self.features(population) - self.center) / self.scale).astype(np.float32)
        scores = (forward(self.layers, x) - self.level) / self.spread
        return self.warp.unwarp(joined(scores, self.noise))


def fit_mlp(
    features: Features,
    population: np.ndarray,
    targets: np.ndarray,
    seed: int,
    loss: str = "squared",
    statistics: Statistics | None = None,
    members: int = 8,
    width: int = 64,
    steps: int = 200,
) -> MLP:
    """Fits the metric `targets` (n,) of a population (n, d).

    Time is O(steps members n width (f + width)) and memory O(members n width).  The losses of order add pairs, of at
    most p = 512 points drawn anew in each step: O(steps members p²) and O(members p²).

    Args:
        loss: `squared`, `hinge` (pairs in the right order, by a margin) or `kendall` (a smooth rank correlation); the
            scores of the last two are brought to the metric by an increasing map fitted to left-out points.
        statistics: learnt first, on the same features.

    Raises:
        ValueError: fewer than two points, not as many targets, a target that is not finite, or an unknown loss.
    """
    from predictors.mlp_training import LOSSES, new_layers, train  # torch is for fitting only

    if loss not in LOSSES:
        raise ValueError(f"a network is trained with the loss {', '.join(LOSSES)}, got {loss!r}")
    order = training_order(population, targets)
    population, targets = np.asarray(population)[order], winsorised(np.asarray(targets, dtype=float)[order])
    known = features(population if statistics is None else statistics.population)
    center = known.mean(axis=0)
    scale = deviation_or_one(known.std(axis=0)) * np.sqrt(max(known.shape[1], 1))
    x, warp = ((features(population) - center) / scale).astype(np.float32), fit_warp(targets)
    rng = np.random.default_rng(seed)
    left_out = left_out_folds(len(x), members, rng)
    layers = new_layers((x.shape[1], width, width, 1), len(left_out), seed)
    if statistics is not None:
        layers = [*_taught((known - center) / scale, statistics, layers, seed, steps, rng), layers[-1]]
    layers = train(layers, x, warp.forward(targets)[:, None], ~left_out, loss, steps, rng)
    level, spread = np.zeros((len(left_out), 1)), np.ones((len(left_out), 1))
    scores = forward(layers, x).astype(float)
    if loss != "squared":  # scores that only order, each member's on a scale of its own
        level, spread = scores.mean(axis=1, keepdims=True), deviation_or_one(scores.std(axis=1, keepdims=True))
        scores = (scores - level) / spread
        warp = fit_monotone(scores[left_out.argmax(axis=0), np.arange(len(x))], targets)
    noise = noise_of(scores, left_out, warp.forward(targets))
    return MLP(features, center, scale, layers, level, spread, warp, noise)


def _taught(
    x: np.ndarray, statistics: Statistics, layers: Layers, seed: int, steps: int, rng: np.random.Generator
) -> Layers:
    """All layers but the last, trained to give the standardised statistics of their architectures' features (n, f)."""
    from predictors.mlp_training import new_layers, train

    columns = statistics.columns
    size = np.maximum(np.abs(columns).max(axis=0), np.finfo(float).tiny)  # MACs are large numbers
    y = (columns - columns.mean(axis=0)) / size
    y /= deviation_or_one(y.std(axis=0))
    members, width, _ = layers[-1][0].shape
    heads = new_layers((width, y.shape[1]), members, seed + 1)
    return train([*layers[:-1], *heads], x, y, np.ones((members, len(x))), "squared", steps, rng)[:-1]


def deviation_or_one(deviation: np.ndarray) -> np.ndarray:
    """What to divide by: a deviation, and 1 where there is none."""
    return np.where(deviation > 1e-6, deviation, 1.0)


def forward(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Scores (members, n) of features (n, f)."""
    members = layers[0][0].shape[0]
    scores = np.empty((members, len(x)), dtype=np.float32)
    for start in range(0, len(x), _CHUNK):
        here = slice(start, start + _CHUNK)
        for member in range(members):
            values = x[here]
            for weights, bias in layers[:-1]:
                values = np.maximum(values @ weights[member] + bias[member], 0)
            scores[member, here] = (values @ layers[-1][0][member] + layers[-1][1][member])[:, 0]
    return scores
