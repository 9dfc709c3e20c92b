"""Which of many candidates, whose costs are predicted, are worth a real evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.pareto import hypervolume, non_dominated, shared_box

Choose = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], list[int]]
"""From predicted costs (k, m), known costs (j, m), and n to the positions (≤ n) of the candidates to evaluate."""

_BY_VOLUME = 0.6  # of the candidates that `balanced` picks
_WEIGHED = 150  # candidates, of which the volume is computed
_NO_GAIN = 1e-9  # of the box


def balanced(costs: np.ndarray, known: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """Three of five by the hypervolume that they add to `known` and to each other, the others along the front.

    Volume fills the gaps and stops where nothing is to be gained; where predictions are wrong, a spread over the front
    finds it.  Neither alone is as good (`python -m experiments.sample_efficiency`).
    """
    front = np.flatnonzero(non_dominated(costs))
    if len(front) > _WEIGHED:
        front = np.sort(rng.choice(front, _WEIGHED, replace=False))
    by_volume = int(_BY_VOLUME * n + rng.random())  # rounded at random, so that single ones are of both kinds
    box = shared_box([np.concatenate([known, costs[front]])])
    gained = [i for i, gain in _by_volume(costs[front], known, by_volume, box) if gain > _NO_GAIN]
    picked: list[int] = front[gained].tolist()
    left = np.setdiff1d(np.arange(len(costs)), picked)
    return picked + left[along_front(costs[left], known, n - len(picked), rng)].tolist()


def along_front(costs: np.ndarray, _known: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """n candidates spread along the front of their predictions; then along the front of the rest, and so on.

    What has been measured does not count: the best of many noisy values is better than any honest prediction, so
    that little seems to be left to gain where most is.
    """
    picked: list[int] = []
    left = np.arange(len(costs))
    while len(picked) < n and len(left):
        on = non_dominated(costs[left])
        front = left[on]
        picked += front[spread(costs[front], n - len(picked), rng)].tolist()
        left = left[~on]
    return picked


def spread(front: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """Up to n positions of a front (k, m), spread over it.

    Of two costs, one at random in each of n stretches of as many points; of more, each the farthest from those before.
    """
    if len(front) <= n:
        return list(range(len(front)))
    if front.shape[1] == 2:
        order = np.argsort(front[:, 1], kind="stable")
        return [int(rng.choice(stretch)) for stretch in np.array_split(order, n)]
    scaled = (front - front.min(axis=0)) / np.maximum(np.ptp(front, axis=0), 1e-12)
    picked = [int(rng.integers(len(front)))]
    distance = np.linalg.norm(scaled - scaled[picked[0]], axis=1)
    while len(picked) < n:
        picked.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[picked[-1]], axis=1))
    return picked


def most_volume(costs: np.ndarray, known: np.ndarray, n: int, _rng: np.random.Generator) -> list[int]:
    """Greedily, n candidates that add most hypervolume to what is known and to each other.

    Costs are scaled to the box of all fronts first.  Candidates that add nothing come last, nearest to the front.
    """
    return [i for i, _ in _by_volume(costs, known, n, shared_box([costs, known]))]


def _by_volume(
    costs: np.ndarray, known: np.ndarray, n: int, box: tuple[np.ndarray, np.ndarray]
) -> list[tuple[int, float]]:
    """The positions (≤ n) of the candidates that add most, and how much of the box each adds."""
    ideal, reference = box
    scale = reference - ideal
    scaled, kept = (costs - ideal) / scale, list((known[non_dominated(known)] - ideal) / scale)
    corner = np.ones(costs.shape[1])
    picked: list[tuple[int, float]] = []
    left = list(range(len(costs)))
    while len(picked) < n and left:
        base = hypervolume(np.array(kept).reshape(len(kept), len(corner)), corner)
        gains = [hypervolume(np.array([*kept, scaled[i]]), corner) - base for i in left]
        # Equal gains (all zero at the end): the smallest scaled cost sum is nearest to the front.
        best = max(range(len(left)), key=lambda j: (round(gains[j], 12), -scaled[left[j]].sum()))
        kept.append(scaled[left[best]])
        picked.append((left.pop(best), gains[best]))
    return picked
