"""Style transfer: the content of one image with the style of another, by a trained network or by optimisation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, PositiveInt
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.results import Visual
from zoo.nn.losses.style import adain, gram_distance, mean_and_std, statistics_distance
from zoo.nn.networks.feature_maps import FeatureMaps, MapsToImage
from zoo.nn.networks.translators import resized
from zoo.nn.optim.components import Optimizer


@register("model", "style_transfer")
class StyleTransfer(Model):
    """Decoder of feature maps whose means and deviations were replaced by those of another image (AdaIN).

    The encoder is frozen. The content's term is the squared distance between the decoded maps and those of the result.
    The style's term, times `style_weight`, is that of the statistics of all layers (equations 11 to 13).

    Contents are the source images of `data=two_domains`, and styles its target images. Of other images, each one is the
    style of another.

    `stylize(method="gatys")` optimises an image instead (Gatys et al. 2015, arXiv:1508.06576); it needs no training.

    Args:
        spec: what the data looks like.
        style_weight: see above.
        n_levels: resolutions of the feature maps, from the full one down; the content is in those of the last one.
        feature_maps: frozen network; see `zoo.nn.networks.feature_maps`.
        optimizer: with its learning rate and schedule.
    """

    accepts = (Image,)
    paper = "Huang & Belongie 2017 (arXiv:1703.06868)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        style_weight: NonNegative = 10.0,
        n_levels: PositiveInt = 2,
        feature_maps: Annotated[str | dict[str, Any], Component("feature_maps")] = "classifier",
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        features: FeatureMaps = self.build_component("feature_maps", "feature_maps", spec)
        self.features = features.shortened(n_levels)
        self.style_source = self.features.source
        with torch.no_grad():
            n_maps = self.features(torch.zeros(1, *spec.shape))[-1].shape[1]
        self.decoder = MapsToImage(n_maps, spec.shape, n_levels)

    def content_and_style(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Two batches of images (B, C, H, W): the other domain and this one, or the images and each one's neighbour."""
        if not isinstance(self.spec.condition, Unpaired):
            return batch.x, batch.x.roll(1, 0)
        space = self.spec.image
        other = resized(batch.y, (space.height, space.width))
        if other.shape[1] != space.channels:
            other = other.mean(1, keepdim=True).expand(-1, space.channels, -1, -1)
        return other, batch.x

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Distances of content and of style."""
        content, style = self.content_and_style(batch)
        wanted, found = self.features(style), adain(self.features(content)[-1], self.features(style)[-1])
        maps = self.features(self.decoder(found))
        terms = {"content": F.mse_loss(maps[-1], found), "style": statistics_distance(maps, wanted)}
        return {"loss": terms["content"] + self.hparams["style_weight"] * terms["style"], **terms}

    def style_distances(self, found: Tensor, content: Tensor, style: Tensor) -> dict[str, Tensor]:
        """Distances (B,) of images (B, C, H, W) from a style and from a content, in the model's features.

        "style" is that of the loss (equation 13). "content" is the squared distance of the last feature maps, each
        standardised: AdaIN changes only means and deviations.
        """
        maps, contents, styles = self.features(found), self.features(content), self.features(style)
        distances = []
        for a, b in zip(maps, styles, strict=True):
            pairs = zip(mean_and_std(a), mean_and_std(b), strict=True)
            distances.append(torch.stack([(one - two).square().mean((1, 2, 3)) for one, two in pairs]).sum(0))
        plain = [(part - (known := mean_and_std(part))[0]) / known[1] for part in (maps[-1], contents[-1])]
        return {"style": torch.stack(distances).sum(0), "content": (plain[0] - plain[1]).square().mean((1, 2, 3))}

    def charts(self) -> dict[str, list[str]]:
        """Both distances."""
        return super().charts() | {"content": ["train/content", "val/content"], "style": ["train/style", "val/style"]}

    def stylize(
        self,
        x: Tensor,
        style: Tensor,
        *,
        generator: torch.Generator | None = None,
        strength: Fraction = 1.0,
        method: Literal["adain", "gatys"] = "adain",
        steps: PositiveInt = 100,
        gram_weight: NonNegative = 1e4,
    ) -> Tensor:
        """Give images the style of further images: (B, C, H, W) in [0, 1], three times.

        Args:
            x: contents.
            style: styles.
            generator: has no effect.
            strength: 1 for the whole style, 0 for the content as the decoder returns it; of "adain".
            method: "adain" uses the trained decoder, "gatys" optimises the pixels.
            steps: of the optimisation.
            gram_weight: of the distance of Gram matrices in the optimisation, relative to that of the content.

        Raises:
            DataError: images of another shape, or unequal numbers of both.
        """
        for name, images in (("x", x), ("style", style)):
            if images.shape != (len(x), *self.spec.shape):
                raise DataError(
                    f"{name}={tuple(images.shape)}: not {len(x)} of {self.spec.x}. Resize it, or repeat it."
                )
        x, style = x.to(self.device), style.to(self.device)
        if method == "gatys":
            return self.optimize(x, style, steps, gram_weight)
        with torch.no_grad():
            maps = self.features(x)[-1]
            return self.decoder(maps.lerp(adain(maps, self.features(style)[-1]), strength))

    def optimize(self, x: Tensor, style: Tensor, steps: int, gram_weight: float) -> Tensor:
        """Images near the content in the last feature maps, and near the style in the Gram matrices of all layers."""
        content, styles = self.features(x)[-1], self.features(style)
        with torch.enable_grad():
            found = x.detach().clone().requires_grad_()
            optimizer = torch.optim.LBFGS([found], max_iter=steps, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                optimizer.zero_grad()
                maps = self.features(found)
                # Distances are small numbers, whose sum would stop the search; images do not share any of it.
                loss = len(x) * (F.mse_loss(maps[-1], content) + gram_weight * gram_distance(maps, styles))
                loss.backward()
                return loss

            optimizer.step(closure)
        return found.detach().clamp(0, 1)

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Rows of a content, a style, and the result."""
        content, style = (part[:16] for part in self.content_and_style(batch))
        shown = torch.stack([content, style, self.stylize(content, style).to(content)], 1)
        yield Visual("samples", self.spec.x, shown.flatten(0, 1), 12, column_names=("content", "style", "output"))
