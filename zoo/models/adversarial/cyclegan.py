"""CycleGAN: translation between two domains of images, without pairs."""

from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments, random_projection
from zoo.models.adversarial.image_to_image import ImageToImage
from zoo.nn.blocks.image_pool import ImagePool
from zoo.nn.losses.gan import GAN_LOSSES, LossName
from zoo.nn.networks.components import Translator
from zoo.nn.optim.components import Optimizer


@register("model", "cyclegan")
class CycleGAN(ImageToImage):
    """Two generators, one in each direction, and a discriminator of each domain.

    `loss_g` has an adversarial term for each direction. `cycle_weight` weights the mean absolute error of there and
    back again, both ways (equation 3). `identity_weight` weights that of images which are in the domain already, where
    both domains have equal channels (section 5.2). Discriminators see a pool of earlier translations. Pairs of the data
    are not used.

    Args:
        spec: images given images, of another domain or paired.
        loss: objective of all players; see `zoo.nn.losses.gan`. The least squares there are half of the paper's.
        cycle_weight: see above; half of the paper's, to fit the loss.
        identity_weight: see above; half of the paper's, to fit the loss.
        pool_size: earlier translations of each direction; 0 shows the current ones only.
        translator: network from images to images, of both directions.
        patch_discriminator: network from images to logits of patches, of both domains.
        optimizer: of each player, with its learning rate and schedule.

    Raises:
        DataError: data without an image as condition.
    """

    paper = "Zhu et al. 2017 (arXiv:1703.10593)"
    required_condition = (Image, Unpaired)
    monitor = "val/fd"

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: LossName = "least_squares",
        cycle_weight: NonNegative = 5.0,
        identity_weight: NonNegative = 2.5,
        pool_size: Count = 50,
        translator: Translator = "resnet",
        patch_discriminator: Annotated[str | dict[str, Any], Component("patch_discriminator")] = "patchgan",
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.game = GAN_LOSSES[loss]
        self.spaces = {"target": spec.image, "source": self.source}  # domains, by name
        judge = "patch_discriminator"
        self.generators = nn.ModuleDict(
            {name: self.build_translator(self.spaces[other], self.spaces[name]) for name, other in OTHER.items()}
        )
        self.discriminators = nn.ModuleDict(
            {name: self.build_component(judge, judge, space.shape) for name, space in self.spaces.items()}
        )
        self.pools = nn.ModuleDict({name: ImagePool(pool_size, space.shape) for name, space in self.spaces.items()})
        self.measured: list[Tensor] = []  # moments of a validation's images and translations, of both domains

    # -- the objective -------------------------------------------------------------------------------------------

    def domains(self, batch: Batch) -> dict[str, Tensor]:
        """Images of both domains in [-1, 1], by name."""
        return {"target": 2 * batch.x - 1, "source": 2 * batch.y - 1}

    def generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Terms of "loss_g", and translations into both domains without a gradient."""
        real, h = self.domains(batch), self.hparams
        fake = {name: self.generators[name](real[other]) for name, other in OTHER.items()}
        adversarial = cycle = torch.zeros((), device=self.device)
        for name, other in OTHER.items():
            judge = self.discriminators[name]
            real_logits = judge(real[name]).detach() if self.game.paired else torch.zeros((), device=self.device)
            adversarial = adversarial + self.game.generator(real_logits, judge(fake[name]))
            cycle = cycle + (self.generators[name](fake[other]) - real[name]).abs().mean()
        terms = {"adversarial": adversarial, "cycle": cycle}
        total = adversarial + h["cycle_weight"] * cycle
        if h["identity_weight"] and self.spec.image.channels == self.source.channels:
            kept = [(self.generators[name](x) - x).abs().mean() for name, x in real.items()]
            terms["identity"] = kept[0] + kept[1]
            total = total + h["identity_weight"] * terms["identity"]
        return {"loss_g": total, **terms}, tuple(fake[name].detach() for name in OTHER)

    def discriminator_terms(self, batch: Batch, fakes: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Loss of both discriminators, "loss_d"; in training, of images of the pools."""
        real, total = self.domains(batch), torch.zeros((), device=self.device)
        for name, fake in zip(OTHER, fakes, strict=True):
            pool = cast(ImagePool, self.pools[name])
            shown = pool.exchange(fake) if self.training else fake
            judge = self.discriminators[name]
            total = total + self.game.discriminator(judge(real[name]), judge(shown))
        return {"loss_d": total}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the error of there and back again, and collect what `on_validation_epoch_end` needs."""
        there = self.translate(batch.y), self.translate(batch.x, reverse=True)
        back = self.translate(there[1]), self.translate(there[0], reverse=True)
        errors = [(one - two).abs().mean() for one, two in zip(back, batch, strict=True)]
        self.log_epoch_mean({"val/cycle_l1": (errors[0] + errors[1]) / 2}, len(batch))
        found = [moments(random_projection(x.float()).cpu()) for x in (*batch, *there)]
        self.measured.append(torch.stack(found))

    def on_validation_epoch_end(self) -> None:
        """Log "val/fd": the Frechet distance of pixels between translations and the domain, mean of both directions."""
        found, self.measured = torch.stack(self.measured).sum(0), []
        found = cast(Tensor, self.trainer.strategy.reduce(found.to(self.device), reduce_op="sum")).cpu()
        if int(found[0][0, 0]) > 1:
            distances = [frechet(found[side], found[side + 2]) for side in (0, 1)]
            self.log("val/fd", ((distances[0] + distances[1]) / 2).float(), sync_dist=True)

    def charts(self) -> dict[str, list[str]]:
        """Both players, and the validation metrics."""
        return super().charts() | {
            "error of there and back again": ["val/cycle_l1"],
            "Frechet distance of pixels": ["val/fd"],
        }

    # -- translation ---------------------------------------------------------------------------------------------

    def translate(self, x: Tensor, *, generator: torch.Generator | None = None, reverse: bool = False) -> Tensor:
        """Source images (B, C', h, w) in [0, 1] -> target images (B, C, H, W); nothing is random.

        Args:
            x: images.
            generator: has no effect.
            reverse: translate target images to source images.

        Raises:
            DataError: images of another shape.
        """
        into = "source" if reverse else "target"
        return self.run_generator(self.generators[into], x, self.spaces[OTHER[into]])


OTHER = {"target": "source", "source": "target"}  # the domain that a domain is translated from
