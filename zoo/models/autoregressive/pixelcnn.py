"""PixelCNN: images level by level, or codes one by one, through convolutions, with exact likelihoods."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Codes, Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.autoregressive.base import marginal_log_prob
from zoo.models.base import Model
from zoo.nn.distributions.likelihoods import to_level
from zoo.nn.networks.pixelcnn import GatedPixelCNN
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import parse_sampling


def shape_of(space: Space) -> tuple[int, int, int]:
    """Channels, height and width: of codes, the number of codes at a place, and the grid; a row has height 1.

    Raises:
        ZooError: codes of videos, whose grid has a third dimension.
    """
    if isinstance(space, Codes) and space.frames:
        raise ZooError("model=pixelcnn: learns codes on a plane, and these are of videos. Choose gpt or maskgit.")
    if not isinstance(space, Codes) or len(space.grid) != 3:
        channels, height, width = (1, 1, *space.shape)[-3:]
        return channels, height, width
    height, width, depth = space.grid
    return depth, height, width


@register("model", "pixelcnn")
class PixelCNN(ExactLikelihood, Model):
    """Gated PixelCNN: the distribution of every level of every channel, given all levels before it.

    The order is that of rows, columns, and channels (red, green, blue). `loss` is exact nats per image. Sampling
    computes each position once.

    Codes of a quantiser are levels without an order, each read as an embedding of its number (VQ-VAE,
    arXiv:1711.00937). Several codes of one place are its channels. A row of codes, such as those of several grids, is
    an image of height 1. What a code depends on ends with the receptive field.

    Args:
        spec: what the data looks like.
        conditional: shift the features of every layer by a class embedding.
        channels: feature maps of each of the two stacks.
        n_layers: number of layers, with the first.
        first_kernel: kernel size of the first layer; odd.
        kernel: kernel size of the other layers; odd.
        embedding: numbers by which a code is read; pixels are read by their value.
        optimizer: with its learning rate and schedule.

    Raises:
        ZooError: an even kernel, fewer channels than colours, or codes of videos.
    """

    accepts = (Image, Codes)
    paper = "van den Oord et al. 2016 (arXiv:1606.05328)"
    likelihood_kind = "discrete"

    def __init__(
        self,
        spec: DataSpec,
        *,
        conditional: bool = False,
        channels: PositiveInt = 64,
        n_layers: PositiveInt = 8,
        first_kernel: PositiveInt = 7,
        kernel: PositiveInt = 3,
        embedding: PositiveInt = 32,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        codes = isinstance(spec.x, Codes)
        self.levels = spec.x.codebook_size if isinstance(spec.x, Codes) else spec.image.n_levels
        self.shape = shape_of(spec.x)
        self.net = GatedPixelCNN(
            self.shape,
            self.levels,
            spec.n_classes if conditional else 0,
            channels=channels,
            n_layers=n_layers,
            first_kernel=first_kernel,
            kernel=kernel,
            embedding=embedding if codes else 0,
        )

    # -- data and levels -------------------------------------------------------------------------------------

    def to_levels(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1], or codes (B, *grid) -> levels int64 (B, C, H, W)."""
        if not isinstance(self.spec.x, Codes):
            return to_level(x, self.levels).long()
        return x.movedim(-1, 1) if len(self.spec.shape) == 3 else x.reshape(x.shape[0], *self.shape)

    def from_levels(self, level: Tensor) -> Tensor:
        """Inverse of `to_levels`."""
        if not isinstance(self.spec.x, Codes):
            return level / (self.levels - 1)
        return level.movedim(1, -1) if len(self.spec.shape) == 3 else level.reshape(level.shape[0], *self.spec.shape)

    # -- likelihood ------------------------------------------------------------------------------------------

    def level_nll(self, x: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood of every level, or code, (B, C, H, W) in nats."""
        level = self.to_levels(x)
        logits = self.net(level, y)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, level, reduction="none")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image."""
        loss = self.level_nll(*batch).flatten(1).sum(1).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.size * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,); a conditional model without labels averages over the classes."""
        if y is None and self.conditional:
            return marginal_log_prob(self.log_prob, x, self.class_shares)
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        return -self.level_nll(x, y).flatten(1).sum(1)

    # -- sampling --------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Images (n, C, H, W), or codes int64 (n, *grid).

        Args:
            n: number of samples.
            condition: class labels (n,), for a conditional model.
            generator: source of randomness.
            **options: those of `zoo.nn.samplers.sampling_params.SamplingParams`.
        """
        self.check_condition(condition)
        how = parse_sampling(options)
        if not n:
            return self.from_levels(torch.empty(0, *self.shape, dtype=torch.long))
        labels = self.resolve_labels(n, condition, generator) if self.conditional else torch.zeros(n, dtype=torch.long)
        rows = (labels[:, None] + self.levels).tolist()
        steps = sample_tokens(self.net, rows, how, generator=generator, block_size=self.spec.size, device=self.device)
        channels, height, width = self.shape
        return self.from_levels(next(steps)[0].view(n, height, width, channels).permute(0, 3, 1, 2))

    # -- training --------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and bits per dimension, which compares between families."""
        return {
            "loss": ["train/loss", "val/loss"],
            "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"],
        }
