"""How many evaluations RoBoT needs to find the best network of a table, beside random order and single proxies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.proxy_tables import Task
from nas.objectives import Problem, maximize
from nas.searchers.robot import RoBoT
from search_spaces.space import INDEX, SearchSpace
from search_spaces.value import Choice

ROUNDS = 50  # weights that RoBoT tries before it turns to the order of the best ones
CHECKPOINTS = (10, 20, 50)  # evaluations at which the best accuracy is noted
_PROBLEM = Problem((maximize("accuracy"),))


@dataclass(frozen=True)
class Found:
    """How one way of ordering a table's networks does.

    Args:
        evaluations: until the best network is found, by seed.
        best: mean over seeds of the best accuracy after each of `CHECKPOINTS`.
    """

    task: str
    way: str
    evaluations: tuple[int, ...]
    best: tuple[float, ...]


def race(task: Task, seeds: Sequence[int]) -> list[Found]:
    """RoBoT, random order, and the order of the single proxy that does best in hindsight, on one task."""
    n = len(task.accuracy)
    ways = {
        "RoBoT": [_robot_order(task, seed) for seed in seeds],
        "random": [np.random.default_rng([seed, 1]).permutation(n) for seed in seeds],
    }
    orders = {name: np.argsort(-np.nan_to_num(v, nan=-np.inf), kind="stable") for name, v in task.proxies.items()}
    luckiest = min(orders, key=lambda name: _until_best(task, orders[name]))
    ways[f"best proxy, in hindsight: {luckiest}"] = [orders[luckiest]]
    ways |= {name: [orders[name]] for name in ("params", "flops")}
    return [_found(task, way, found) for way, found in ways.items()]


def _robot_order(task: Task, seed: int) -> np.ndarray:
    """The places of networks in the order that RoBoT asks for them, up to the best one."""
    n = len(task.accuracy)
    space = SearchSpace("table", [Choice("network", tuple(range(n)))])
    searcher = RoBoT(np.arange(n, dtype=INDEX)[:, None], np.column_stack(list(task.proxies.values())), seed, ROUNDS)
    order: list[int] = []
    while len(order) < n and (len(order) < CHECKPOINTS[-1] or _until_best(task, np.array(order)) > len(order)):
        (place,) = searcher.ask(1)[0].tolist()
        order.append(place)
        accuracy = {"accuracy": float(task.accuracy[place])}
        searcher.tell([_PROBLEM.evaluation(space.row([place]), accuracy, "verified")])
    return np.array(order)


def _until_best(task: Task, order: np.ndarray) -> int:
    """Evaluations until the best network is found; more than all where it is not."""
    hits = np.flatnonzero(task.accuracy[order] == task.accuracy.max())
    return int(hits[0]) + 1 if len(hits) else len(task.accuracy) + 1


def _found(task: Task, way: str, orders: Sequence[np.ndarray]) -> Found:
    curves = [np.maximum.accumulate(task.accuracy[order]) for order in orders]
    best = tuple(float(np.mean([curve[k - 1] for curve in curves])) for k in CHECKPOINTS)
    return Found(task.name, way, tuple(_until_best(task, order) for order in orders), best)
