"""Problems of many layers for tests of allocation."""

import numpy as np

from quant_search.allocate import problem_of


def many_layers(n, seed=0, options=6):
    """Layers whose options trade damage for cost, at random; the budget is a little below half of what is of use."""
    rng = np.random.default_rng(seed)
    names = [f"o{i}" for i in range(options)]
    damage = {f"l{i}": dict(zip(names, np.sort(rng.lognormal(0, 2, options)).tolist(), strict=True)) for i in range(n)}
    cost = {f"l{i}": dict(zip(names, np.sort(rng.random(options))[::-1].tolist(), strict=True)) for i in range(n)}
    return problem_of(damage, {"cost": cost}, {"cost": 0.45 * n})
