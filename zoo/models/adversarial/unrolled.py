"""Unrolled GANs: a generator that is judged by the discriminator of some steps later."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.nn.losses.gan import GANLoss
from zoo.nn.losses.gan_terms import Parameters, unrolled
from zoo.nn.networks.gan_heads import Discriminator


class Judge(nn.Module):
    """Samples and labels -> logits (B,) and features (B, F), by a discriminator without its compiled code.

    Compiled graphs cannot be differentiated twice.
    """

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *shape), (B,) -> (B,), (B, F)."""
        phi = self.discriminator.features(x)
        return self.discriminator.logits(phi, y), phi


def look_ahead(
    discriminator: Discriminator, game: GANLoss, real: Tensor, fake: Tensor, y: Tensor, *, steps: int, lr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge samples by the discriminator after gradient steps on the game, and differentiate through these steps.

    The discriminator itself, with its running statistics, stays as it is (Metz et al. 2016, arXiv:1611.02163).

    Args:
        discriminator: the present one.
        game: its loss, without penalties.
        real: real samples (B, *shape).
        fake: generated samples (B, *shape), which the gradient reaches also through the steps.
        y: labels (B,).
        steps: of gradient descent.
        lr: their learning rate.

    Returns:
        Logits of real and of fake samples (B,), and features of the fakes (B, F).
    """
    judge, real, fake = Judge(discriminator), real.float(), fake.float()
    buffers = {name: value.clone() for name, value in judge.named_buffers()}
    now = {name: p.detach().requires_grad_() for name, p in judge.named_parameters()}

    def of_real_and_fake(parameters: Parameters) -> list[tuple[Tensor, Tensor]]:
        return [functional_call(judge, {**parameters, **buffers}, (x, y)) for x in (real, fake)]

    def loss(parameters: Parameters) -> Tensor:
        return game.discriminator(*(logits for logits, _ in of_real_and_fake(parameters)))

    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):  # second derivatives
        (real_logits, _), (fake_logits, phi) = of_real_and_fake(unrolled(loss, now, steps, lr))
    return real_logits, fake_logits, phi
