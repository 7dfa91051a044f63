"""TimeGAN: a generative adversarial network in the latent space of a recurrent autoencoder of series."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, NonNegative, PositiveInt
from zoo.core.spaces import Series
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.implicit import ImplicitModel
from zoo.models.two_players import TwoPlayers
from zoo.nn.blocks.lstm import LSTM
from zoo.nn.losses.gan import non_saturating_d, non_saturating_g
from zoo.nn.networks.gan_heads import frozen_params
from zoo.nn.optim.components import Optimizer

TINY = 1e-12  # under a square root


class Cells(nn.Module):
    """Series (B, T, n_in) -> (B, T, n_out), by LSTM cells that read forward, or both ways.

    Args:
        n_in: columns.
        n_out: columns of the result.
        d_model: units of a layer.
        n_layers: layers of cells.
        bounded: end in a sigmoid, as latents do.
        both: read both ways.
    """

    def __init__(
        self, n_in: int, n_out: int, d_model: int, n_layers: int, *, bounded: bool = True, both: bool = False
    ) -> None:
        super().__init__()
        self.cells = LSTM(n_in, d_model, n_layers, batch_first=True, bidirectional=both)
        self.head, self.bounded = nn.Linear(d_model * (1 + both), n_out), bounded

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, n_in) -> (B, T, n_out), in at least single precision."""
        h = self.head(self.cells(x)[0])
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        return h.sigmoid() if self.bounded else h


