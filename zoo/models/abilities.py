"""Protocols of what a model can do beyond a loss."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from zoo.data.batch import Batch
from zoo.nn.samplers.exportable import ExportableSampler


@runtime_checkable
class SupportsLogProb(Protocol):
    """Exact log-likelihood."""

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Nats per sample, (B,)."""


@runtime_checkable
class SupportsBound(Protocol):
    """A lower bound on the log-likelihood that k samples tighten."""

    def bound(self, x: Tensor, k: int = 1, y: Tensor | None = None) -> Tensor:
        """Nats per sample, (B,)."""


@runtime_checkable
class SupportsLatents(Protocol):
    """A latent vector for each sample, and the way back."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, D), without randomness."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, D) -> data (B, *shape)."""

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> data, through the latent, without randomness."""


@runtime_checkable
class SupportsPosterior(Protocol):
    """A normal distribution over the latent of each sample."""

    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each (B, D)."""


@runtime_checkable
class SupportsPrior(Protocol):
    """A distribution that latents are drawn from before they are decoded."""

    def draw_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n latents, (n, D)."""


@runtime_checkable
class SupportsInterpolation(Protocol):
    """Walks between samples through the latent space."""

    def interpolate(self, n: int, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n walks of so many steps: data (n, steps, *shape)."""


@runtime_checkable
class SupportsExport(Protocol):
    """A sampler that programs can run which know nothing of the zoo."""

    def core(self) -> ExportableSampler:
        """Its deterministic part, with the random numbers that it takes."""


@runtime_checkable
class SupportsTextGeneration(Protocol):
    """Continues text."""

    def generate(self, prompts: list[str], **options: Any) -> list[Any]:
        """One completion per prompt; see `zoo.nn.samplers.autoregressive`."""


@runtime_checkable
class SupportsMaskFilling(Protocol):
    """Restores what is hidden in a text."""

    mark: str  # what stands in the text for one hidden token

    def fill(self, texts: list[str], **options: Any) -> list[str]:
        """The texts with something in place of each mark."""


@runtime_checkable
class SupportsAttentionMaps(Protocol):
    """Attention that can be looked at."""

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """The weights (B, H, T, S) of each layer by its name, first to last: of position T for position S."""


@runtime_checkable
class SupportsTokenLoss(Protocol):
    """A cost for each token of a text."""

    tokenizer: Any

    def nats(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats of every target token (B, T), zero where it is not scored; and the targets, negative there."""


@runtime_checkable
class SupportsTokenAccuracy(Protocol):
    """A token that it holds for the likeliest, in every place."""

    def guesses(self, batch: Batch) -> Tensor:
        """Is it the right one? (N,), for all tokens that are asked for."""
