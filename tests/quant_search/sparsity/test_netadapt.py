import itertools

import numpy as np
import pytest
from sparse_subject import CPU, digits, digits_model, run, train_examples

from latency.worker import Effort
from quant_search.sparsity.channels import channel_groups, prune_channels
from quant_search.sparsity.deployed import measured_latency
from quant_search.sparsity.fine_tune import fine_tune
from quant_search.sparsity.netadapt import Step, Trimming, netadapt, propose
from quant_search.sparsity.rate_distortion import macs_of
from quant_search.sparsity.selection import best_units, score_units

IMAGES, LABELS = (part[:200] for part in digits())


def by_macs(models):
    """A device that takes a nanosecond for a multiplication."""
    return [1e-9 * macs_of(model) for model in models]


def loss(model):
    logits = run(model, IMAGES)
    odds = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return float(-odds[np.arange(len(LABELS)), LABELS].mean())


def sizes(model):
    return {group.name: group.size for group in channel_groups(model)}


def test_it_trims_until_the_budget_is_met_and_no_further_than_needed():
    model = digits_model()
    told = []
    (first_s,) = by_macs([model])
    steps = netadapt(model, 0.5 * first_s, Trimming(by_macs, loss, first_decrement=0.1, round_to=1), told.append)
    assert steps == told and steps[0].model is model and steps[0].latency_s == first_s
    assert all(a.latency_s > b.latency_s for a, b in itertools.pairwise(steps))
    assert steps[-1].latency_s <= 0.5 * first_s < steps[-2].latency_s
    assert steps[-1].latency_s > 0.4 * first_s
    for before, after in itertools.pairwise(steps):
        changed = {name for name, size in sizes(after.model).items() if size != sizes(before.model)[name]}
        assert changed == {after.group} and sizes(after.model)[after.group] == after.units
        assert by_macs([after.model]) == [after.latency_s] and loss(after.model) == after.damage


def test_each_group_proposes_the_most_units_that_meet_the_target():
    model = digits_model()
    (now_s,) = by_macs([model])
    how = Trimming(by_macs, loss, round_to=1)
    groups = {group.name: group for group in channel_groups(model)}
    scores = score_units(model, list(groups.values()))
    proposals = propose(Step(model, now_s, loss(model)), 0.9 * now_s, how)
    assert {step.group for step in proposals} == set(groups)
    for step in proposals:
        assert step.latency_s <= 0.9 * now_s
        one_more = prune_channels(model, {step.group: best_units(scores[step.group], step.units + 1)})
        assert by_macs([one_more])[0] > 0.9 * now_s


def test_a_group_that_cannot_meet_the_target_goes_as_far_as_it_goes():
    model = digits_model()
    (now_s,) = by_macs([model])
    proposals = {s.group: s for s in propose(Step(model, now_s, 0.0), 0.5 * now_s, Trimming(by_macs, loss, round_to=4))}
    assert proposals["/0/Conv"].units == 4 and proposals["/0/Conv"].latency_s > 0.5 * now_s
    assert proposals["/2/Conv"].latency_s <= 0.5 * now_s


def test_the_least_damage_for_each_second_is_taken():
    model = digits_model()
    how = Trimming(by_macs, loss, first_decrement=0.2)
    first, second = netadapt(model, 0.85 * by_macs([model])[0], how)[:2]
    target = max(0.85, 0.8) * first.latency_s
    prices = {s.group: (s.damage - first.damage) / (first.latency_s - s.latency_s) for s in propose(first, target, how)}
    assert second.group == min(prices, key=prices.get) and len(prices) == 3


def test_it_ends_above_the_budget_where_nothing_is_left_to_trim():
    steps = netadapt(digits_model(), 1e-9, Trimming(by_macs, loss, first_decrement=0.5, round_to=8))
    assert sizes(steps[-1].model) == {"/0/Conv": 8, "/2/Conv": 8, "/6/Conv": 8}
    constant = netadapt(digits_model(), 0.5, Trimming(lambda models: [1.0] * len(models), loss))
    assert len(constant) == 1


def test_the_last_step_is_no_longer_than_what_is_left():
    model = digits_model()
    (first_s,) = by_macs([model])
    steps = netadapt(model, 0.95 * first_s, Trimming(by_macs, loss, first_decrement=0.4, round_to=1))
    assert len(steps) == 2 and 0.85 * first_s < steps[-1].latency_s <= 0.95 * first_s


def test_a_network_within_the_budget_is_left_alone():
    (only,) = netadapt(digits_model(), 1.0, Trimming(by_macs, loss))
    assert only.model is digits_model()


def test_proposals_are_tuned_before_they_are_judged():
    model = digits_model()
    budget = 0.6 * by_macs([model])[0]
    plain, tuned = (
        netadapt(
            model, budget, Trimming(by_macs, loss, 0.25, criterion="taylor", examples=train_examples(), fine_tune=t)
        )
        for t in (None, lambda one: fine_tune(one, train_examples(), 8))
    )
    assert tuned[-1].damage < plain[-1].damage and tuned[-1].latency_s <= budget


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_deployed_is_measured(precision):
    latency = measured_latency(CPU, Effort(rounds=1, most_rounds=1, samples=2, sample_s=1e-5), precision)
    steps = netadapt(digits_model(), 1e-7, Trimming(latency, loss, first_decrement=0.5, decay=0.5, round_to=16))
    assert all(0 < step.latency_s < 1 for step in steps)


def test_settings_out_of_range_are_refused():
    for decrement, decay in ((0, 1), (1, 1), (0.1, 0), (0.1, 1.1)):
        with pytest.raises(ValueError, match="first_decrement must be above 0 and below 1, decay"):
            Trimming(by_macs, loss, decrement, decay)
    for budget in (0, float("nan")):
        with pytest.raises(ValueError, match="the budget must be seconds above 0"):
            netadapt(digits_model(), budget, Trimming(by_macs, loss))
