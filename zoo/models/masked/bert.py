"""BERT: a transformer that sees both ways and learns to fill in what is hidden from it."""

import math
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative, PositiveInt
from zoo.core.spaces import ABSENT, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.models.base import Model
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.networks.transformer import Encoder, MaskedHead
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import SamplingParams, parse_sampling
from zoo.nn.samplers.text_stream import Completion, TextStreamer

SEED = 30_000_000  # of what validation hides, which is the same each time


@register("model", "bert")
class BERT(Model):
    """BERT: an encoder-only transformer, trained to restore tokens that are hidden (masked language modelling).

    Of `mask` of the tokens, 80 % are replaced by a token that says so, 10 % by any other, and 10 % are left; `loss` is
    nats per token among them, and `accuracy` the share that it finds. There is no likelihood of a text:
    `pseudo_log_prob` scores each token given all others. `fill` restores the marks in a text, `embed` gives a vector
    for each text, and `generate` writes on by filling in, in random order, what comes after.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        position_encoding: how a token knows its place; see `zoo.nn.blocks.transformer_block.TransformerStack`.
        norm: after the embedding and every branch, as BERT has it.
        norm_eps: added to the variance; 0 is torch's own choice.
        mlp: the nonlinearity.
        dropout: of embeddings, attention and branches.
        mask: share of the tokens that the loss asks for.
        optimizer: what moves the weights, with its learning rate and schedule.
        temperature: of texts where none is asked for; 0 takes the likeliest token, the surest first.
        top_p: of texts where none is asked for.
    """

    accepts = (Tokens,)
    paper = "Devlin et al. 2018 (arXiv:1810.04805)"
    mark = "[MASK]"  # one hidden token in a text that `fill` gets

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 2,
        d_ff: Count = 0,
        position_encoding: PositionEncoding = "learned",
        norm: NormKind = "layernorm",
        norm_eps: NonNegative = 1e-12,
        mlp: MLPKind = "gelu",
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.1,
        mask: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.15,
        optimizer: Optimizer = "muon",
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        shape = TransformerConfig(
            d_model,
            n_heads,
            d_ff=d_ff,
            norm=norm,
            norm_eps=norm_eps,
            norm_place="after",
            mlp=mlp,
            bias=True,
            dropout=dropout,
        )
        self.hidden = spec.tokens.vocab_size  # the token that says that one is hidden comes after all others
        self.net = Encoder(spec.tokens.vocab_size + 1, spec.size, shape, n_layers, position_encoding=position_encoding)
        self.head = MaskedHead(shape, spec.tokens.vocab_size)
        text = spec.tokens
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None

    # -- objective -------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of every place, whether its token (B, T) is hidden or not; negative numbers are no token."""
        return self.head(self.net(tokens), self.net.embedding.weight)

    def corrupt(self, tokens: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What is read (B, T), and the places (N,) in the flat texts that are asked for: a share `mask`, at random.

        They are drawn on the host, which so knows their number; some may be places where there is no token.
        """
        drawn = torch.rand(2, *tokens.shape, generator=generator)
        places = (drawn[0] < self.hparams["mask"]).flatten().nonzero()[:, 0].to(tokens.device, non_blocking=True)
        chance, other = drawn.to(tokens.device, non_blocking=True)
        fate = chance / self.hparams["mask"]  # uniform in [0, 1) where asked
        asked = (chance < self.hparams["mask"]) & (tokens >= 0)
        read = tokens.masked_fill(asked & (fate < 0.8), self.hidden)
        strange = (other * self.spec.tokens.vocab_size).long()
        return torch.where(asked & (fate >= 0.8) & (fate < 0.9), strange, read), places

    def hidden_nats(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of every place that is asked for (N,): the cost in nats, whether it was found, and whether it is a token."""
        tokens = strip_padding(batch)
        read, places = self.corrupt(tokens, generator)
        wanted = tokens.flatten()[places]
        # Only what is asked for goes through the head, which is most of the work where there are many tokens.
        logits = self.head(self.net(read).flatten(0, 1)[places], self.net.embedding.weight)  # (N, V)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        nats = F.cross_entropy(logits, wanted, ignore_index=ABSENT, reduction="none")
        return nats, logits.argmax(-1) == wanted, wanted >= 0

    def token_hits(self, batch: Batch) -> Tensor:
        """Is the likeliest token the right one, for every one that is hidden? (N,), hidden by torch's randomness."""
        _, found, real = self.hidden_nats(batch)
        return found[real]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per token that is asked for, and the share of them that is found."""
        nats, found, real = self.hidden_nats(batch)
        number = real.sum().clamp(min=1)
        return {"loss": nats.sum() / number, "accuracy": found.sum() / number}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same over the whole split, of tokens that are hidden at every validation alike."""
        nats, found, real = self.hidden_nats(batch, torch.Generator().manual_seed(SEED + batch_idx))
        if number := int(real.sum()):
            self.log_epoch_mean({"val/loss": nats.sum() / number, "val/accuracy": found.sum() / number}, number)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """The weights (B, H, T, T) of each block, with nothing hidden."""
        return attention_maps(self.net, lambda: self.net(strip_padding(batch)))

    def pseudo_log_prob(self, x: Tensor) -> Tensor:
        """Sum over the tokens x (B, T) of the log-probability of each given all others, in nats (B,).

        Salazar et al. 2020 (1910.14659): a score, and no likelihood. Takes T passes, made as one batch for each text.
        """
        scores = []
        for tokens in x:
            each = tokens.expand(len(tokens), -1).clone()  # (T, T)
            each.fill_diagonal_(self.hidden)
            logits = self(each).diagonal(dim1=0, dim2=1).T  # (T, V): row t is asked for its own place
            scores.append(logits.float().log_softmax(-1).gather(1, tokens[:, None]).sum())
        return torch.stack(scores)

    # -- texts -----------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """The token before and after a text."""
        return self.spec.tokens.vocab_size - 1 if self.tokenizer is None else self.tokenizer.end

    def embed(self, texts: list[str]) -> Tensor:
        """A vector for each text (N, d): the mean of its tokens' features."""
        tokens = self._padded([self._read(text)[: self.spec.size] for text in texts])
        features, real = self.net(tokens), (tokens >= 0)[..., None]
        return (features * real).sum(1) / real.sum(1)

    @torch.no_grad()
    def restore(
        self, tokens: Tensor, how: SamplingParams, generator: torch.Generator | None = None, per_step: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Fill in the hidden ones among tokens (B, T), so many in each row at a time.

        In random order, so that each is drawn given all that are known; or, at temperature 0, the surest first
        (Ghazvininejad et al. 2019, 1904.09324).

        Returns:
            The tokens (B, T), and each row's log-probability of what was filled in, as it was (B,).
        """
        training = self.training
        self.eval()
        rows, columns = tokens.shape
        tokens, total = tokens.clone(), torch.zeros(rows, device=self.device)
        order = torch.rand(rows, columns, generator=generator).to(self.device)
        most = int((tokens == self.hidden).sum(1).max()) if tokens.numel() else 0
        for _ in range(math.ceil(most / per_step)):
            logits = self(tokens).float()  # (B, T, V)
            uniform = torch.rand(rows, columns, generator=generator).to(self.device)
            chosen = how.sample(logits.flatten(0, 1), uniform.flatten()).view(rows, columns)
            sure = logits.log_softmax(-1).gather(2, chosen[..., None]).squeeze(2)
            rank = (sure if how.temperature == 0 else order).masked_fill(tokens != self.hidden, -torch.inf)
            best = rank.topk(min(per_step, columns), dim=1)
            here = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, best.indices, best.values > -torch.inf)
            tokens, total = torch.where(here, chosen, tokens), total + (sure * here).sum(1)
        self.train(training)
        return tokens, total

    def fill(self, texts: list[str], *, seed: int | None = None, per_step: int = 1, **options: Any) -> list[str]:
        """Texts with one token in place of each `[MASK]`.

        Args:
            texts: of at most a context.
            seed: of the choices; None is torch's global randomness.
            per_step: tokens of a text that are filled in at once: fewer passes, and less regard for each other.
            **options: of `zoo.nn.samplers.autoregressive.SamplingParams`; temperature 0 takes the likeliest.

        Raises:
            ZooError: a text longer than the context, or data that was no text.
        """
        rows = [self._read(text) for text in texts]
        if (longest := max(map(len, rows), default=0)) > self.spec.size:
            raise ZooError(f"a text of {longest} tokens is longer than the context of {self.spec.size}: shorten it.")
        tokens, _ = self.restore(self._padded(rows), self._sampling(options), _seeded(seed), per_step)
        return [self.tokenizer.decode([t for t in row if t >= 0]) for row in tokens.tolist()]

    def generate(
        self,
        prompts: list[str],
        *,
        max_new_tokens: int | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        beams: int = 1,
        per_step: int = 4,
        **options: Any,
    ) -> list[Completion]:
        """Continue texts: so many hidden tokens after each are filled in, and read up to the first that ends a text.

        Args:
            prompts: texts; `[MASK]` in them is filled in too, but not shown.
            max_new_tokens: None fills the context; more than there is room for are not written.
            stop: texts that end the writing and are left out.
            seed: see `fill`.
            beams: 1, as nothing is written from left to right.
            per_step: see `fill`.
            **options: see `fill`.
        """
        if beams > 1:
            raise ZooError(f"{self.registered_name} fills in and cannot search with beams: leave out beams={beams}.")
        rows = [self._read(prompt)[: self.spec.size] for prompt in prompts]
        room = [min(self.spec.size - len(row), max_new_tokens or self.spec.size) for row in rows]
        asked = [row + [self.hidden] * more for row, more in zip(rows, room, strict=True)]
        tokens, nats = self.restore(self._padded(asked), self._sampling(options), _seeded(seed), per_step)
        done = []
        for row, more, new, score in zip(rows, room, tokens.tolist(), nats.tolist(), strict=True):
            writer = TextStreamer(self.tokenizer.pieces, self.end, stop, more)
            for token in new[len(row) : len(row) + more]:
                if not writer.finish_reason:
                    writer.push(token)
            result = writer.result()
            result.log_prob = score
            done.append(result)
        return done

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Token ids (n, T) of texts from their beginning; what follows an end is the end too.

        Args:
            n: how many.
            condition: none; texts with marks are for `fill`.
            generator: source of randomness.
            **options: `max_new_tokens` (None fills the context) and those of `fill`.
        """
        self.check_condition(condition)
        length = min(options.pop("max_new_tokens", None) or self.spec.size, self.spec.size - 1)
        per_step = options.pop("per_step", 1)
        tokens = torch.full((n, 1 + length), self.hidden, device=self.device)
        tokens[:, 0] = self.end
        tokens = self.restore(tokens, self._sampling(options), generator, per_step)[0][:, 1:]
        return tokens.masked_fill((tokens == self.end).cumsum(1) > 0, self.end)

    def _sampling(self, options: dict[str, Any]) -> SamplingParams:
        how = parse_sampling(options, temperature=self.hparams["temperature"], top_p=self.hparams["top_p"])
        if how.repetition_penalty != 1:
            raise ZooError(f"{self.registered_name} knows no repetition_penalty: leave it out.")
        return how

    def _read(self, text: str) -> list[int]:
        if self.tokenizer is None:
            raise ZooError(f"this model learned {self.spec}, not text: use sample().")
        ids = [self.tokenizer.begin]
        for number, part in enumerate(text.split(self.mark)):
            ids += [self.hidden] * (number > 0) + self.tokenizer.encode(part)
        return ids

    def _padded(self, rows: list[list[int]]) -> Tensor:
        width = max(map(len, rows), default=0)
        return torch.tensor([row + [ABSENT] * (width - len(row)) for row in rows], device=self.device).long()

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The blocks."""
        return [self.net.blocks]

    def charts(self) -> dict[str, list[str]]:
        """Loss, and how often it is right."""
        return {
            "nats per hidden token": ["train/loss", "val/loss"],
            "hidden tokens found": ["train/accuracy", "val/accuracy"],
        }


def strip_padding(batch: Batch) -> Tensor:
    """The tokens of a window (B, T), with a negative number where the text is over: after the last that is scored."""
    x, y = batch
    goes_on = (y >= 0).flip(1).cummax(1).values.flip(1)
    return x.masked_fill(~goes_on, ABSENT)


def _seeded(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)
