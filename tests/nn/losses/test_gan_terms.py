"""Further terms of GANs: against sums by hand and critics and generators whose derivatives are known."""

import pytest
import torch

from zoo.nn.losses.gan_terms import consistency, orthogonal_penalty, unrolled


def test_filters_are_penalised_for_their_angles_and_not_for_their_norms() -> None:
    """By a loop over pairs of filters; W W^T - I, the older form, also punishes orthogonal ones (negative control)."""
    torch.manual_seed(0)
    weights = [torch.randn(3, 2, 2, dtype=torch.double), torch.randn(4, 5, dtype=torch.double)]
    wanted = sum(
        (w[i].flatten() @ w[j].flatten()) ** 2 for w in weights for i in range(len(w)) for j in range(len(w)) if i != j
    )
    assert float(orthogonal_penalty(weights)) == pytest.approx(float(wanted), rel=1e-5)
    orthogonal = torch.linalg.qr(torch.randn(6, 3)).Q.T * torch.tensor([[1.0], [2.0], [3.0]])
    assert orthogonal_penalty([orthogonal]) < 1e-9
    assert (orthogonal @ orthogonal.T - torch.eye(3)).square().sum() > 1


def test_consistency_of_known_logits() -> None:
    logits, changed = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, -2.0, 3.0])
    assert float(consistency(logits, changed)) == pytest.approx((1 + 0 + 9) / 3)
    assert consistency(logits, logits) == 0


def test_unrolled_steps_of_a_linear_critic() -> None:
    """L_D = a (theta - m), so a' = a - k lr (theta - m), and d(-a' theta) / d theta = -a + k lr (2 theta - m).

    Without the derivative through the steps it is -a + k lr (theta - m) (negative control).
    """
    theta, m, a, lr, k = torch.tensor(0.7, requires_grad=True), 0.2, torch.tensor(1.5, requires_grad=True), 0.1, 3
    later = unrolled(lambda p: p["a"] * (theta - m), {"a": a}, k, lr)["a"]
    assert float(later.detach()) == pytest.approx(1.5 - k * lr * 0.5)
    (gradient,) = torch.autograd.grad(-later * theta, theta, retain_graph=True)
    assert float(gradient) == pytest.approx(-1.5 + k * lr * (2 * 0.7 - 0.2))
    (short,) = torch.autograd.grad(-later.detach() * theta, theta)
    assert float(short) == pytest.approx(-1.5 + k * lr * 0.5)


def test_unrolling_settles_a_game_that_circles() -> None:
    """On V = a theta, simultaneous steps spiral away from the equilibrium at zero; looking ahead spirals in."""
    ends = []
    for steps in (0, 5):
        theta, a = torch.tensor(1.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
        for _ in range(100):
            later = unrolled(lambda p, theta=theta: p["a"] * theta, {"a": a}, steps, 0.2)["a"]
            (slope,) = torch.autograd.grad(-later * theta, theta)
            theta_new, a_new = theta - 0.1 * slope, a - 0.1 * theta
            theta, a = (value.detach().requires_grad_() for value in (theta_new, a_new))
        ends.append(float(torch.hypot(theta, a).detach()))
    assert ends[0] > 1.5
    assert ends[1] < 0.1
