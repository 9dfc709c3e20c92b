import numpy as np
import pytest

torch = pytest.importorskip("torch")
from predictors.ranking_loss import pairwise_hinge, soft_kendall, squared_error  # noqa: E402

TARGETS = torch.tensor([1.0, 2.0, 2.0, 4.0])
ALL = torch.ones(2, 4)


def test_hand_cases():
    scores = torch.tensor([[0.0, 1.0, 1.0, 0.5]])
    one = ALL[:1]
    assert float(squared_error(scores, TARGETS, one)) == pytest.approx((1 + 1 + 1 + 12.25) / 4)
    # pairs (2,1), (3,1), (4,1), (4,2), (4,3), the tie left out: differences 1, 1, 0.5, -0.5, -0.5
    assert float(pairwise_hinge(scores, TARGETS, one, margin=0.6)) == pytest.approx((0.1 + 1.1 + 1.1) / 5)
    signs = np.tanh([2, 2, 1, -1, -1]).sum() / 5
    assert float(soft_kendall(scores, TARGETS, one, sharpness=2.0)) == pytest.approx(1 - signs)


@pytest.mark.parametrize("loss", [squared_error, pairwise_hinge, soft_kendall])
def test_what_a_member_may_not_see_has_no_pull_and_members_do_not_mix(loss):
    scores = torch.tensor([[0.3, -0.2, 0.1, 0.0], [1.0, 0.0, 2.0, -1.0]], requires_grad=True)
    weights = ALL.clone()
    weights[0, 2] = 0
    loss(scores, TARGETS, weights).backward()
    assert scores.grad[0, 2] == 0 and scores.grad[0].abs().sum() > 0
    alone = torch.tensor([[1.0, 0.0, 2.0, -1.0]], requires_grad=True)
    loss(alone, TARGETS, ALL[:1]).backward()
    np.testing.assert_allclose(scores.grad[1], alone.grad[0], rtol=1e-6)


@pytest.mark.parametrize("loss", [pairwise_hinge, soft_kendall])
def test_the_right_order_costs_least(loss):
    right, wrong = TARGETS[None], -TARGETS[None]
    assert loss(5 * right, TARGETS, ALL[:1]) < 0.01 < 1 < loss(5 * wrong, TARGETS, ALL[:1])
