"""Generator and discriminator heads: class conditioning, bounded output, scalar logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from zoo.nn.blocks.layers import maybe_spectral_norm
from zoo.nn.distributions.likelihoods import at_least_float32
from zoo.nn.networks.gan_auxiliary import Auxiliary


class Generator(nn.Module):
    """z (B, Z) and labels (B,) -> samples (B, *shape), in (-1, 1) if `bounded`.

    Args:
        network: (B, Z), or (B, 2 Z) with labels, -> (B, *shape). One with latents between, as `stylegan2`, is
            `synthesis(mapping(input))`, and has their mean in `mean_style`.
        latent_dim: Z; labels are embedded in Z numbers and concatenated with z.
        n_classes: 0 ignores labels.
        bounded: end in tanh.
        auxiliary: makes codes of the noise.
    """

    def __init__(
        self, network: nn.Module, latent_dim: int, n_classes: int, bounded: bool, auxiliary: Auxiliary | None = None
    ) -> None:
        super().__init__()
        self.network, self.bounded, self.auxiliary = network, bounded, auxiliary
        self.embed = nn.Embedding(n_classes, latent_dim) if n_classes else None
        self.has_mapping = hasattr(network, "mapping")

    def style(self, z: Tensor, y: Tensor) -> Tensor:
        """(B, Z), (B,) -> latents (B, W) of `synthesize`: what the network maps noise to, or else its input."""
        z = z if self.auxiliary is None else self.auxiliary.code(z)
        given = z if self.embed is None else torch.cat([z, self.embed(y)], dim=1)
        return self.network.mapping(given) if self.has_mapping else given  # type: ignore[operator]

    def synthesize(self, w: Tensor) -> Tensor:
        """(B, W) -> (B, *shape)."""
        x: Tensor = (self.network.synthesis if self.has_mapping else self.network)(w)  # type: ignore[operator]
        return x.tanh() if self.bounded else x

    def forward(
        self, z: Tensor, y: Tensor, psi: float = 1.0, other: Tensor | None = None, crossover: Tensor | None = None
    ) -> Tensor:
        """(B, Z), (B,) -> (B, *shape); for psi below 1, with latents nearer to their mean.

        With further noise `other` (B, Z), latents are mixed at the layers `crossover` (B,); see `mix_styles`.
        """
        if other is None or crossover is None:
            w = self.style(z, y)
        else:  # in one call, because the mean of the styles moves with each
            both = self.style(torch.cat([z, other]), torch.cat([y, y])).chunk(2)
            w = mix_styles(both[0], both[1], crossover, cast(Any, self.network).n_styles)
        return self.synthesize(w if psi == 1 else self.network.mean_style.lerp(w, psi))  # type: ignore[operator]


def mix_styles(w: Tensor, other: Tensor, crossover: Tensor, n_layers: int) -> Tensor:
    """Styles (B, W), twice -> one for each layer, (B, n_layers, W): the first `crossover` (B,) are those of `w`.

    (Karras et al. 2018, arXiv:1812.04948, section 3.1.)
    """
    first = torch.arange(n_layers, device=w.device) < crossover[:, None]  # (B, n_layers)
    return torch.where(first[..., None], w[:, None], other[:, None])


class Discriminator(nn.Module):
    """Samples (B, *shape) and labels (B,) -> logits (B,): f(phi(x)) + <e_y, phi(x)>.

    Projection discriminator (Miyato & Koyama 2018, 1802.05637).

    Args:
        network: (B, *shape) -> (B, feature_dim). If it is spectrally normalised, so are the weights added here.
        feature_dim: width of phi.
        n_classes: 0 leaves out the second term.
        auxiliary: learns another task from the features, too.
    """

    def __init__(
        self, network: nn.Module, feature_dim: int, n_classes: int, auxiliary: Auxiliary | None = None
    ) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        lipschitz = any(parametrize.is_parametrized(m) for m in network.modules())
        self.network = network
        # Without bias: half of the losses ignore it, and the features can represent one.
        self.head = maybe_spectral_norm(nn.Linear(feature_dim, 1, bias=False), lipschitz)
        self.embed: nn.Module | None = None
        if n_classes:
            embed = nn.Embedding(n_classes, feature_dim)
            if not lipschitz:  # start as the unconditional discriminator; a zero matrix cannot be normalised
                nn.init.zeros_(embed.weight)
            self.embed = maybe_spectral_norm(embed, lipschitz)

    def features(self, x: Tensor) -> Tensor:
        """(B, *shape) -> phi (B, feature_dim)."""
        return F.leaky_relu(self.network(x), 0.2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, *shape), (B,) -> (B,), in at least single precision: losses compare small differences of logits."""
        return self.logits(self.features(x), y)

    def logits(self, phi: Tensor, y: Tensor) -> Tensor:
        """Features (B, feature_dim), labels (B,) -> (B,)."""
        logits = self.head(phi).squeeze(1)
        return at_least_float32(logits if self.embed is None else logits + (self.embed(y) * phi).sum(1))


@contextmanager
def frozen_params(network: nn.Module) -> Iterator[None]:
    """Disable gradients of a network's parameters inside the context; gradients still flow to its inputs."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad = True
