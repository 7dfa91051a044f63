"""Base class of implicit models: a network turns noise into data, without a density."""

from collections.abc import Callable
from typing import Literal, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments, random_projection
from zoo.metrics.prdc import NEIGHBOURS, prdc
from zoo.models.base import Model
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.normal import slerp
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

FD_SAMPLES = 2000  # generated samples in the Frechet distance, and the most held-out ones


class ImplicitModel(Model):
    """A generator from noise to data, judged by a Frechet distance in validation, because its loss does not tell.

    A subclass sets `latent_dim`, and writes `decode` and `generator_for_samples`.

    Args:
        spec: what the data looks like.
    """

    monitor = "val/fd"
    latent_dim: int
    decode: Callable[[Tensor, Tensor], Tensor]  # noise (B, Z) and labels (B,) -> data (B, *shape), without gradient
    generator_for_samples: Callable[[], nn.Module]  # the network of `decode`

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.monitor = "val/uncovered" if isinstance(spec.x, Vector) else "val/fd"
        self.standardize = Standardize(spec)
        self.held_out: list[Tensor] = []  # validation samples of this process, projected

    def to_model_range(self, x: Tensor) -> Tensor:
        """Data space -> the range that the discriminator sees: images in [-1, 1], vectors standardised."""
        return 2 * x - 1 if isinstance(self.spec.x, Image) else self.standardize(x)

    def to_data_range(self, x: Tensor) -> Tensor:
        """Inverse of `to_model_range`."""
        return (x + 1) / 2 if isinstance(self.spec.x, Image) else self.standardize.inverse(x)

    # -- validation: a Frechet distance ----------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect samples for `on_validation_epoch_end`."""
        share = len(range(self.global_rank, FD_SAMPLES, self.trainer.world_size))
        room = share - sum(map(len, self.held_out))
        self.held_out.append(random_projection(batch.x[: max(room, 0)]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log "val/fd", the Frechet distance of pixels between held-out data and `FD_SAMPLES` samples.

        For vectors, also log "val/uncovered", the share of held-out points without a sample near (1 - coverage).
        It chooses best.ckpt, because means and covariances of few values match long before their distribution does.
        Two held-out samples are necessary. Processes share one noise stream, so "val/fd" does not depend on their
        number. "val/uncovered" is a mean over the processes. Each compares its own samples.
        """
        real, self.held_out = torch.cat(self.held_out), []
        generator = torch.Generator().manual_seed(0)  # the same noise at every validation
        mine, fake = slice(self.global_rank, None, self.trainer.world_size), []
        labels = self.resolve_labels(FD_SAMPLES, None, generator)
        noise = self.randn(FD_SAMPLES, self.latent_dim, generator=generator)  # fewer have a larger bias
        for z, y in zip(noise[mine].split(250), labels[mine].split(250), strict=True):
            fake.append(random_projection(self.decode(z, y)).cpu())
        both = torch.stack([moments(real), moments(torch.cat(fake))])
        if self.trainer.world_size > 1:
            both = cast(Tensor, self.trainer.strategy.reduce(both.to(self.device), reduce_op="sum")).cpu()
        if int(both[0][0, 0]) < 2 * self.trainer.world_size:
            rank_zero_warn(f"{self.monitor} is not measured: fewer than 2 validation samples in each process.")
            return
        self.log("val/fd", frechet(both[0], both[1]).float(), sync_dist=True)
        if self.monitor == "val/uncovered":
            covered = prdc(real, torch.cat(fake), min(NEIGHBOURS, len(real) - 1))["coverage"]
            self.log("val/uncovered", 1 - covered, sync_dist=True)

    # -- samples ---------------------------------------------------------------------------------------------

    def interpolate(
        self,
        n: int,
        steps: int,
        *,
        generator: torch.Generator | None = None,
        path: Literal["spherical", "linear"] = "spherical",
    ) -> Tensor:
        """n interpolations between two noise vectors, of one class each: (n, steps, *shape).

        Spherical paths keep the norm of noise (White 2016, arXiv:1609.04468): the direction turns, and the norm goes
        from one to the other. Linear ones pass near the origin.
        """
        y = self.resolve_labels(n, None, generator).repeat_interleave(steps)
        start, end = (self.randn(n, 1, self.latent_dim, generator=generator) for _ in range(2))
        t = torch.linspace(0, 1, steps, device=self.device)[:, None]
        z = (1 - t) * start + t * end if path == "linear" else slerp(start, end, t)  # (n, steps, latent_dim)
        return self.decode(z.flatten(0, 1), y).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Noise, and labels if conditional -> data, by the generator."""
        inputs = [InputSpec("noise", "normal", (self.latent_dim,))]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes, shares=tuple(self.class_shares)))

        def function(z: Tensor, y: Tensor | None = None) -> Tensor:
            return self.decode(z, z.new_zeros(z.shape[0], dtype=torch.long) if y is None else y)

        return ExportableSampler(function, inputs, self.generator_for_samples(), self.standardize)

    def charts(self) -> dict[str, list[str]]:
        """The validation metrics."""
        return {
            "Frechet distance of pixels": ["val/fd"],
            **({"share without a sample near": ["val/uncovered"]} if self.monitor == "val/uncovered" else {}),
        }
