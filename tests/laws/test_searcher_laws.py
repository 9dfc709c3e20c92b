"""Laws of searchers: over every one of them, on synthetic spaces whose best answers are known."""

import functools

import numpy as np
import pytest

from nas.objectives import Bound, Problem, cost_array, minimize
from nas.pareto import relative_hypervolume, shared_box
from nas.searchers.catalog import SEARCHERS
from nas.searchers.linas import LINAS
from nas.searchers.make import make_searcher
from nas.searchers.nsga2 import NSGA2
from nas.searchers.random_search import RandomSearch
from nas.searchers.robot import RoBoT
from nas.searchers.scaling import UniformScaling
from search_spaces.encoding import one_hot
from search_spaces.space import INDEX, Architecture, Equivalence, SearchSpace
from search_spaces.value import Choice

PROBLEM = Problem((minimize("error"), minimize("latency_s")))
PROBLEMS = {
    1: Problem((minimize("error"),)),
    2: PROBLEM,
    3: Problem((minimize("error"), minimize("latency_s"), minimize("size_bytes"))),
}
BUDGET = 60


def wide_space(d=12):
    """Far larger than any budget, with choices that only matter at some depth."""
    depth = Choice("depth", (1, 2, 3, 4))
    inner = [Choice(f"c{j}", (1, 2, 3, 4), depth.among(*range(1 + j % 4, 5))) for j in range(d - 1)]
    return SearchSpace("wide", (depth, *inner))


def flat_space(d=16):
    """Without conditions, where chance finds nothing extreme."""
    return SearchSpace("flat", [Choice(f"c{j}", (1, 2, 3, 4)) for j in range(d)])


def small_space():
    """104 architectures, some choices conditional."""
    depth = Choice("depth", (1, 2, 3))
    width = Choice("width", (8, 16, 24, 32))
    kernels = [Choice(f"kernel{i}", (3, 5, 7), depth.among(*range(i, 4))) for i in (2, 3)]
    return SearchSpace("small", (depth, width, *kernels, Choice("activation", ("relu", "swish"))))


def weights(space):
    return np.random.default_rng(5).uniform(0.5, 1.5, (3, len(space)))


def scaled(space, population):
    return population / np.maximum(space.cardinalities - 1, 1)


def exact(space):
    """The true costs of a population: error falls with every option, each time less; latency rises."""
    gain, price = weights(space)[:2]

    def model(population):
        x = scaled(space, population)
        return np.column_stack([1 + ((1 - x) ** 2) @ gain, 1 + x @ price]), np.zeros(len(population))

    return model


def fitted(space, evaluations):
    """Least squares over one-hot choices, on what was told."""
    features = one_hot(space, np.array([e.arch.indices for e in evaluations], dtype=INDEX), np.float64)
    gram = features.T @ features + 1e-3 * np.eye(features.shape[1])
    solution = np.linalg.solve(gram, features.T @ cost_array(evaluations))
    return lambda population: (one_hot(space, population, np.float64) @ solution, np.zeros(len(population)))


def from_catalog(name):
    return lambda space, seed, objectives=2: make_searcher(name, space, objectives, seed)


def pool(space):
    """The architectures that RoBoT chooses from, and three proxies: a good one, a bad one, and noise."""
    rng = np.random.default_rng(9)
    rows = np.unique(space.sample(6 * BUDGET if space.size > 1000 else 4000, rng), axis=0)
    errors = exact(space)(rows)[0][:, 0]
    return rows, np.column_stack([rng.normal(size=len(rows)) - errors, errors, rng.normal(size=len(rows))])


