"""Further tasks of a GAN's players: a classifier of labels (ACGAN), and one of latent codes (InfoGAN)."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative


@register("auxiliary", "none")
class Auxiliary(nn.Module):
    """Base class: no further task.

    Args:
        latent_dim: size of the noise.
        feature_dim: width of the discriminator's features.
        n_classes: of the labels that the players are given; 0 for none.

    Attributes:
        of_discriminator: the discriminator's optimizer trains the weights, otherwise the generator's.
        projects: the discriminator also judges whether a sample fits its label, by a projection.
    """

    of_discriminator: ClassVar[bool] = False
    projects: ClassVar[bool] = True
    terms: ClassVar[tuple[str, ...]] = ()  # names of further terms of the losses
    registered_name: str

    def __init__(self, latent_dim: int, feature_dim: int, n_classes: int) -> None:
        super().__init__()

    def code(self, z: Tensor) -> Tensor:
        """Normal noise (B, Z) -> input of the generator (B, Z)."""
        return z

    def discriminator_terms(self, real: Tensor, fake: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Weighted terms of the discriminator's loss, given features (B, F) and labels (B,)."""
        return {}

    def generator_terms(self, fake: Tensor, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Weighted terms of the generator's loss, given features (B, F), labels (B,) and noise (B, Z)."""
        return {}


@register("auxiliary", "classifier")
class AuxiliaryClassifier(Auxiliary):
    """Classifier of the label, in place of a projection (Odena et al. 2016, arXiv:1610.09585, equations 2 and 3).

    The discriminator learns the classes of real and fake samples, and the generator makes samples that are easy to
    classify. So classes are kept apart, at the cost of variety within a class.

    Args:
        latent_dim: size of the noise.
        feature_dim: width of the discriminator's features.
        n_classes: of the labels.
        weight: of the cross-entropies, in nats.

    Raises:
        ConfigError: players without labels.
    """

    of_discriminator = True
    projects = False
    terms = ("classes",)

    def __init__(self, latent_dim: int, feature_dim: int, n_classes: int, *, weight: NonNegative = 1.0) -> None:
        super().__init__(latent_dim, feature_dim, n_classes)
        if not n_classes:
            raise ConfigError("model/auxiliary=classifier: the players have no labels. Set model.conditional=true.")
        self.weight = weight
        self.head = nn.Linear(feature_dim, n_classes)

    def discriminator_terms(self, real: Tensor, fake: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the labels at real and at fake samples."""
        both = F.cross_entropy(self.head(real).float(), y) + F.cross_entropy(self.head(fake).float(), y)
        return {"classes": self.weight * both}

    def generator_terms(self, fake: Tensor, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the labels at fake samples."""
        return {"classes": self.weight * F.cross_entropy(self.head(fake).float(), y)}


@register("auxiliary", "codes")
class LatentCodes(Auxiliary):
    """Latent codes that can be read off the samples (Chen et al. 2016, InfoGAN, arXiv:1606.03657, equation 5).

    The first numbers of the noise become codes: one category, and numbers between -1 and 1. The generator is paid for
    samples whose codes a head on the discriminator's features predicts: a lower bound on their mutual information. The
    layers below the head are trained by the discriminator's own loss alone.

    Args:
        latent_dim: size of the noise, with the codes.
        feature_dim: width of the discriminator's features.
        n_classes: not used.
        n_categories: values of the category, each of equal probability; the largest of so many normal numbers.
        n_continuous: further codes, uniform between -1 and 1.
        weight: of the bound, in nats; the density of continuous codes has variance 1.

    Raises:
        ConfigError: more codes than noise.
    """

    terms = ("information",)

    def __init__(
        self,
        latent_dim: int,
        feature_dim: int,
        n_classes: int,
        *,
        n_categories: Count = 10,
        n_continuous: Count = 2,
        weight: NonNegative = 1.0,
    ) -> None:
        super().__init__(latent_dim, feature_dim, n_classes)
        self.n_codes = n_categories + n_continuous
        if not 0 < self.n_codes <= latent_dim:
            raise ConfigError(
                f"model.auxiliary: {self.n_codes} codes of {latent_dim} numbers of noise. Set model.latent_dim to "
                f"{max(self.n_codes, 1)} or more, or another number of codes."
            )
        self.n_categories, self.weight = n_categories, weight
        self.head = nn.Linear(feature_dim, self.n_codes)

    def code(self, z: Tensor) -> Tensor:
        """Normal noise (B, Z) -> a category as one-hot, uniform numbers, and the rest of the noise (B, Z)."""
        choice, continuous, rest = z.tensor_split((self.n_categories, self.n_codes), dim=1)
        parts = [torch.erf(continuous / math.sqrt(2)), rest]  # the distribution function, from -1 to 1
        if self.n_categories:
            values = torch.arange(self.n_categories, device=z.device)
            parts.insert(0, (choice.argmax(1, keepdim=True) == values).to(z.dtype))
        return torch.cat(parts, dim=1)

    def generator_terms(self, fake: Tensor, y: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Negative log-density of the codes given the samples, without constants."""
        found = self.head(fake).float().split((self.n_categories, self.n_codes - self.n_categories), dim=1)
        wanted = self.code(z).float()[:, : self.n_codes]
        loss = 0.5 * (found[1] - wanted[:, self.n_categories :]).square().sum(1).mean()
        if self.n_categories:
            loss = loss + F.cross_entropy(found[0], wanted[:, : self.n_categories])
        return {"information": self.weight * loss}
