"""pix2pix: a conditional GAN from image to image, trained on pairs."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Component, NonNegative
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.adversarial.image_to_image import ImageToImage
from zoo.nn.losses.gan import GAN_LOSSES, LossName
from zoo.nn.networks.components import Translator
from zoo.nn.networks.translators import resized
from zoo.nn.optim.components import Optimizer


@register("model", "pix2pix")
class Pix2Pix(ImageToImage):
    """Generator from source to target image, an L1 distance, and a discriminator of patches of both images.

    `loss_g` is the adversarial term plus `l1_weight` times the mean absolute error, on images in [-1, 1] (equation 4).
    The discriminator sees the source beside the target, so it judges whether both fit together. Translations have no
    noise: as in the paper, the generator would ignore it.

    Args:
        spec: images given images.
        loss: objective of both players; see `zoo.nn.losses.gan`.
        l1_weight: of the mean absolute error.
        translator: network from source to target image.
        patch_discriminator: network from both images, side by side in channels, to logits of patches.
        optimizer: of each player, with its learning rate and schedule.

    Raises:
        DataError: data without an image as condition.
    """

    paper = "Isola et al. 2017 (arXiv:1611.07004)"
    monitor = "val/l1"

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: LossName = "non_saturating",
        l1_weight: NonNegative = 100.0,
        translator: Translator = "unet",
        patch_discriminator: Annotated[str | dict[str, Any], Component("patch_discriminator")] = "patchgan",
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.game = GAN_LOSSES[loss]
        both = (spec.image.channels + self.source.channels, spec.image.height, spec.image.width)
        judge = "patch_discriminator"
        self.generators = nn.ModuleDict({"target": self.build_translator(self.source, spec.image)})
        self.discriminators = nn.ModuleDict({"pair": self.build_component(judge, judge, both)})

    # -- the objective -------------------------------------------------------------------------------------------

    def judge(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits of patches of target images x given sources y, both in [-1, 1]: (B, 1, h, w)."""
        return self.discriminators["pair"](torch.cat([resized(y, (x.shape[-2], x.shape[-1])).to(x.dtype), x], dim=1))

    def generator_terms(self, batch: Batch) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Terms of "loss_g", and translations without a gradient."""
        x, y = 2 * batch.x - 1, 2 * batch.y - 1
        fake = self.generators["target"](y)
        real_logits = self.judge(x, y).detach() if self.game.paired else torch.zeros((), device=x.device)
        adversarial = self.game.generator(real_logits, self.judge(fake, y))
        l1 = (fake - x).abs().mean()
        terms = {"loss_g": adversarial + self.hparams["l1_weight"] * l1, "adversarial": adversarial, "l1": l1}
        return terms, (fake.detach(),)

    def discriminator_terms(self, batch: Batch, fakes: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Loss of the discriminator, "loss_d", on true pairs and on sources with their translations."""
        x, y = 2 * batch.x - 1, 2 * batch.y - 1
        return {"loss_d": self.game.discriminator(self.judge(x, y), self.judge(fakes[0], y))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log "val/l1", the mean absolute error of translations in [0, 1]."""
        self.log_epoch_mean({"val/l1": (self.translate(batch.y) - batch.x).abs().mean()}, len(batch))

    def charts(self) -> dict[str, list[str]]:
        """Both players, and the error of translations."""
        return super().charts() | {"mean absolute error": ["val/l1"]}

    # -- translation ---------------------------------------------------------------------------------------------

    def translate(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Source images (B, C', h, w) in [0, 1] -> target images (B, C, H, W); nothing is random.

        Raises:
            DataError: images of another shape.
        """
        return self.run_generator(self.generators["target"], x, self.source)
