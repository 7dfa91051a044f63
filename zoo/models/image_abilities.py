"""Abilities of models of images, as protocols; see `zoo.models.ability`."""

from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.space import Space
from zoo.models.ability import ability


@ability("denoising", "denoising steps")
class SupportsDenoising(Protocol):
    """Shows how its samples come about."""

    def denoising(
        self,
        n: int,
        frames: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Estimates of the data from the first to the last step of `sample`, (n, frames, *shape)."""


@ability("edit", "edit")
class SupportsEditing(Protocol):
    """Makes variations of data."""

    def edit(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        strength: float = 0.6,
        **options: Any,
    ) -> Tensor:
        """Variations of data (B, *shape), from nearly equal to free at strength 1; class labels (B,) or none."""


@ability("inpaint", "inpaint")
class SupportsInpainting(Protocol):
    """Replaces a part of data by a sample that fits to the rest."""

    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Data (B, *shape) with new values where the mask (B or 1, *shape), or one channel of it, is True."""


@ability("predict_frames", "continue videos")
class SupportsFramePrediction(Protocol):
    """Continues videos."""

    def predict_frames(
        self, x: Tensor, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """First frames (B, K, C, H, W) -> whole videos (B, *shape) that begin with them; class labels (B,) or none."""


@ability("super_resolve", "super-resolve")
class SupportsSuperResolution(Protocol):
    """Adds resolution to images."""

    def super_resolve(
        self, x: Tensor, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """Images (B, C, H / f, W / f) -> images (B, C, H, W), for an integer f that the sizes give."""


@ability("colorize", "add colour")
class SupportsColorization(Protocol):
    """Adds colour to images."""

    def colorize(
        self, x: Tensor, *, condition: Tensor | None = None, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """Grey images (B, 1, H, W) -> colour images (B, 3, H, W)."""


@ability("translate", "translate images")
class SupportsImageTranslation(Protocol):
    """Turns images into images of another kind."""

    def translate(self, x: Tensor, *, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """Images (B, *source_space.shape) -> images (B, *shape)."""

    def source_space(self, *, reverse: bool = False) -> Space:
        """The images that `translate` takes; with `reverse=True`, where `translate` has this option."""


@ability("stylize", "transfer styles")
class SupportsStyleTransfer(Protocol):
    """Gives images the style of other images."""

    style_source: str  # whose features style is measured in, for people

    def stylize(self, x: Tensor, style: Tensor, *, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """Contents and styles (B, *shape) -> images (B, *shape)."""


@ability("caption", "caption pictures")
class SupportsCaptioning(Protocol):
    """Describes data by texts."""

    tokenizer: Any

    def caption(self, x: Tensor, *, generator: torch.Generator | None = None, **options: Any) -> list[str]:
        """A text for each of the data (B, *shape); the default is the likeliest token each time."""

    def caption_log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log-likelihood in nats (B,) of texts, tokens (B, T), given data (B, *shape)."""


@ability("answer", "answer questions")
class SupportsQuestionAnswering(Protocol):
    """Answers questions about data."""

    tokenizer: Any

    def answer(self, x: Tensor, questions: list[str]) -> list[list[str]]:
        """The likeliest answer to each question about each of the data (B, *shape): a list for each."""

    def answer_tokens(self, x: Tensor, questions: Tensor) -> Tensor:
        """The likeliest answers, tokens (B, Q), to questions (B, Q, T) about each of the data (B, *shape)."""
