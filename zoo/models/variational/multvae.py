"""Mult-VAE: a variational autoencoder of users."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Interactions
from zoo.models.recommender_mixin import RecommenderMixin
from zoo.models.variational.vae import VAE


@register("model", "multvae")
class MultVAE(RecommenderMixin, VAE):
    """Variational autoencoder of the items of a user, with a multinomial likelihood (Liang et al. 2018).

    The settings are those of `vae`, and the recipe chooses the likelihood, a smaller KL weight, and dropout of items.
    A score is the log-probability that the next interaction is with an item, at the mean of q(z | x). The number of
    items of a user is not modelled, so the model does not sample users.
    """

    paper = "Liang et al. 2018 (arXiv:1802.05814)"
    accepts = (Interactions,)
    without = ("sample", "latents", "posterior", "prior", "first_stage", "interpolate", "export")

    @torch.no_grad()
    def score_items(self, x: Tensor) -> Tensor:
        """Interactions (B, I) -> log-probabilities of the items (B, I)."""
        z = self.posterior_family.mean(self.posterior_params(x))
        return self.params(z).float().log_softmax(1)
