"""Doubly reparameterised gradients: the same expectation as those of the IWAE, with less variance."""

import math

import torch

from zoo.core.spaces import Vector
from zoo.core.spec import DataSpec
from zoo.models.variational.vae import VAE

SMALL = {"encoder": {"name": "mlp", "width": 8, "depth": 1}, "decoder": {"name": "mlp", "width": 8, "depth": 1}}
N = 30_000  # independent copies of one gradient


def gradients(objective: str, squared: bool = True) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Of the loss for N copies of one x: to the parameters of q, by copy (N, 4), and to the decoder."""
    torch.manual_seed(0)
    likelihood = {"name": "gaussian", "variance": "fixed", "std": 0.7}
    model = VAE(
        DataSpec(Vector(3), name="points"), latent_dim=2, objective=objective, num_samples=4, likelihood=likelihood,
        **SMALL,
    ).double()  # fmt: skip
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(2)
    x = torch.tensor([[0.9, -0.4, 0.3]], dtype=torch.float64).expand(N, -1)
    start = torch.tensor([[0.4, -0.2, -0.3, 0.1]], dtype=torch.float64)
    params = start.repeat(N, 1).requires_grad_()
    model.posterior_params = lambda *_: params  # type: ignore[method-assign]
    torch.manual_seed(1)
    if squared:
        loss = model.loss((x, torch.zeros(N).long()))["loss"]
    else:  # without the second reparameterisation
        log_px, log_ratio, _ = model.sample_posterior_terms(x, None, params, 4)
        loss = -(log_px - log_ratio).logsumexp(0).mean()
    loss.backward()
    return N * params.grad, [p.grad for p in model.decoder.parameters()]


def test_dreg_has_the_expected_gradient_of_the_iwae_and_less_variance() -> None:
    plain, plain_decoder = gradients("iwae")
    doubly, decoder = gradients("dreg")
    error = ((plain.var(0) + doubly.var(0)) / N).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() < 4 * error).all()
    assert (doubly.var(0) < 0.7 * plain.var(0)).all()
    biased, _ = gradients("dreg", squared=False)  # negative control: q held fixed, and weights not squared
    error = ((plain.var(0) + biased.var(0)) / N).sqrt()
    assert ((plain.mean(0) - biased.mean(0)).abs() > 8 * error).any()
    for one, two in zip(plain_decoder, decoder, strict=True):
        torch.testing.assert_close(one, two)  # of the same draws
    assert math.isfinite(float(doubly.sum()))


def test_dreg_has_the_value_of_the_iwae() -> None:
    values = []
    for objective in ("iwae", "dreg"):
        torch.manual_seed(0)
        model = VAE(DataSpec(Vector(3), name="points"), latent_dim=2, objective=objective, num_samples=5, **SMALL)
        torch.manual_seed(1)
        values.append(float(model.loss((torch.randn(6, 3), torch.zeros(6).long()))["loss"]))
    assert values[0] == values[1]
