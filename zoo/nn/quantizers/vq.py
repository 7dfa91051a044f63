"""Vector quantisation: nearest neighbours in a learned codebook, and residual quantisation by several of them."""

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.nn.quantizers.base import Quantizer

Decay = Annotated[float, Interval(ge=0.0, lt=1.0)]


@register("quantizer", "vq")
class VectorQuantizer(Quantizer):
    """Nearest neighbour in a codebook (van den Oord et al. 2017, arXiv:1711.00937).

    With `update=ema`, codes follow the mean of their vectors: one step of k-means for decay 0 (appendix A.1 of the
    paper). With "gradient", the loss moves them (equation 3). A code in use by fewer than `revive_below` vectors of a
    batch on average is dead. It is replaced by a random vector of the batch (Dhariwal et al. 2020, arXiv:2005.00341).
    All codes are dead at first, so the first batch of a training fills the codebook.

    Args:
        dim: length of a vector.
        n_codes: size of the codebook.
        update: "ema" or "gradient".
        decay: of the moving averages.
        commitment: weight of the squared distance of vectors from their codes, which draws the encoder to them.
        cosine: vectors and codes have length 1 (Yu et al. 2021, arXiv:2110.04627).
        revive_below: see above; 0 revives nothing, after the first batch.
    """

    codebook: Tensor  # (K, D)
    usage: Tensor  # moving average of the number of vectors per code, (K,); all zero before the first batch
    total: Tensor  # moving average of the sum of these vectors, (K, D)

    def __init__(
        self,
        *,
        dim: PositiveInt = 16,
        n_codes: PositiveInt = 256,
        update: Literal["ema", "gradient"] = "ema",
        decay: Decay = 0.99,
        commitment: NonNegative = 0.25,
        cosine: bool = False,
        revive_below: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        self.dim, self.n_codes = dim, n_codes
        self.update, self.decay, self.commitment = update, decay, commitment
        self.cosine, self.revive_below = cosine, revive_below
        start = self.prepare(torch.randn(n_codes, dim))
        if update == "gradient":
            self.codebook = nn.Parameter(start)
        else:
            self.register_buffer("codebook", start)
            self.register_buffer("total", torch.zeros(n_codes, dim))
        self.register_buffer("usage", torch.zeros(n_codes))

    def prepare(self, z: Tensor) -> Tensor:
        """Vectors (N, D), of length 1 if `cosine`."""
        return F.normalize(z, dim=-1) if self.cosine else z

    def nearest(self, z: Tensor) -> Tensor:
        """Index (N,) of the nearest code of each vector (N, D)."""
        book = self.prepare(self.codebook.detach()).to(z.dtype)
        return (book.square().sum(1) - 2 * z @ book.T).argmin(1)  # |z|^2 is the same for all codes

    def vectors(self, index: Tensor) -> Tensor:
        """Indices (N,) -> codes (N, D)."""
        return self.prepare(self.codebook[index])

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Quantizer`."""
        if self.training:
            self.revive(z.detach())
        index = self.nearest(z.detach())
        code = self.vectors(index).to(z.dtype)
        loss = self.commitment * (z - code.detach()).square().sum()
        if self.update == "gradient":
            loss = loss + (code - z.detach()).square().sum()
        if self.training:
            self.observe(z.detach(), index)
        return code, index, loss

    @torch.no_grad()
    def observe(self, z: Tensor, index: Tensor) -> None:
        """Update the averages, and the codes if `update=ema`, by vectors (N, D) of all processes."""
        usage = torch.zeros_like(self.usage).index_add_(0, index, torch.ones_like(index, dtype=self.usage.dtype))
        summed(usage)
        self.usage.lerp_(usage, 1 - self.decay)
        if self.update == "ema":
            total = torch.zeros_like(self.total).index_add_(0, index, z.to(self.total.dtype))
            summed(total)
            self.total.lerp_(total, 1 - self.decay)
            used = self.usage[:, None] > 0
            mean = self.total / self.usage[:, None].clamp(min=1e-12)
            self.codebook.copy_(torch.where(used, self.prepare(mean), self.codebook))

    @torch.no_grad()
    def revive(self, z: Tensor) -> None:
        """Replace dead codes by random vectors of a batch (N, D); the host does not wait for the device."""
        first = ~self.usage.any()
        dead = first | (self.usage < self.revive_below)  # (K,)
        drawn = z[torch.randint(len(z), (self.n_codes,), device=z.device)].to(self.codebook.dtype)
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(drawn, 0)
        self.codebook.copy_(torch.where(dead[:, None], drawn, self.codebook))
        alive = 2 * self.revive_below  # a new code without vectors is dead again after ln 2 / (1 - decay) batches
        self.usage.masked_fill_(dead, alive)
        if self.update == "ema":
            self.total.copy_(torch.where(dead[:, None], alive * drawn, self.total))


@register("quantizer", "rvq")
class ResidualQuantizer(Quantizer):
    """Residual quantisation: each codebook quantises what those before it leave (Lee et al. 2022, arXiv:2203.01941).

    Args:
        dim: length of a vector.
        n_codes: size of each codebook.
        depth: number of codebooks.
        decay: see `vq`.
        commitment: see `vq`; of every partial sum.
        revive_below: see `vq`.
    """

    def __init__(
        self,
        *,
        dim: PositiveInt = 16,
        n_codes: PositiveInt = 128,
        depth: Annotated[int, Interval(ge=2, le=64)] = 4,
        decay: Decay = 0.99,
        commitment: NonNegative = 0.25,
        revive_below: NonNegative = 0.1,
    ) -> None:
        super().__init__()
        self.dim, self.n_codes, self.depth = dim, n_codes, depth
        given = {"dim": dim, "n_codes": n_codes, "decay": decay, "commitment": commitment}
        self.layers = nn.ModuleList(VectorQuantizer(**given, revive_below=revive_below) for _ in range(depth))  # type: ignore[arg-type]

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Quantizer`."""
        code, indices, total = torch.zeros_like(z), [], z.new_zeros(())
        for layer in self.layers:
            part, index, loss = layer.quantize(z - code)  # type: ignore[operator]
            code, total = code + part.detach(), total + loss
            indices.append(index)
        return code, torch.stack(indices, -1), total

    def vectors(self, index: Tensor) -> Tensor:
        """Indices (N, depth) -> sums of codes (N, D)."""
        parts = [layer.vectors(one) for layer, one in zip(self.layers, index.unbind(-1), strict=True)]  # type: ignore[operator]
        return torch.stack(parts).sum(0)


def summed(counts: Tensor) -> None:
    """Sum a tensor over all processes, in place."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
