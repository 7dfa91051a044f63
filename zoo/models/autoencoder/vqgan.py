"""VQGAN: a VQ-VAE whose reconstructions are judged by a discriminator of patches, too."""

from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from zoo.core import registry
from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments, random_projection
from zoo.models.autoencoder.vqvae import VQVAE
from zoo.models.two_players import TwoPlayers
from zoo.nn.losses.gan import hinge_d, hinge_g
from zoo.nn.networks.components import SpatialAutoencoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.quantizers.base import QuantizerChoice

MAX_WEIGHT = 1e4  # of the adversarial term


@register("model", "vqgan")
class VQGAN(TwoPlayers, VQVAE):
    """VQ-VAE with a discriminator of patches, and a perceptual distance where the zoo has a classifier of the data.

    `loss_g` is the loss of a VQ-VAE, plus the perceptual distance, plus the adversarial term of a hinge loss. The last
    one is scaled by gradients at the decoder's last layer. Its gradient is `adversarial_weight` times as long as that
    of the others (equation 7). The classifier is the one whose features measure samples. A Frechet distance in them
    flatters this model.

    Args:
        spec: what the data looks like.
        quantizer: vq, fsq, lfq, rvq, or a registered one.
        likelihood: p(x | codes), as in `vae`.
        network: encoder and decoder.
        patch_discriminator: network from images to logits of patches.
        adversarial_weight: see above.
        adversarial_start: batches before the adversarial term counts; the discriminator trains from the beginning.
        perceptual_weight: of the distance in a classifier's features, in nats per pixel; 0 switches it off.
        optimizer: of each player, with its learning rate and schedule.
    """

    accepts = (Image,)
    paper = "Esser et al. 2021 (arXiv:2012.09841)"
    monitor = "val/fd"

    def __init__(
        self,
        spec: DataSpec,
        *,
        quantizer: QuantizerChoice = "vq",
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        network: SpatialAutoencoder = "resnet",
        patch_discriminator: Annotated[str | dict[str, Any], Component("patch_discriminator")] = "patchgan",
        adversarial_weight: NonNegative = 0.5,
        adversarial_start: Count = 0,
        perceptual_weight: NonNegative = 1.0,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec, quantizer=quantizer, likelihood=likelihood, network=network, optimizer=optimizer)
        self.automatic_optimization = False  # two players, two optimizers
        judge = "patch_discriminator"
        self.discriminator: nn.Module = self.build_component(judge, judge, spec.shape)
        self.perceptual: Any = registry.build("perceptual", "classifier", spec) if perceptual_weight else None
        self.reconstructed: list[Tensor] = []  # moments of a validation's images and reconstructions

    # -- the objective -------------------------------------------------------------------------------------------

    def autoencoder_terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of the loss without the adversarial one, whose sum is "loss"; and reconstructions (B, C, H, W)."""
        z, _, quantization = self.quantize(batch.x)
        params = self.network.decode(z)
        reconstruction = -self.likelihood.log_prob(params, batch.x).mean()
        found = self.likelihood.mean(params)
        terms = {"reconstruction": reconstruction, "quantization": quantization}
        total = reconstruction + quantization
        if self.perceptual is not None and self.perceptual.available:
            terms["perceptual"] = self.perceptual(found, batch.x).mean()
            total = total + self.hparams["perceptual_weight"] * self.spec.size * terms["perceptual"]
        return {"loss": total, **terms}, found

    def generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of "loss_g", and reconstructions without a gradient."""
        terms, found = self.autoencoder_terms(batch)
        loss = terms.pop("loss")
        adversarial = hinge_g(torch.empty(0), self.discriminator(found))
        weight = self.hparams["adversarial_weight"] * adaptive_weight(loss, adversarial, self.network.last_layer)
        if self.step < self.hparams["adversarial_start"]:
            weight = torch.zeros_like(weight)
        terms = {"loss_g": loss + weight * adversarial, **terms, "adversarial": adversarial, "weight": weight}
        return terms, found.detach()

    def discriminator_terms(self, batch: Batch, found: Tensor) -> dict[str, Tensor]:
        """Loss of the discriminator, "loss_d", on images and reconstructions (B, C, H, W)."""
        return {"loss_d": hinge_d(self.discriminator(batch.x), self.discriminator(found))}

    # -- training ------------------------------------------------------------------------------------------------

    def players(self) -> tuple[nn.Module, nn.Module]:
        """Autoencoder and discriminator."""
        return self.network, self.discriminator

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms without the adversarial one, and collect what `on_validation_epoch_end` needs."""
        terms, found = self.autoencoder_terms(batch)
        self.log_epoch_mean({f"val/{k}": v for k, v in terms.items()}, len(batch))
        self.count_codes(batch.x)
        pairs = [moments(random_projection(x.float()).cpu()) for x in (batch.x, found.clamp(0, 1))]
        self.reconstructed.append(torch.stack(pairs))

    def on_validation_epoch_end(self) -> None:
        """Log the use of the codebook, and "val/fd": the Frechet distance of pixels between data and reconstructions.

        It chooses best.ckpt, because the likelihood prefers blurred reconstructions.
        """
        super().on_validation_epoch_end()
        both, self.reconstructed = torch.stack(self.reconstructed).sum(0), []
        both = cast(Tensor, self.trainer.strategy.reduce(both.to(self.device), reduce_op="sum")).cpu()
        if int(both[0][0, 0]) > 1:
            self.log("val/fd", frechet(both[0], both[1]).float(), sync_dist=True)

    def charts(self) -> dict[str, list[str]]:
        """Both players on one chart, and the validation metrics."""
        return super().charts() | {
            "loss": ["val/loss"],
            "players": ["train/loss_d", "train/loss_g"],
            "Frechet distance of pixels": ["val/fd"],
        }


def adaptive_weight(loss: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Ratio of the gradients' lengths at the decoder's last layer, without a gradient: a scalar.

    Esser et al. 2021, arXiv:2012.09841, equation 7.
    """
    if not (torch.is_grad_enabled() and last_layer.requires_grad):
        return loss.new_ones(())
    both = [torch.autograd.grad(term, last_layer, retain_graph=True)[0].norm() for term in (loss, adversarial)]
    return (both[0] / (both[1] + 1e-4)).clamp(max=MAX_WEIGHT).detach()
