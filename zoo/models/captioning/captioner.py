"""Captioner: a text that describes a picture."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, Fraction, NonNegative, PositiveInt
from zoo.core.spaces import ABSENT, Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.models.autoregressive.base import token_nll
from zoo.models.base import Model
from zoo.nn.networks.components import Encoder
from zoo.nn.networks.image_to_text import ImageToText
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams


@register("model", "captioner")
class Captioner(Model):
    """Image encoder, and a text decoder that attends to its features (Vinyals et al. 2015; Xu et al. 2015).

    p(caption | picture) is a product over tokens, end included, so that likelihoods are exact. `loss` is in nats per
    caption. For data with class labels, a label is a text of one token, and the model is a classifier.

    Args:
        spec: images with captions, or with class labels.
        n_features: vectors of a picture that the decoder attends to.
        d_model: width of these vectors and of the decoder, a multiple of n_heads.
        n_layers: blocks of the decoder.
        n_heads: attention heads.
        dropout: of the decoder.
        word_dropout: share of earlier words that training hides (Bowman et al. 2016, arXiv:1511.06349). The decoder
            then relies on the picture, and less on sequences of words.
        optimizer: with its learning rate and schedule.
        encoder: of pictures.

    Raises:
        DataError: images without captions and labels.
    """

    paper = "Vinyals et al. 2015 (arXiv:1411.4555); Xu et al. 2015 (arXiv:1502.03044)"
    accepts = (Image,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_features: PositiveInt = 8,
        d_model: PositiveInt = 64,
        n_layers: PositiveInt = 2,
        n_heads: PositiveInt = 4,
        dropout: DropoutRate = 0.0,
        word_dropout: Fraction = 0.0,
        optimizer: Optimizer = "adamw",
        encoder: Encoder = "auto",
    ) -> None:
        super().__init__(spec)
        text = spec.condition
        if not isinstance(text, Tokens) and not spec.n_classes:
            raise DataError(
                f"model=captioner: {spec} has no captions. Choose data with captions, as data=captioned_shapes."
            )
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if isinstance(text, Tokens) else None
        if isinstance(text, Tokens):
            known: Any = self.tokenizer
            self.length, self.begin, self.end, n_tokens = text.length, known.begin, known.end, text.vocab_size
        else:
            self.lacks("caption")
            self.length, self.begin, self.end, n_tokens = 1, spec.n_classes, spec.n_classes, spec.n_classes + 1
        features = self.build_component("encoder", "encoder", spec.shape, n_features * d_model)
        self.net = ImageToText(
            features, n_tokens, self.length + 1, n_features=n_features, d_model=d_model, n_layers=n_layers,
            n_heads=n_heads, dropout=dropout,
        )  # fmt: skip

    # -- likelihood ------------------------------------------------------------------------------------------

    def targets(self, y: Tensor) -> Tensor:
        """Tokens (B, T), negative for padding, or labels (B,) -> the same with an end, (B, T + 1)."""
        target = F.pad(y[:, None] if y.ndim == 1 else y, (0, 1), value=ABSENT)
        return target.scatter(1, (target >= 0).sum(1, keepdim=True), self.end)

    def logits(self, x: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V) of every target token (B, T), given pictures (B, *shape) and the tokens before it."""
        words = target[:, :-1].clamp(min=0)  # (B, T - 1)
        if self.training and self.hparams["word_dropout"]:
            words = words.masked_fill(
                torch.rand(words.shape, device=x.device) < self.hparams["word_dropout"], self.begin
            )
        logits: Tensor = self.net(x, F.pad(words, (1, 0), value=self.begin))
        return logits.float()

    def caption_log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log-likelihood in nats (B,) of captions (B, T) given pictures (B, *shape), ends included."""
        target = self.targets(y)
        return -token_nll(self.logits(x, target), target).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per caption, and the share of captions that greedy decoding gets right in all tokens."""
        target = self.targets(batch.y)
        logits = self.logits(batch.x, target)
        right = ((logits.argmax(2) == target) | (target < 0)).all(1)
        return {"loss": token_nll(logits, target).sum(1).mean(), "caption_right": right.float().mean()}

    # -- captions --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample_captions(self, x: Tensor, params: SamplingParams, generator: torch.Generator | None = None) -> Tensor:
        """Captions of pictures (B, *shape): tokens (B, T), `ABSENT` after each."""
        training = self.training
        self.eval()
        try:
            net: Any = self.net.after(x.to(self.device))
            steps = sample_tokens(
                net, [[self.begin]] * len(x), params, generator=generator,
                block_size=self.length, device=self.device, begin=self.begin,
            )  # fmt: skip
            tokens = next(steps)[0]  # (B, length)
        finally:
            self.train(training)
        return tokens.masked_fill((tokens == self.end).cumsum(1) > 0, ABSENT)

    def caption(
        self,
        x: Tensor,
        *,
        temperature: NonNegative = 0.0,
        top_k: Count = 0,
        top_p: Fraction = 1.0,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """A caption of each picture (B, *shape).

        Args:
            x: pictures.
            temperature: divides the logits; 0 is the likeliest token each time, 1 draws from the model.
            top_k: keep only the k likeliest tokens; 0 keeps all.
            top_p: keep the smallest set of likeliest tokens with this much probability.
            generator: source of randomness; equal seeds give equal captions.
        """
        params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
        rows = self.sample_captions(x, params, generator).tolist() if len(x) else []
        return [self.tokenizer.decode([token for token in row if token >= 0]) for row in rows]

    # -- dashboards ------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and captions that are right."""
        return {"loss": ["train/loss", "val/loss"], "captions right": ["train/caption_right", "val/caption_right"]}

    def hidden_layers(self) -> list[nn.Module]:
        """Encoder, and blocks of the decoder."""
        return [self.net.encoder, self.net.blocks]
