"""Variational autoencoder of rows of mixed columns."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.spaces import Table
from zoo.models.variational.vae import VAE
from zoo.nn.distributions.table import TableLikelihood


@register("model", "tvae")
class TVAE(VAE):
    """Variational autoencoder of tables: softmax for categories, logistic numbers, missing values as a choice.

    It is `vae` with `model/likelihood=table`, whose samples are rows drawn from p(x | z), because the mean of a
    category is not a category. The original has numbers normalised by the modes of a mixture, and a fixed variance for
    each column; here they are standard normal scores, and the decoder predicts the variance.
    """

    accepts = (Table,)
    paper = "Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019 (arXiv:1907.00503)"

    def build_component(self, setting: str, kind: str, *given: Any, method: str = "__call__") -> Any:
        """Build a component; only one likelihood has columns.

        Raises:
            ConfigError: another likelihood.
        """
        built = super().build_component(setting, kind, *given, method=method)
        if setting == "likelihood" and not isinstance(built, TableLikelihood):
            raise ConfigError(
                f"model.likelihood={built.registered_name}: {self.display_name} needs one with columns. "
                f"Choose model/likelihood=table."
            )
        return built

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: bool = True,
    ) -> Tensor:
        """Rows (n, F) drawn from p(x | z) of draws from the prior; without `noise`, its mean."""
        return super().sample(n, condition=condition, generator=generator, noise=noise)
