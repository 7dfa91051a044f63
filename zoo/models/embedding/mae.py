"""Masked autoencoder: features of pictures, learned by filling in hidden patches."""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.given_parts import expanded_mask
from zoo.models.results import Visual
from zoo.nn.blocks.patch_transformer import PatchTransformer, from_patches, to_patches
from zoo.nn.losses.masked_patches import EPS, hidden_patch_error, normalized_patches
from zoo.nn.optim.components import Optimizer

SEED = 75_000_000  # of the hidden patches outside training
SHOWN = 16  # pictures that are shown


@register("model", "mae")
class MAE(Model):
    """Image encoder that learns by filling in hidden patches (He et al. 2021, arXiv:2111.06377).

    A picture is cut into patches, and most of them are hidden at random. The encoder, a vision transformer, reads the
    visible patches only. A smaller decoder reads its features, and the same learned vector at each hidden place. It
    predicts the values of the hidden patches. The decoder is left out afterwards: `embed_data` gives the mean feature
    of all patches of a whole picture. `loss` is the squared error per value of the hidden patches; labels are not used.

    The best prediction is the mean of the hidden values given the visible ones. So filled-in parts are blurred where
    several contents fit.

    Args:
        spec: images.
        patch: side of a patch in pixels, which divides both sides; 0 gives about 64 patches.
        mask_ratio: share of patches that are hidden.
        normalize_patches: predict each patch less its mean, over its standard deviation, which sharpens the features
            of photos. Such a model does not fill in parts of a picture: their brightness is missing.
        d_model: width of the encoder, the length of the features.
        n_layers: transformer blocks of the encoder.
        n_heads: attention heads of encoder and decoder.
        decoder_width: width of the decoder; 0 is half of d_model.
        decoder_layers: transformer blocks of the decoder.
        optimizer: with its learning rate and schedule; muon takes the matrices of the blocks.

    Raises:
        ConfigError: a patch that does not divide the image, or that is the whole image.
    """

    paper = "He et al. 2021 (arXiv:2111.06377)"
    accepts = (Image,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        patch: Count = 0,
        mask_ratio: Annotated[float, Interval(gt=0.0, lt=1.0)] = 0.75,
        normalize_patches: bool = False,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 4,
        decoder_width: Count = 0,
        decoder_layers: PositiveInt = 1,
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        channels, height, width = spec.shape
        self.patch = patch or default_patch(height, width)
        if height % self.patch or width % self.patch or height * width == self.patch**2:
            raise ConfigError(
                f"model.patch={self.patch}: does not cut images of {height}x{width} into several patches. Choose a "
                "smaller divisor of both sides."
            )
        self.grid = height // self.patch, width // self.patch
        self.n_patches, values = math.prod(self.grid), channels * self.patch**2
        if normalize_patches and values == 1:
            raise ConfigError(f"model.normalize_patches=true: patches of {spec} have one value. Choose a larger patch.")
        width, remedy = decoder_width or d_model // 2, f"Choose a multiple of {2 * n_heads}, or another model.n_heads."
        if d_model % (2 * n_heads):
            raise ConfigError(f"model.d_model={d_model}: must divide into {n_heads} heads of an even width. {remedy}")
        if width % (2 * n_heads):
            default = "" if decoder_width else ", half of model.d_model"
            raise ConfigError(
                f"model.decoder_width={width}{default}: must divide into {n_heads} heads of an even width. {remedy}"
            )
        self.n_visible = min(max(round((1 - mask_ratio) * self.n_patches), 1), self.n_patches - 1)
        self.encoder = PatchTransformer(self.grid, values, d_model=d_model, n_layers=n_layers, n_heads=n_heads)
        self.hidden_token = nn.Parameter(0.02 * torch.randn(d_model))
        self.decoder = PatchTransformer(
            self.grid, d_model, values, d_model=width, n_layers=decoder_layers, n_heads=n_heads
        )
        if normalize_patches:
            self.lacks("inpaint")

    # -- patches -------------------------------------------------------------------------------------------------

    def patches(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1] -> patches (B, T, P) from -1 to 1."""
        return to_patches(2 * x - 1, self.patch)

    def pictures(self, patches: Tensor) -> Tensor:
        """Patches (B, T, P) -> pictures, in [0, 1]."""
        return (from_patches(patches.clamp(-1, 1), self.patch, *self.grid) + 1) / 2

    def target(self, patches: Tensor) -> Tensor:
        """Patches (B, T, P) as they are predicted."""
        return normalized_patches(patches) if self.hparams["normalize_patches"] else patches

    def random_order(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A random order of the patches for each of n pictures, int64 (n, T); the first `n_visible` are visible."""
        place = self.device if generator is None else torch.device("cpu")
        return torch.rand(n, self.n_patches, generator=generator, device=place).argsort(1).to(self.device)

    # -- the objective -------------------------------------------------------------------------------------------

    def predict(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Predictions of all patches (B, T, P), from the patches at visible places (B, V)."""
        seen = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[2]))
        features = self.encoder(seen, visible)
        tokens = self.hidden_token.to(features.dtype).expand(len(patches), self.n_patches, -1)
        return self.decoder(tokens.scatter(1, visible[..., None].expand_as(features), features))

    def error(self, x: Tensor, order: Tensor) -> Tensor:
        """The loss for pictures (B, *shape) and orders of their patches (B, T)."""
        patches, visible = self.patches(x), order[:, : self.n_visible]
        prediction = self.predict(patches, visible)
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, visible, False)
        with torch.autocast(x.device.type, enabled=False):
            return hidden_patch_error(prediction.float(), self.target(patches.float()), hidden)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error per hidden value, where brightness goes from -1 to 1, or of normalised patches."""
        return {"loss": self.error(batch.x, self.random_order(len(batch.x)))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, with the same hidden patches at every validation."""
        order = self.random_order(len(batch.x), torch.Generator().manual_seed(SEED + batch_idx))
        self.log_epoch_mean({"val/loss": self.error(batch.x, order)}, len(batch.x))

    # -- abilities -----------------------------------------------------------------------------------------------

    def embed_data(self, x: Tensor) -> Tensor:
        """Pictures (B, *shape) -> features (B, d_model), the mean over all patches."""
        return self.encoder(self.patches(x)).mean(1)

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Predict the values of x (B, *shape) where the mask is True, given the patches without a masked value.

        The prediction is a mean, and not a sample.

        Args:
            x: pictures; the values under the mask have no effect.
            mask: (B or 1, *shape), or one channel of it; any number of patches may be hidden.
            condition: must be None.
            generator: has no effect.

        Raises:
            DataError: x or a mask that does not fit, or a condition.
        """
        self.check_condition(condition)
        self.spec.x.validate(x)
        new = expanded_mask(mask, x.to(self.device))
        x = x.to(self.device)
        visible = ~to_patches(new.to(x.dtype), self.patch).bool().any(2)  # (B, T)
        features = self.encoder(self.patches(x.masked_fill(new, 0.5)), readable=visible)
        tokens = torch.where(visible[..., None], features, self.hidden_token.to(features.dtype))
        return torch.where(new, self.pictures(self.decoder(tokens)), x)

    def hidden_layers(self) -> list[nn.Module]:
        """The encoder's and the decoder's blocks."""
        return [self.encoder.blocks, self.decoder.blocks]

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Yield held-out pictures, their visible patches, and the filled-in pictures.

        Normalised patches are shown with the mean and the standard deviation of the true ones.
        """
        x = batch.x[:SHOWN]
        patches = self.patches(x)
        visible = self.random_order(len(x), torch.Generator().manual_seed(SEED))[:, : self.n_visible]
        with torch.no_grad():
            filled = self.predict(patches, visible)
        if self.hparams["normalize_patches"]:
            variance, mean = torch.var_mean(patches, -1, correction=0, keepdim=True)
            filled = filled * (variance + EPS).sqrt() + mean
        seen = torch.zeros_like(patches[..., :1], dtype=torch.bool).scatter(1, visible[..., None], True)
        rows = [x, self.pictures(patches * seen), self.pictures(torch.where(seen, patches, filled))]
        yield Visual("filled in", self.spec.x, torch.cat(rows), len(x), ("data", "visible", "filled in"))


def default_patch(height: int, width: int) -> int:
    """The largest side that divides both sides and cuts an image into at least four patches, about 64 if it can."""
    limit = max(round(max(height, width) / 8), 2)
    fits = [p for p in range(1, limit + 1) if not height % p and not width % p and height * width >= 4 * p * p]
    return fits[-1] if fits else 1
