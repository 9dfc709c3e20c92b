import torch
import torch.nn.functional as F

from supernet.distill import kl_divergence, label_loss

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
