"""APQ's predictor of quantized accuracy: a network that has learnt full precision, and then sees the policy as well.

Wang et al., "APQ: joint search for network architecture, pruning and quantization policy" (arXiv:2006.08509, section
3.2): fully connected layers are trained on the accuracies of many architectures in full precision; their input is made
longer by the policy, one-hot, with weights that start at zero, so that at first they say of any policy what they say of
full precision; and all layers are trained on from there on few quantized networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predictors.committee import joined, left_out_folds, noise_of
from predictors.drop import Policies
from predictors.mlp import deviation_or_one, forward
from predictors.mlp_training import Layers, new_layers, train
from predictors.option_features import OptionFeatures, option_features
from predictors.protocol import Prediction
from predictors.training import training_order
from predictors.warp import Warp, fit_warp, winsorised
from search_spaces.space import SearchSpace


@dataclass(frozen=True, eq=False)
class QuantizedMLP:
    """Fitted networks.

    Args:
        center, scale: of the architectures' features (f,).
        layers: from those and the lowered bits (f + p) to a score, of each member.
        noise: the variance of one observation that the members' disagreement does not explain.
    """

    policies: Policies
    features: OptionFeatures
    center: np.ndarray
    scale: np.ndarray
    layers: Layers
    warp: Warp
    noise: float

    def predict(self, population: np.ndarray) -> Prediction:
        """The metric of each row of a canonical population (n, d)."""
        x = inputs(self.policies, self.features, self.center, self.scale, population)
        return self.warp.unwarp(joined(forward(self.layers, x).astype(float), self.noise))


def inputs(
    policies: Policies, features: OptionFeatures, center: np.ndarray, scale: np.ndarray, population: np.ndarray
) -> np.ndarray:
    """Standardised features in full precision beside the bits that are lowered (n, f + p)."""
    plain = (features(policies.plain(population)) - center) / scale
    return np.column_stack([plain, policies.lowered(population)]).astype(np.float32)


def fit_quantized_mlp(
    space: SearchSpace,
    columns: Sequence[int],
    population: np.ndarray,
    targets: np.ndarray,
    seed: int,
    members: int = 8,
    width: int = 64,
    steps: int = 200,
) -> QuantizedMLP:
    """Fits `targets` (n,) of a canonical population (n, d): rows in full precision first, then the others alone.

    Time is as of `fit_mlp`, twice.  Without rows of one of the two kinds, that step is left out.

    Args:
        columns: the choices of policies, with options from few bits to many.

    Raises:
        ValueError: as `training_order` and `Policies`.
    """
    policies, features = Policies(space, tuple(columns)), option_features(space)
    order = training_order(population, targets)
    population, targets = np.asarray(population)[order], winsorised(np.asarray(targets, dtype=float)[order])
    known = features(policies.plain(population))
    center, scale = known.mean(axis=0), deviation_or_one(known.std(axis=0)) * np.sqrt(max(known.shape[1], 1))
    warp = fit_warp(targets)
    x, z = inputs(policies, features, center, scale, population), warp.forward(targets)
    lowered = policies.lowered(population).any(axis=1)
    rng, count = np.random.default_rng(seed), known.shape[1]
    kinds = [rows for rows in (~lowered, lowered) if rows.any()]
    folds = [left_out_folds(int(rows.sum()), members, rng) for rows in kinds]
    made = max(len(fold) for fold in folds)
    layers, noise = _extended(new_layers((count, width, width, 1), made, seed), x.shape[1] - count), 0.0
    for rows, fold in zip(kinds, folds, strict=True):
        several = fold.shape[1] > 1  # one point alone is left out by none
        # Of fewer points than members, some members leave none out.
        unseen = np.zeros((made, fold.shape[1]), dtype=bool)
        unseen[: len(fold)] = fold & several
        layers = train(layers, x[rows], z[rows][:, None], ~unseen, "squared", steps, rng)
        if several or not noise:
            noise = noise_of(forward(layers, x[rows]).astype(float)[: len(fold)], fold, z[rows])
    return QuantizedMLP(policies, features, center, scale, layers, warp, noise)


def _extended(layers: Layers, more: int) -> Layers:
    """Layers that take so many more inputs, whose weights are zero."""
    (weights, bias), *rest = layers
    members, _, width = weights.shape
    return [(np.concatenate([weights, np.zeros((members, more, width), dtype=np.float32)], axis=1), bias), *rest]
