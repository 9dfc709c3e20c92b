import pytest
import torch
import torch.nn.functional as F

from supernet.distill import alpha_divergence, kl_divergence, label_loss

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


def test_equals_the_formula():
    p, q = TEACHER.softmax(1), STUDENT.softmax(1)
    torch.testing.assert_close(kl_divergence(STUDENT, TEACHER), (p * (p.log() - q.log())).sum(1).mean())
    assert kl_divergence(TEACHER, TEACHER).abs() < 1e-12


def test_gradient_is_that_of_soft_cross_entropy_and_spares_the_teacher():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    kl_divergence(student, teacher).backward()
    other = STUDENT.clone().requires_grad_()
    F.cross_entropy(other, TEACHER.softmax(1)).backward()
    torch.testing.assert_close(student.grad, other.grad)
    assert teacher.grad is None


def test_label_smoothing_of_indices_only():
    y = torch.tensor([0, 1, 2, 3, 0])
    soft = 0.9 * F.one_hot(y, 4) + 0.1 / 4
    torch.testing.assert_close(label_loss(STUDENT, y, 0.1), label_loss(STUDENT, soft, 0.1))


def explicit(student, teacher, alpha):
    """The divergence as the paper's equation has it (b,)."""
    p, q = teacher.softmax(1), student.softmax(1)
    if alpha == 1:
        return (p * (p / q).log()).sum(1)
    return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))


def gradient(loss, student):
    student = student.clone().requires_grad_()
    loss(student).backward()
    return student.grad


def test_alpha_divergence_has_the_gradient_of_the_larger_of_two():
    rng = torch.Generator().manual_seed(0)
    teacher = torch.randn(64, 5, generator=rng, dtype=torch.float64) * 0.5
    student = teacher + 0.3 * torch.randn(64, 5, generator=rng, dtype=torch.float64)  # no ratio near 5
    low, high = explicit(student, teacher, -1.0), explicit(student, teacher, 1.0)
    assert 10 < int((low > high).sum()) < 54
    larger = lambda s: torch.maximum(explicit(s, teacher, -1.0), explicit(s, teacher, 1.0)).mean()  # noqa: E731
    got = gradient(lambda s: alpha_divergence(s, teacher), student)
    torch.testing.assert_close(got, gradient(larger, student))


@pytest.mark.parametrize(("classes", "wrong"), [(3, 8.0), (100, 8.0), (100, 0.0)])
def test_a_sure_teacher_pulls_as_hard_as_by_kullback_and_leibler(classes, wrong):
    """However small the share of a class in what the student says."""
    sure = torch.tensor([[0.9] + [0.1 / (classes - 1)] * (classes - 1)], dtype=torch.float64).log()
    student = torch.zeros_like(sure)
    student[0, 1] = wrong
    got = gradient(lambda s: alpha_divergence(s, sure), student)
    torch.testing.assert_close(got, gradient(lambda s: kl_divergence(s, sure), student))
    assert gradient(lambda s: alpha_divergence(s, sure), sure).abs().max() < 1e-6


def test_a_student_far_surer_than_its_teacher_is_pulled_no_harder_than_at_a_ratio_of_five():
    p, q = (torch.tensor([[x, 1 - x]], dtype=torch.float64) for x in (0.12, 0.9))  # q / p of 7.5
    weights = q * torch.tensor([[5.0, 0.1 / 0.88]])
    expected = weights - q * weights.sum()
    torch.testing.assert_close(gradient(lambda s: alpha_divergence(s, p.log()), q.log()), expected)


def test_a_student_that_rules_a_class_out_still_learns_it():
    got = gradient(lambda s: alpha_divergence(s, torch.tensor([[200.0, 0.0]])), torch.tensor([[0.0, 200.0]]))
    torch.testing.assert_close(got, torch.tensor([[-1.0, 1.0]]))
