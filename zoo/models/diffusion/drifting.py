"""Drifting models: a generator follows a field that moves its samples towards the data."""

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.implicit import ImplicitModel
from zoo.nn.losses.drifting import drifting_loss
from zoo.nn.networks.components import Decoder
from zoo.nn.networks.gan_heads import Generator
from zoo.nn.optim.components import Optimizer


@register("model", "drifting")
class Drifting(ImplicitModel):
    """Drifting model: one evaluation of a generator, trained without time, derivative or opponent.

    Each batch is compared with fewer generated samples. These are attracted by data and repelled by each other, within
    each class, and the generator is trained towards where they drift. A batch must have many samples of each class.
    The loss is about constant by construction.

    Args:
        spec: what the data looks like.
        latent_dim: size of the noise.
        generated: generated samples, as a share of the batch.
        temperatures: widths of the kernels, as shares of the mean distance.
        conditional: condition on class labels; None does so if the data have labels.
        generator: network from noise to samples.
        optimizer: with its learning rate and schedule.
    """

    paper = "Deng et al. 2026 (arXiv:2602.04770)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: PositiveInt = 64,
        generated: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.7,
        temperatures: tuple[float, ...] = (0.02, 0.05, 0.2),
        conditional: bool | None = None,
        generator: Decoder = "auto",
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.conditional = bool(spec.n_classes) if conditional is None else conditional
        self.latent_dim = latent_dim
        n_in = latent_dim * (2 if self.conditional else 1)
        decoder = self.build_component("generator", "decoder", n_in, spec.shape)
        n_classes = spec.n_classes if self.conditional else 0
        self.generator = Generator(decoder, latent_dim, n_classes, bounded=isinstance(spec.x, Image))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared distance of generated samples to where they drift; labels of the data come twice among them."""
        x = self.to_model_range(batch.x)
        y = batch.y if self.conditional else torch.zeros(len(x), dtype=torch.long, device=x.device)
        n = max(round(self.hparams["generated"] * len(x)), 1)
        labels = y.repeat_interleave(2)[:n]  # samples of a class repel each other
        made = self.generator(torch.randn(n, self.latent_dim, device=self.device), labels)
        made, x = made.float().flatten(1), x.float().flatten(1)
        n_classes = max(self.spec.n_classes, 1) if self.conditional else 1
        return {"loss": drifting_loss(made, labels, x, y, n_classes, self.hparams["temperatures"]).mean()}

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Noise (B, Z) and labels (B,) -> data (B, *shape)."""
        mode = self.generator.training
        try:
            return self.to_data_range(self.generator.eval()(z, y))
        finally:
            self.generator.train(mode)

    def generator_for_samples(self) -> nn.Module:
        """The generator."""
        return self.generator

    def hidden_layers(self) -> list[nn.Module]:
        """The generator's network, without the embedding of labels."""
        return [self.generator.network]

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, *shape).

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
        """
        y = self.resolve_labels(n, condition, generator)
        return self.decode(self.randn(n, self.latent_dim, generator=generator), y)