MAKERS = {
    **{name: from_catalog(name) for name, entry in SEARCHERS.items() if entry.maker is not None},
    "nsga2": lambda space, seed, objectives=2: NSGA2(space, objectives, seed, population=12),
    "linas": lambda space, seed, objectives=2: LINAS(
        space, lambda found: fitted(space, found), objectives, seed, initial=12, generations=8, population=20
    ),
    "scaling": lambda space, seed, objectives=2: UniformScaling(space, BUDGET),
    "robot": lambda space, seed, objectives=1: RoBoT(*pool(space), seed, rounds=BUDGET // 4),
}
LEAST = {name: entry.least_objectives for name, entry in SEARCHERS.items()} | {"scaling": 1, "robot": 1}
MOST = {name: entry.most_objectives or 3 for name, entry in SEARCHERS.items()} | {"scaling": 3, "robot": 1}
UNLEARNED = ("random", "exhaustive", "scaling")
SLOW = {  # budgets of those that take their time for each ask
    "linas": 36,
    "de": 96,
    **dict.fromkeys(("nsga3", "sms-emoa", "spea2", "ga", "es", "pso", "cma-es"), 48),
    **dict.fromkeys(("optuna-nsga2", "optuna-nsga3"), 24),
    "tpe": 18,
    "bananas": 14,  # so are the first 10 here
    "gp": 13,  # the first 10 are random
}
SEEDED = [name for name in MAKERS if name != "scaling"]
LEARNING = [name for name in MAKERS if name not in UNLEARNED]
every = pytest.mark.parametrize("name", MAKERS)
seeded = pytest.mark.parametrize("name", SEEDED)
each_number_of_objectives = pytest.mark.parametrize(
    ("name", "objectives"), [(name, m) for name in MAKERS for m in PROBLEMS if LEAST[name] <= m <= MOST[name]]
)


def made(name, space, seed, objectives=None):
    """The searcher, and the problem it is for: of two objectives, or of one where it takes no more."""
    objectives = objectives or min(2, MOST[name])
    return MAKERS[name](space, seed, objectives), PROBLEMS[objectives]


def budget_of(name):
    return SLOW.get(name, BUDGET)


def space_of(name):
    """A space that is large for the searcher."""
    return small_space() if name in ("exhaustive", "gp") else wide_space()


def to_learn(name):
    """A space, and evaluations enough for the searcher to do better in it than chance."""
    return (flat_space(6), 14) if name in ("gp", "tpe") else (flat_space(), 2 * budget_of(name))


def small_space_of(name):
    """A space that the searcher can use up in the time of a test."""
    if name not in SLOW:
        return small_space()
    depth = Choice("depth", (1, 2))
    return SearchSpace("smaller", (depth, Choice("width", (8, 16, 24), depth.among(2)), Choice("kernel", (3, 5, 7))))


def evaluate(space, rows, problem=PROBLEM):
    costs, _ = exact(space)(rows)
    sizes = 1 + scaled(space, rows) @ weights(space)[2]
    archs = [Architecture(space, tuple(row)) for row in rows.tolist()]
    return [
        problem.evaluation(arch, {"error": error, "latency_s": latency_s, "size_bytes": size}, "verified")
        for arch, (error, latency_s), size in zip(archs, costs, sizes, strict=True)
    ]


def search(searcher, space, budget=BUDGET, batch=6, problem=PROBLEM, fails=lambda row: False):
    """The asks and tells of a search, in rounds; asks that fail are not told."""
    rounds, asked = [], 0
    while asked < budget:
        rows = searcher.ask(min(batch, budget - asked))
        if not len(rows):
            break
        asked += len(rows)
        told = evaluate(space, rows[[not fails(row) for row in rows.tolist()]], problem)
        searcher.tell(told)
        rounds.append((rows, told))
    return rounds


def asked(rounds):
    return [tuple(row) for rows, _ in rounds for row in rows.tolist()]


def told(rounds):
    return [evaluation for _, found in rounds for evaluation in found]


def run(name, seed=0, **options):
    """A search over the searcher's large space."""
    space = space_of(name)
    searcher, problem = made(name, space, seed)
    return search(searcher, space, **{"budget": budget_of(name), "problem": problem, **options})


@functools.cache
def first_run(name):
    """The run of seed 0, which several laws look at and none changes."""
    return run(name)


def test_every_searcher_of_the_catalog_is_held_to_these_laws():
    assert set(SEARCHERS) <= set(MAKERS)


@each_number_of_objectives
def test_asks_are_new_points_of_the_space(name, objectives):
    space = space_of(name)
    searcher, problem = made(name, space, 0, objectives)
    rounds = search(searcher, space, budget_of(name), problem=problem)
    for rows, _ in rounds:
        assert rows.dtype == INDEX and rows.shape[1] == len(space) and 1 <= len(rows) <= 6
        assert np.array_equal(space.canonical(rows), rows)
    assert len(set(asked(rounds))) == len(asked(rounds))
    assert len(asked(rounds)) == budget_of(name) or name == "scaling"


@every
def test_same_seed_and_same_tells_give_the_same_asks_and_leave_global_random_state_alone(name):
    first, before = asked(first_run(name)), np.random.get_state()[1].copy()  # noqa: NPY002
    again, other = (asked(run(name, seed)) for seed in (0, 1))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert first == again
    assert first != other or name == "scaling"


@every
def test_replaying_a_prefix_and_going_on_equals_never_having_stopped(name):
    space, whole = space_of(name), first_run(name)
    for length in sorted({1, len(whole) // 2, len(whole) - 1}):
        resumed, problem = made(name, space, 0)
        for rows, found in whole[:length]:
            assert np.array_equal(resumed.ask(6), rows)
            resumed.tell(found)
        rest = search(resumed, space, budget_of(name) - len(asked(whole[:length])), problem=problem)
        assert asked(rest) == asked(whole[length:])


@every
def test_what_the_caller_does_to_asks_and_tells_changes_nothing(name):
    space, expected = space_of(name), first_run(name)
    (searcher, problem), found = made(name, space, 0), []
    for before, _ in expected:
        rows = searcher.ask(len(before))
        found += map(tuple, rows.tolist())
        tells = evaluate(space, rows, problem)
        kept = list(tells)
        searcher.tell(tells)
        assert tells == kept
        tells.clear()
        rows[:] = 0
    assert found == asked(expected)


@seeded
@pytest.mark.parametrize("batch", [7, 1000])
def test_a_space_smaller_than_the_budget_is_asked_whole_and_then_nothing(name, batch):
    space = small_space_of(name)
    searcher, problem = made(name, space, 0)
    rounds = search(searcher, space, budget=1000, batch=batch, problem=problem)
    assert sorted(asked(rounds)) == [arch.indices for arch in space.enumerate()]
    assert searcher.ask(5).shape == (0, len(space))


def in_order(rows):
    return np.sort(rows, axis=1)


@seeded
def test_equivalent_architectures_are_asked_once(name):
    choices = [Choice(f"c{j}", (1, 2, 3)) for j in range(3)]
    space = SearchSpace("merging", choices, Equivalence(tuple(c.name for c in choices), in_order))
    searcher, problem = made(name, space, 0)
    assert sorted(asked(search(searcher, space, problem=problem))) == [arch.indices for arch in space.enumerate()]


@every
@pytest.mark.parametrize("options", [1, 2])
def test_the_tiniest_spaces_are_used_up_too(name, options):
    space = SearchSpace("tiny", [Choice("only", tuple(range(options)))])
    searcher, problem = made(name, space, 0)
    assert len(asked(search(searcher, space, problem=problem))) == options


@every
@pytest.mark.parametrize("share", ["some", "all"])
def test_failed_evaluations_stall_nothing_and_are_not_asked_again(name, share):
    rounds = run(name, fails=lambda row: share == "all" or sum(row) % 3 == 0)
    assert len(set(asked(rounds))) == len(asked(rounds))
    assert len(asked(rounds)) == budget_of(name) or name == "scaling"


@seeded
def test_a_small_space_is_used_up_where_evaluations_fail(name):
    space = small_space_of(name)
    searcher, problem = made(name, space, 0)
    rounds = search(searcher, space, budget=1000, problem=problem, fails=lambda row: sum(row) % 2 == 0)
    assert len(asked(rounds)) == space.size == len(set(asked(rounds)))


@seeded
def test_what_was_told_from_elsewhere_is_not_asked(name):
    space = small_space_of(name)
    every = [arch.indices for arch in space.enumerate()]
    before, after = every[::4], every[1::4]  # the first ask
    searcher, problem = made(name, space, 0)
    searcher.tell(evaluate(space, np.array(before, dtype=INDEX), problem))
    first = list(map(tuple, searcher.ask(3).tolist()))
    searcher.tell(evaluate(space, np.array([*first, *(row for row in after if row not in first)]), problem))
    rest = asked(search(searcher, space, budget=1000, problem=problem))
    assert sorted([*first, *rest]) == sorted(set(every) - (set(before) | set(after)) | set(first))


@pytest.mark.parametrize("name", [name for name in LEARNING if name != "robot"])  # all violations are one to it
def test_bounds_that_nothing_meets_bring_the_violation_down(name):
    space, budget = to_learn(name)
    searcher, problem = made(name, space, 0)
    never = Problem(problem.objectives, (Bound("latency_s", 0.1),))
    if name == "linas":
        exactly = exact(space)
        fit = lambda found: lambda rows: (exactly(rows)[0], exactly(rows)[0][:, 1])  # noqa: E731
        searcher = LINAS(space, fit, 2, 0, initial=12, generations=8, population=60)
    found, chance = (told(search(s, space, budget, budget // 8, never)) for s in (searcher, RandomSearch(space, 0)))
    assert len(found) == budget
    assert min(e.violation for e in found) < min(e.violation for e in chance)


@pytest.mark.parametrize("name", [name for name in LEARNING if LEAST[name] == 1])
def test_a_single_objective_is_brought_down(name):
    space, budget = to_learn(name)
    searcher, problem = made(name, space, 0, 1)
    found, chance = (told(search(s, space, budget, problem=problem)) for s in (searcher, RandomSearch(space, 0)))
    assert min(e.costs for e in found) < min(e.costs for e in chance)


@pytest.mark.parametrize(("name", "budget"), [("nsga2", 240), ("linas", BUDGET)])
@pytest.mark.parametrize("seed", range(2))
def test_search_beats_random_search(name, budget, seed):
    space = flat_space()
    found, chance = (cost_array(told(search(MAKERS[n](space, seed), space, budget, 12))) for n in (name, "random"))
    box = shared_box([found, chance])
    assert relative_hypervolume(found, *box) > 1.04 * relative_hypervolume(chance, *box)


def test_guided_search_with_an_exact_model_comes_close_to_the_front():
    space = small_space()
    everything = cost_array(evaluate(space, np.array([a.indices for a in space.enumerate()], dtype=INDEX)))
    ideal, reference = shared_box([everything])
    best = relative_hypervolume(everything, ideal, reference)
    for seed in range(3):
        searcher = LINAS(space, lambda _: exact(space), 2, seed, initial=8, generations=10, population=30)
        found = cost_array(told(search(searcher, space, budget=36)))
        assert relative_hypervolume(found, ideal, reference) > 0.99 * best


@pytest.mark.parametrize("name", ["nsga2", "linas"])
def test_bounds_that_nearly_nothing_meets_are_met(name):
    space = wide_space()
    tight = Problem(PROBLEM.objectives, (Bound("latency_s", 2.5), Bound("error", 11.0)))

    def feasible(searcher):
        return [e for e in told(search(searcher, space, 144, 12, tight)) if e.violation == 0]

    def fit(found):
        model = fitted(space, found)
        return lambda rows: tight.costs(dict(zip(("error", "latency_s"), model(rows)[0].T, strict=True)))

    searchers = {
        "nsga2": NSGA2(space, 2, 0, population=12),
        "linas": LINAS(space, fit, 2, 0, initial=24, generations=10, population=30),
    }
    assert len(feasible(searchers[name])) > len(feasible(RandomSearch(space, 0)))
