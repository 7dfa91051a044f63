"""Base class of adversarial translation of images: two players, two optimizers, pictures given pictures."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.core.errors import DataError
from zoo.core.space import Space
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.results import Visual
from zoo.models.two_players import TwoPlayers
from zoo.nn.networks.translators import BoundedTranslator, resized
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

CHUNK = 64  # images that are translated together


class ImageToImage(TwoPlayers):
    """Generators that translate images, against discriminators.

    A batch holds target images x and source images y, both in [0, 1]. The players see them in [-1, 1]. A subclass sets
    `generators` and `discriminators`, and writes `generator_terms` and `discriminator_terms`.

    Args:
        spec: images given images.

    Raises:
        DataError: data without an image as condition.
    """

    accepts = (Image,)
    required_condition: ClassVar[tuple[type[Space], ...]] = (Image,)  # what the data must be given with
    generators: nn.ModuleDict
    discriminators: nn.ModuleDict

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        given = spec.condition
        if not isinstance(given, self.required_condition):
            have = "nothing" if given is None else str(given)
            remedy = "data=picture_pairs or data=restoration"
            remedy += (
                ", or data=two_domains" if len(self.required_condition) > 1 else ", or for two domains model=cyclegan"
            )
            raise DataError(
                f"model={self.display_name}: learns images given images, but {spec.name or 'data'} is given {have}. "
                f"Choose {remedy}."
            )
        source = given.domain if isinstance(given, Unpaired) else given
        if not isinstance(source, Image):
            raise DataError(f"model={self.display_name}: the other domain is {source}. Choose images.")
        self.source: Image = source
        self.automatic_optimization = False  # two players, two optimizers

    def build_translator(self, source: Image, target: Image) -> BoundedTranslator:
        """Build the network of the setting `translator` between two spaces."""
        network = self.build_component("translator", "translator", source.channels, target.shape)
        return BoundedTranslator(network, (target.height, target.width))

    # -- training ------------------------------------------------------------------------------------------------

    def players(self) -> tuple[nn.Module, nn.Module]:
        """Generators and discriminators."""
        return self.generators, self.discriminators

    def modules_to_compile(self) -> list[nn.Module]:
        """Networks of both players."""
        return [*self.generators.values(), *self.discriminators.values()]

    def modules_to_average(self) -> dict[str, nn.Module]:
        """The generators."""
        return {"generators": self.generators}

    def charts(self) -> dict[str, list[str]]:
        """Both players on one chart."""
        return {"players": ["train/loss_d", "train/loss_g"]}

    # -- translation ---------------------------------------------------------------------------------------------

    def source_space(self, *, reverse: bool = False) -> Image:
        """Images that `translate` takes."""
        return self.spec.image if reverse else self.source

    @torch.no_grad()
    def run_generator(self, generator: nn.Module, x: Tensor, source: Image) -> Tensor:
        """Images (B, C, h, w) in [0, 1] -> translations in [0, 1], in evaluation mode.

        Raises:
            DataError: images of another shape.
        """
        if tuple(x.shape[1:]) != source.shape:
            raise DataError(f"x={tuple(x.shape)}: not a batch of {source}. Resize it, or choose another model.")
        mode = self.training
        self.eval()
        try:
            parts = x.to(self.device).split(CHUNK)
            return torch.cat([in_data_range(generator, part) for part in parts])
        finally:
            self.train(mode)

    def export_module(self) -> ExportableSampler:
        """Source images in [0, 1] -> target images."""
        network = self.generators["target"]
        inputs = [InputSpec("image", "uniform", self.source.shape)]
        return ExportableSampler(partial(in_data_range, network), inputs, network)

    def as_target(self, y: Tensor) -> Tensor:
        """Source images (B, C', h, w) in the size and channels of target images, to show them side by side."""
        space = self.spec.image
        y = resized(y, (space.height, space.width))
        return y if len(y[0]) == space.channels else y.mean(1, keepdim=True).expand(-1, space.channels, -1, -1)

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Rows of a source image, its translation, and the target image."""
        x, y = (part[:16] for part in batch)
        shown = torch.stack([self.as_target(y), self.translate(y).to(x), x], 1)
        yield Visual("samples", self.spec.x, shown.flatten(0, 1), 12, column_names=("input", "output", "target"))


def in_data_range(generator: nn.Module, x: Tensor) -> Tensor:
    """Images in [0, 1] -> translations in [0, 1], by a network between images in [-1, 1]."""
    return ((generator(2 * x - 1) + 1) / 2).clamp(0, 1)
