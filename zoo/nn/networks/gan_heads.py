"""The two players of an adversarial game: networks made conditional, bounded and scalar."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from zoo.nn.blocks.layers import maybe_spectral_norm


class Generator(nn.Module):
    """z (B, Z) and labels (B,) -> samples in the range of the discriminator: (-1, 1) for images.

    Args:
        network: (B, Z), or (B, 2 Z) with labels, -> (B, *shape).
        latent_dim: Z; a label is embedded in as many numbers and stands beside z.
        n_classes: 0 ignores labels.
        bounded: end in tanh?
    """

    def __init__(self, network: nn.Module, latent_dim: int, n_classes: int, bounded: bool) -> None:
        super().__init__()
        self.network, self.bounded = network, bounded
        self.embed = nn.Embedding(n_classes, latent_dim) if n_classes else None

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """(B, Z), (B,) -> (B, *shape)."""
        x = self.network(z if self.embed is None else torch.cat([z, self.embed(y)], dim=1))
        return x.tanh() if self.bounded else x


class Discriminator(nn.Module):
    """Samples (B, *shape) and labels (B,) -> logits (B,): f(phi(x)) + <e_y, phi(x)>.

    Projection discriminator (Miyato & Koyama 2018, 1802.05637).

    Args:
        network: (B, *shape) -> (B, features). Where it is spectrally normalised, so are the weights added here.
        features: width of phi.
        n_classes: 0 leaves the second term out.
    """

    def __init__(self, network: nn.Module, features: int, n_classes: int) -> None:
        super().__init__()
        lipschitz = any(parametrize.is_parametrized(m) for m in network.modules())
        self.network = network
        # No bias: half of the losses cannot see one, and the features can make one for the others.
        self.head = maybe_spectral_norm(nn.Linear(features, 1, bias=False), lipschitz)
        self.embed: nn.Module | None = None
        if n_classes:
            embed = nn.Embedding(n_classes, features)
            if not lipschitz:  # begin as the unconditional discriminator; a zero matrix has no singular vectors
                nn.init.zeros_(embed.weight)
            self.embed = maybe_spectral_norm(embed, lipschitz)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, *shape), (B,) -> (B,)."""
        phi = F.leaky_relu(self.network(x), 0.2)
        logits = self.head(phi).squeeze(1)
        return logits if self.embed is None else logits + (self.embed(y) * phi).sum(1)


@contextmanager
def frozen_params(network: nn.Module) -> Iterator[None]:
    """What a network learns nothing from: gradients pass through it, and none is kept for it."""
    moved = [p for p in network.parameters() if p.requires_grad]
    for p in moved:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in moved:
            p.requires_grad = True
