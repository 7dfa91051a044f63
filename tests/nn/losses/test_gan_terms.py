"""Further terms of GANs: against sums by hand and critics and generators whose derivatives are known."""

import pytest
import torch

from zoo.nn.losses.gan_terms import orthogonal_penalty


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