@register("model", "timegan")
class TimeGAN(TwoPlayers, ImplicitModel):
    """TimeGAN: latents of an autoencoder of each step, a generator of latents, and a supervisor of their next step.

    The embedder and the recovery are an autoencoder of steps, in the order of time. The generator makes latents from
    noise, and the supervisor corrects them. It learns to predict the next latent of real series. The discriminator
    judges each step of a series of latents, before and after the correction. The generator also matches the mean and
    the standard deviation of each step of the batch. The first `adversarial_start` batches train the autoencoder and
    the supervisor alone; the objective of the paper is the one after them.

    Args:
        spec: of the series.
        noise_dim: size of the noise of each step.
        embedding_dim: size of the latent of each step.
        d_model: units of a layer.
        n_layers: layers of cells, of each of the five networks.
        adversarial_start: batches before the game begins.
        reconstruction_weight: of the root of the mean squared error of the autoencoder.
        supervised_weight: of the root of the mean squared error of the supervisor.
        embedding_weight: of the mean squared error of the supervisor, for the embedder: predictable latents.
        moment_weight: of the distances of means and standard deviations.
        uncorrected_weight: gamma, of the logits before the correction.
        optimizer: of each player, with its learning rate and schedule.
    """

    accepts = (Series,)
    paper = "Yoon, Jarrett & van der Schaar 2019 (NeurIPS)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        noise_dim: PositiveInt = 8,
        embedding_dim: PositiveInt = 12,
        d_model: PositiveInt = 24,
        n_layers: PositiveInt = 2,
        adversarial_start: Count = 500,
        reconstruction_weight: NonNegative = 10.0,
        supervised_weight: NonNegative = 100.0,
        embedding_weight: NonNegative = 1.0,
        moment_weight: NonNegative = 100.0,
        uncorrected_weight: NonNegative = 1.0,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two players, two optimizers
        steps, columns = spec.shape
        self.noise_shape, self.latent_dim = (steps, noise_dim), steps * noise_dim
        sizes: dict[str, Any] = {"d_model": d_model, "n_layers": n_layers}
        self.embedder = Cells(columns, embedding_dim, **sizes)
        self.recovery = Cells(embedding_dim, columns, bounded=False, **sizes)
        self.generator = Cells(noise_dim, embedding_dim, **sizes)
        self.supervisor = Cells(embedding_dim, embedding_dim, **sizes)
        self.discriminator = Cells(embedding_dim, 1, bounded=False, both=True, **sizes)
        self.lacks("export")  # torch.export fixes the number of windows of recurrent cells

    def players(self) -> tuple[nn.Module, nn.Module]:
        """All networks but the discriminator, and it."""
        parts = nn.ModuleList([self.embedder, self.recovery, self.generator, self.supervisor])
        return parts, self.discriminator

    @property
    def playing(self) -> bool:
        """Whether the game has begun."""
        return self.step >= int(self.hparams["adversarial_start"])

    # -- the objective -----------------------------------------------------------------------------------------------

    def next_error(self, h: Tensor) -> Tensor:
        """Mean squared error of the supervisor's prediction of the next latents of series of latents (B, T, H)."""
        return (self.supervisor(h)[:, :-1] - h[:, 1:]).square().mean()

    def generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Terms of "loss_g", and latents (real, corrected, uncorrected) without a gradient."""
        h, x = self.hparams, self.to_model_range(batch.x)
        real = self.embedder(x)
        reconstruction = (self.recovery(real) - x).square().mean()
        predictable, supervised = self.next_error(real), self.next_error(real.detach())
        loss = h["reconstruction_weight"] * root(reconstruction) + h["embedding_weight"] * predictable
        loss = loss + h["supervised_weight"] * root(supervised)
        terms = {"reconstruction": reconstruction.detach(), "supervised": supervised.detach()}
        if not self.playing:
            return {"loss_g": loss + idle(self.generator), **terms}, ()
        raw = self.generator(torch.randn(len(x), *self.noise_shape, device=x.device))
        corrected = self.supervisor(raw)
        none = raw.new_zeros(())
        adversarial = non_saturating_g(none, self.discriminator(corrected))
        adversarial = adversarial + h["uncorrected_weight"] * non_saturating_g(none, self.discriminator(raw))
        with frozen_params(self.recovery):  # an autoencoder of real series alone
            moments = moment_distance(x, self.recovery(corrected))
        loss = loss + adversarial + h["moment_weight"] * moments
        terms |= {"adversarial": adversarial.detach(), "moments": moments.detach()}
        return {"loss_g": loss, **terms}, (real.detach(), corrected.detach(), raw.detach())

    def discriminator_terms(self, batch: Batch, generated: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Loss of the discriminator, "loss_d", on latents; 0 before the game."""
        if not generated:
            return {"loss_d": idle(self.discriminator)}
        real, corrected, raw = (self.discriminator(h) for h in generated)
        weight = self.hparams["uncorrected_weight"]
        return {"loss_d": non_saturating_d(real, corrected) + weight * F.softplus(raw).mean()}

    def modules_to_compile(self) -> list[nn.Module]:
        """None: recurrent cells have their own kernels."""
        return []

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Noise (B, T * Z) -> windows (B, T, D); labels are not used."""
        corrected = self.supervisor(self.generator(z.unflatten(1, self.noise_shape)))
        return self.to_data_range(self.recovery(corrected))

    def generator_for_samples(self) -> nn.Module:
        """All networks but the discriminator."""
        return self.players()[0]

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw n windows, (n, T, D); a condition is refused."""
        y = self.resolve_labels(n, condition, generator)
        return self.decode(self.randn(n, self.latent_dim, generator=generator), y)

    def charts(self) -> dict[str, list[str]]:
        """Both players, the errors of autoencoder and supervisor, and the validation metrics."""
        return {
            "players": ["train/loss_d", "train/loss_g"],
            "mean squared errors": ["train/reconstruction", "train/supervised"],
            "distance of moments": ["train/moments"],
            **super().charts(),
        }


def root(error: Tensor) -> Tensor:
    """Square root, with a finite slope at 0."""
    return (error + TINY).sqrt()


def moment_distance(x: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute differences of the means and of the standard deviations of windows (B, T, D), of each step."""
    parts = [(a.mean(0), (a.var(0, correction=0) + TINY).sqrt()) for a in (x, fake)]
    return sum(((a - b).abs().mean() for a, b in zip(*parts, strict=True)), x.new_zeros(()))


def idle(network: nn.Module) -> Tensor:
    """Zero, with a gradient of zero for every weight."""
    return 0.0 * torch.stack([p.sum() for p in network.parameters()]).sum()
