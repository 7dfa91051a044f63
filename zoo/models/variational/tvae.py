"""Variational autoencoder of rows of mixed columns."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.spaces import Table
from zoo.data.table.constraints import constrained
from zoo.models.variational.vae import VAE
from zoo.nn.distributions.table import TableLikelihood
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec


@register("model", "tvae")
class TVAE(VAE):
    """Variational autoencoder of tables: softmax for categories, logistic numbers, missing values as a choice.

    It is `vae` with `model/likelihood=table`, whose samples are rows drawn from p(x | z), because the mean of a
    category is not a category. The original normalises numbers by the modes of a mixture, and learns one variance for
    each column. Here they are standard normal scores, and the decoder predicts their scales.
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

    @constrained
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

    def export_module(self) -> ExportableSampler:
        """Random numbers for the prior and for p(x | z) -> rows."""
        assert isinstance(self.likelihood, TableLikelihood)
        likelihood, prior = self.likelihood, list(self.prior.inputs)
        inputs = [*prior, InputSpec("values", "uniform", (len(likelihood.codec.blocks), 2))]

        def drawn(*given: Tensor) -> Tensor:
            z = self.prior.transform(self.encoded, *given[: len(prior)])
            return likelihood.from_uniform(self.params(z), given[-1])

        used = [self.encoder, self.head] if self.prior.encodes else []
        return ExportableSampler(drawn, inputs, self.prior, *used, self.decoder, self.likelihood)
