"""BERT: masked language modelling with a bidirectional encoder."""

import math
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative
from zoo.core.spaces import ABSENT, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.models.base import Model
from zoo.models.masked.base import MaskFilling, seeded, strip_padding
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.networks.components import Backbone
from zoo.nn.networks.transformer_encoder import TransformerEncoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.muon import hidden_layers
from zoo.nn.samplers.autoregressive import RowNoise
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.text_stream import Completion

SEED = 30_000_000  # of the masks of validation


@register("model", "bert")
class BERT(MaskFilling, Model):
    """BERT: a bidirectional encoder, the backbone, trained by masked language modelling.

    A share `mlm_probability` of the tokens is selected: 80 % become the mask token, 10 % a random token, and 10 % stay.
    `loss` is nats per selected token, and `accuracy` the share predicted correctly. A text does not have a likelihood;
    `pseudo_log_prob` scores each token given all others. `fill` replaces masks, `embed` returns a vector per text, and
    `generate` appends masks and fills them in random order.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        backbone: the encoder: transformer_encoder, or a registered one.
        mlm_probability: share of the tokens to predict.
        optimizer: with its learning rate and schedule.
        temperature: default of text generation; 0 takes the likeliest tokens, the most confident first.
        top_p: default of text generation.
        pooling: vector of a text from the features of its tokens: mean, first token, or maximum of each channel
            (Reimers & Gurevych 2019, arXiv:1908.10084).
        normalize: divide the vector of a text by its length.
        embedded_tokens: most tokens of a text that its vector depends on; 0 is the context.
    """

    accepts = (Tokens,)
    shardable = True
    paper = "Devlin et al. 2018 (arXiv:1810.04805)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer_encoder",
        mlm_probability: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.15,
        optimizer: Optimizer = "muon",
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
        pooling: Literal["mean", "first", "max"] = "mean",
        normalize: bool = False,
        embedded_tokens: Count = 0,
    ) -> None:
        super().__init__(spec)
        self.mask_token = size = spec.tokens.vocab_size  # the mask token, after the vocabulary
        self.net = self.build_component("backbone", "backbone", size + 1, size, spec.size, method="features")
        text = spec.tokens
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None
        if isinstance(self.net, TransformerEncoder) and self.net.head is None:
            self.lacks("sample", "generate", "fill", "attention", "token_accuracy")

    # -- objective -------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), negative for padding -> logits (B, T, V) of every position."""
        return self.net(tokens)

    def corrupt(self, tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Corrupted tokens (B, T), and the selected positions (N,) in the flattened texts, padding included.

        The positions are drawn on the CPU, so their number needs no synchronisation with the device.
        """
        drawn = torch.rand(2, *tokens.shape, generator=generator)
        places = (
            (drawn[0] < self.hparams["mlm_probability"]).flatten().nonzero()[:, 0].to(tokens.device, non_blocking=True)
        )
        chance, other = drawn.to(tokens.device, non_blocking=True)
        fate = chance / self.hparams["mlm_probability"]  # uniform in [0, 1) where selected
        asked = (chance < self.hparams["mlm_probability"]) & (tokens >= 0)
        read = tokens.masked_fill(asked & (fate < 0.8), self.mask_token)
        strange = (other * self.spec.tokens.vocab_size).long()
        return torch.where(asked & (fate >= 0.8) & (fate < 0.9), strange, read), places

    def masked_nll(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Negative log-likelihood in nats, whether it was predicted, and whether it is a token, per position (N,)."""
        tokens = strip_padding(batch)
        read, places = self.corrupt(tokens, generator)
        wanted = tokens.flatten()[places]
        # The head reads selected positions only: with a large vocabulary it is most of the work.
        logits = self.net(read, places)  # (N, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        nats = F.cross_entropy(logits, wanted, ignore_index=ABSENT, reduction="none")
        return nats, logits.argmax(-1) == wanted, wanted >= 0

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the likeliest token is the original, for every token (N,) that is selected at random."""
        _, found, real = self.masked_nll(batch)
        return found[real]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per selected token, and the share predicted correctly."""
        nats, found, real = self.masked_nll(batch)
        number = real.sum().clamp(min=1)
        return {"loss": nats.sum() / number, "accuracy": found.sum() / number}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms over the whole split, with the same masks at every validation."""
        nats, found, real = self.masked_nll(batch, torch.Generator().manual_seed(SEED + batch_idx))
        if number := int(real.sum()):
            self.log_epoch_mean({"val/loss": nats.sum() / number, "val/accuracy": found.sum() / number}, number)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, T) of each block, without masking."""
        return attention_maps(self.net, lambda: self.net(strip_padding(batch)))

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Sum over the tokens x (B, T) of the log-probability of each given all others, in nats (B,).

        A score, not a likelihood (Salazar et al. 2020, arXiv:1910.14659). It takes T passes, one batch per text.
        """
        scores = []
        for tokens in x:
            each = tokens.expand(len(tokens), -1).clone()  # (T, T)
            each.fill_diagonal_(self.mask_token)
            logits = self(each).diagonal(dim1=0, dim2=1).T  # (T, V): row t predicts position t
            scores.append(logits.float().log_softmax(-1).gather(1, tokens[:, None]).sum())
        return torch.stack(scores)

    # -- texts -----------------------------------------------------------------------------------------------

    def embed(self, texts: str | list[str]) -> Tensor:
        """Texts -> vectors (N, d): pooled features of their tokens. A longer text is cut before its end token."""
        after = [] if self.tokenizer is None else self.tokenizer.affixes[1]
        rows = [self.read(text) for text in ([texts] if isinstance(texts, str) else texts)]
        most = min(self.hparams["embedded_tokens"] or self.spec.size, self.spec.size)
        cut = most - len(after)
        tokens = self.padded([row if len(row) <= most else row[:cut] + after for row in rows])
        features, real = self.net.features(tokens), (tokens >= 0)[..., None]  # (N, T, d), (N, T, 1)
        if self.hparams["pooling"] == "first":
            vectors = features[:, 0]
        elif self.hparams["pooling"] == "max":
            vectors = features.masked_fill(~real, -torch.inf).amax(1)
        else:
            vectors = (features * real).sum(1) / real.sum(1)
        return F.normalize(vectors, dim=1) if self.hparams["normalize"] else vectors

    @torch.no_grad()
    def iterative_unmask(
        self, tokens: Tensor, how: SamplingParams, generator: torch.Generator | None = None, per_step: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Fill the masks among tokens (B, T), `per_step` of each row at a time.

        The order is random; at temperature 0, the most confident first (Ghazvininejad et al. 2019, arXiv:1904.09324).

        Returns:
            The tokens (B, T), and the log-probability of the filled tokens of each row (B,).
        """
        training = self.training
        self.eval()
        rows, columns = tokens.shape
        tokens, total = tokens.clone(), torch.zeros(rows, device=self.device)
        noise = RowNoise(rows, generator)  # of whole contexts: other rows change the padding of a row, not its numbers
        order = noise.draw(self.spec.size)[:, :columns].to(self.device)
        most = int((tokens == self.mask_token).sum(1).max()) if tokens.numel() else 0
        for _ in range(math.ceil(most / per_step)):
            logits = self(tokens).float()  # (B, T, V)
            uniform = noise.draw(self.spec.size)[:, :columns].to(self.device)
            chosen = how.sample(logits.flatten(0, 1), uniform.flatten()).view(rows, columns)
            sure = logits.log_softmax(-1).gather(2, chosen[..., None]).squeeze(2)
            rank = (sure if how.temperature == 0 else order).masked_fill(tokens != self.mask_token, -torch.inf)
            best = rank.topk(min(per_step, columns), dim=1)
            here = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, best.indices, best.values > -torch.inf)
            tokens, total = torch.where(here, chosen, tokens), total + (sure * here).sum(1)
        self.train(training)
        return tokens, total

    def fill(self, texts: str | list[str], *, seed: int | None = None, per_step: int = 1, **options: Any) -> list[str]:
        """Replace each `[MASK]` in texts by one token.

        Args:
            texts: within the context.
            seed: of the sampling; None uses torch's global generator.
            per_step: tokens of a text filled at once; more take fewer passes, but are independent of each other.
            **options: those of `zoo.nn.samplers.sampling_params.SamplingParams`.

        Raises:
            ZooError: a text longer than the context, or a model of other data than text.
        """
        how, generator = self._params(options), seeded(seed)
        return self.fill_masks(texts, lambda tokens: self.iterative_unmask(tokens, how, generator, per_step))

    def generate(
        self,
        prompts: str | list[str],
        *,
        max_new_tokens: Count | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        beams: int = 1,
        per_step: int = 4,
        **options: Any,
    ) -> list[Completion]:
        """Continue texts: append masks, fill them, and cut at the first end token.

        Args:
            prompts: texts; `[MASK]` in them is filled too, but not returned.
            max_new_tokens: None fills the context.
            stop: stop sequences and special tokens, which are left out.
            seed: see `fill`.
            beams: must be 1: generation is not from left to right.
            per_step: see `fill`.
            **options: see `fill`.

        Raises:
            ZooError: a prompt longer than the context, or an option that is not supported.
        """
        how, generator = self._params(options), seeded(seed)
        return self.continue_texts(
            prompts, max_new_tokens, stop, beams, lambda tokens: self.iterative_unmask(tokens, how, generator, per_step)
        )

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample texts from their beginning: token ids (n, T), padded with the end token.

        Args:
            n: number of texts.
            condition: must be None; `fill` takes texts with masks.
            generator: source of randomness.
            **options: `max_new_tokens` (None fills the context) and those of `fill`.
        """
        self.check_condition(condition)
        begin = [self.end] if self.tokenizer is None else self.tokenizer.encode_prompt("")[:1]
        length = min(options.pop("max_new_tokens", None) or self.spec.size, self.spec.size - 1)
        per_step = options.pop("per_step", 1)
        tokens = torch.tensor([begin + [self.mask_token] * length], device=self.device).expand(n, -1)
        tokens = self.iterative_unmask(tokens, self._params(options), generator, per_step)[0][:, 1:]
        ends = [self.end] if self.tokenizer is None else self.tokenizer.ends
        return tokens.masked_fill(torch.isin(tokens, torch.tensor(ends, device=tokens.device)).cumsum(1) > 0, self.end)

    def _params(self, options: dict[str, Any]) -> SamplingParams:
        return self.sampling_params(options, temperature=self.hparams["temperature"], top_p=self.hparams["top_p"])

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The backbone's blocks."""
        return hidden_layers(self.net)

    def charts(self) -> dict[str, list[str]]:
        """Loss and accuracy."""
        return {
            "loss": ["train/loss", "val/loss"],
            "accuracy": ["train/accuracy", "val/accuracy"],
        }
