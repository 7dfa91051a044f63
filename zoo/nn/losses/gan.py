"""Adversarial losses and gradient penalties, as pure functions of logits and of a critic.

A logit is the discriminator's score of one sample; higher means more real. Losses are means over the batch.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Critic = Callable[[Tensor], Tensor]  # samples (B, *shape) -> logits (B,)
Loss = Callable[[Tensor, Tensor], Tensor]  # (real logits, fake logits) -> scalar


def non_saturating_d(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy of real against fake (Goodfellow et al. 2014, 1406.2661): 2 ln 2 where D is zero."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_g(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))): its gradient does not vanish where D rejects fakes confidently (1406.2661, section 3)."""
    return F.softplus(-fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss with margin 1 on both sides (Lim & Ye 2017, 1705.02894; Miyato et al. 2018, 1802.05957)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_g(real: Tensor, fake: Tensor) -> Tensor:
    """Negative mean logit, without a margin (1802.05957, equation 17)."""
    return -fake.mean()


def least_squares_d(real: Tensor, fake: Tensor) -> Tensor:
    """Regression to 1 (real) and 0 (fake) (Mao et al. 2016, 1611.04076, equation 9): 1/4 at the optimum, D = 1/2."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_g(real: Tensor, fake: Tensor) -> Tensor:
    """Regression of the fakes to 1 (1611.04076, equation 9)."""
    return 0.5 * (fake - 1).square().mean()


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """Negative estimate of the Wasserstein-1 distance by a 1-Lipschitz critic (Arjovsky et al. 2017, 1701.07875, eq.
    2).
    """
    return fake.mean() - real.mean()


def wasserstein_g(real: Tensor, fake: Tensor) -> Tensor:
    """Negative mean critic score of the fakes (1701.07875, algorithm 1)."""
    return -fake.mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Softplus of fake minus paired real logit (Jolicoeur-Martineau 2018, 1807.00734)."""
    return F.softplus(fake - real).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """Softplus of real minus paired fake logit: the only generator loss that reads the real logits (1807.00734)."""
    return F.softplus(real - fake).mean()


class GANLoss(NamedTuple):
    """The losses of discriminator and generator."""

    discriminator: Loss
    generator: Loss
    paired: bool = False  # the generator's loss reads the real logits
    boundary: float | None = 0.0  # the logit of samples that are equally likely real and fake; None: only differences


LossName = Literal["non_saturating", "hinge", "least_squares", "wasserstein", "relativistic"]

GAN_LOSSES: dict[LossName, GANLoss] = {
    "non_saturating": GANLoss(non_saturating_d, non_saturating_g),
    "hinge": GANLoss(hinge_d, hinge_g),
    "least_squares": GANLoss(least_squares_d, least_squares_g, boundary=0.5),
    "wasserstein": GANLoss(wasserstein_d, wasserstein_g, boundary=None),
    "relativistic": GANLoss(relativistic_d, relativistic_g, paired=True, boundary=None),
}


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """Gradient dD/dx per sample, flattened to (B, D) and itself differentiable.

    The critic runs outside autocast: in bfloat16 the second derivative is off by about one percent. Compiled graphs
    cannot be differentiated twice: pass `net.forward`, which `net.compile()` does not replace.
    """
    with torch.enable_grad(), torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def r1_penalty(critic: Critic, x: Tensor) -> Tensor:
    """E ||dD/dx||^2: R1 on real samples, R2 on fake ones (Mescheder et al. 2018, 1801.04406, equation 9).

    The papers weight it by gamma / 2.
    """
    return input_gradient(critic, x).square().sum(1).mean()


def interpolation_weights(x: Tensor) -> Tensor:
    """Uniform interpolation weights, one per sample: (B, 1, ..., 1)."""
    return torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device, dtype=x.dtype)


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """E (||dD/dx|| - 1)^2 interpolated real and fake samples (Gulrajani et al. 2017, 1704.00028, equation 3)."""
    interpolated = torch.lerp(fake.detach(), real.detach(), interpolation_weights(real))
    return (torch.linalg.vector_norm(input_gradient(critic, interpolated), dim=1) - 1).square().mean()
