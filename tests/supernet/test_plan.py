import pytest
import torch
from small_supernet import RECIPE, same, small_dataset, small_net, weights

from search_spaces.network import find_space
from supernet.learner import Learner
from supernet.plan import Plan, evaluate, make_plan, shortened
from supernet.recipe import Recipe
from supernet.strategies.once_for_all import OnceForAll
from supernet.strategies.sandwich import Sandwich


class FakeClock:
    """Seconds that pass only in steps and evaluations."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def passing(self, seconds, result=None):
        def call(*args):
            self.now_s += seconds
            return result

        return call


@pytest.fixture
def planned(monkeypatch):
    """The plan for a recipe when a step takes 0.02 s and an evaluation 0.05 s."""
    clock = FakeClock()
    monkeypatch.setattr(Learner, "step", clock.passing(0.02))
    monkeypatch.setattr("supernet.plan.evaluate", clock.passing(0.05, (0.5, 0.5)))
    net, data = small_net(), small_dataset()
    return lambda recipe: make_plan(net, find_space(net), data, recipe, clock=clock)


def test_epochs_alone_need_no_measurement(planned):
    assert planned(RECIPE) == Plan(total_steps=10, evaluations=2)  # 40 images, batches of 16


def test_budget_is_divided_by_the_time_of_a_step(planned):
    plan = planned(Recipe(budget_s=10.5, batch=16))
    assert plan.evaluations == 8
    # 3 steps, 5 times 4 and an evaluation to measure, 9 evaluations, 3 % in reserve
    left_s = 0.97 * 10.5 - 23 * 0.02 - 0.05 - 9 * 0.05
    assert plan.total_steps == pytest.approx(left_s / 0.02, abs=2)


@pytest.mark.parametrize("budget_s", [10.0, 300.0])
def test_steps_that_become_slower_are_foreseen(monkeypatch, budget_s):
    """The first of each kind does something that is done once."""
    clock, kinds, begun = FakeClock(), {0: 0.02, 1: 0.04, 2: 0.09}, set()

    def step(self, t):
        kind = int(3 * t / self.total_steps)
        clock.passing(kinds[kind] + (kind not in begun))()
        begun.add(kind)

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr("supernet.plan.evaluate", clock.passing(0.01, (0.5, 0.5)))
    net = small_net()
    plan = make_plan(net, find_space(net), small_dataset(), Recipe(budget_s=budget_s, batch=16), clock=clock)
    assert clock.now_s < 3 + 0.02 * 3 + max(0.05 * budget_s, 15 * 0.09)
    assert plan.total_steps * 0.05 == pytest.approx(0.97 * budget_s - clock.now_s, rel=0.06)


def test_the_fewest_steps_of_all_that_are_given(planned):
    assert planned(Recipe(steps=7, batch=16)).total_steps == 7
    assert planned(Recipe(steps=7, epochs=5, batch=16)).total_steps == 7
    assert planned(Recipe(steps=70, epochs=5, batch=16)).total_steps == 10
    assert planned(Recipe(steps=7, budget_s=1000.0, batch=16)).total_steps == 7
    assert planned(Recipe(steps=9000, budget_s=2.0, batch=16)).total_steps < 1000
    assert planned(Recipe(budget_s=1000.0, epochs=5, batch=16)).total_steps == 10
    assert planned(Recipe(budget_s=2.0, epochs=500, batch=16)).total_steps < 1000


def test_hopeless_budget_still_takes_a_step(planned):
    assert planned(Recipe(budget_s=1e-6, batch=16)) == Plan(1, 1)


def test_costly_evaluations_become_fewer(planned):
    assert planned(Recipe(budget_s=1.1, batch=16, evaluations=8)).evaluations == 2


@pytest.mark.parametrize(("steps", "evaluations"), [(10, 2), (7, 3), (1, 1), (1000, 8)])
def test_evaluations_are_spread_and_the_last_is_at_the_end(steps, evaluations):
    plan = Plan(steps, evaluations)
    at = [step for step in range(steps + 1) if plan.evaluates(step)]
    assert len(at) == evaluations + 1
    assert (at[0], at[-1]) == (0, steps)
    assert all(plan.records(step) for step in at)
    assert sum(plan.records(step) for step in range(steps + 1)) <= 120


@pytest.mark.parametrize(
    ("step_s", "left_s", "expected"),
    [
        (1.0, 60.0, 100),  # in time
        (1.0, 55.0, 100),  # late, but not clearly so
        (2.0, 60.0, 70),
        (2.0, 0.5, 41),  # one more step, so that there is an end
        (2.0, -9.0, 41),
    ],
)
def test_a_plan_that_will_not_be_kept_is_cut(step_s, left_s, expected):
    assert shortened(Plan(100, 4), 40, step_s, left_s) == Plan(expected, 4)


@pytest.mark.parametrize("strategy", [Sandwich(), OnceForAll()])
def test_planning_changes_nothing(strategy):
    net, data = small_net(), small_dataset()
    before, generator = weights(net), torch.get_rng_state()
    make_plan(net, find_space(net), data, Recipe(budget_s=0.5, batch=16, strategy=strategy))
    assert same(before, weights(net))
    assert torch.equal(generator, torch.get_rng_state())
    assert all(0 <= value <= 1 for value in evaluate(net, find_space(net), data, strategy))
