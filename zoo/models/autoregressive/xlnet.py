"""XLNet: a language model that predicts the tokens of a text in any order."""

import math
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import token_nll
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.masked.base import MaskFilling, before_padding, seeded
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import RowNoise
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.sampling_params import SamplingParams

SEED = 40_000_000  # of the orders of validation


@register("model", "xlnet")
class XLNet(LanguageModelBase, MaskFilling):
    """Permutation language model: tokens are predicted in a random order, each given those before it in the order.

    One network has a likelihood log p(x) = sum_t log p(x_z(t) | x_z(<t)) for every order z. `loss` is the mean over
    random orders, in nats per predicted token (equation 3), of the last ones in the order alone (equation 5).
    `log_prob`, the validation and `generate` take the order from left to right, which compares with other language
    models. `val/any_order` is the mean over random orders. `fill` replaces masks, given the text on both sides.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        backbone: a network of two streams: xlnet.
        predicted_share: share of the tokens that are predicted, the last in the order. The others are read at once,
            in both directions. Below 1, beginnings of texts are not learned, so that `generate` and `log_prob` suffer.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
    """

    paper = "Yang et al. 2019 (arXiv:1906.08237)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "xlnet",
        predicted_share: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0,
        optimizer: Optimizer = "muon",
        temperature: NonNegative = 1.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.mask_token = size = spec.tokens.vocab_size  # stands for a token to fill, and is not read
        self.net = self.build_component("backbone", "backbone", size, size, self.context, method="two_stream")
        if self.tokenizer is None:
            self.lacks("fill")

    # -- objective -------------------------------------------------------------------------------------------

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V) from left to right, and the targets (B, T)."""
        return self.net(batch.x), batch.y

    def ordered_nll(self, batch: Batch, order: Tensor) -> Tensor:
        """Negative log-likelihood (B, T) of the targets in an order, in nats, 0 where they are not scored.

        The first token of a text is given. Each target is predicted from it and the targets before it in the order.

        Args:
            batch: tokens and targets.
            order: permutation of the T targets, (T,) or (B, T): the first entry is the target predicted first.
        """
        order = order.expand_as(batch.y)
        every = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, every)
        return token_nll(self._predict(batch, rank, every), batch.y)

    def log_prob(self, x: Tensor, y: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """Exact log-likelihood (B,) in nats of targets y given inputs x; without y, of x as the beginning of a text.

        Args:
            x: tokens.
            y: targets.
            order: see `ordered_nll`; None is from left to right.
        """
        if order is None:
            return super().log_prob(x, y)
        if y is None:
            x, y = F.pad(x[:, :-1], (1, 0), value=self.begin), x
        return -self.ordered_nll(Batch(x, y), order).sum(1)

    def permuted_nll(
        self, batch: Batch, share: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood (B, M) in nats of the last tokens of a random order of each row; and the targets.

        Args:
            batch: tokens and targets.
            share: M by T, rounded up.
            generator: of the orders, on the CPU.
        """
        rows, length = batch.y.shape
        noise = torch.rand(rows, length, generator=generator).to(batch.y.device)
        real = before_padding(batch.y)
        number = math.ceil(share * length)
        places = noise.masked_fill(~real, -1.0).topk(number, dim=1).indices  # (B, M)
        rank = noise.masked_fill(~real, 2.0).argsort(1).argsort(1)  # padding is last: no token reads it
        if number < length:  # the others are read by all
            predicted = torch.zeros_like(real).scatter(1, places, True)
            rank = rank.masked_fill(real & ~predicted, -1)  # as the token before them
        target = batch.y.gather(1, places)
        return token_nll(self._predict(batch, rank, places), target), target

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per predicted token."""
        nats, target = self.permuted_nll(batch, self.hparams["predicted_share"])
        return {"loss": nats.sum() / (target >= 0).sum().clamp(min=1)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the likelihood from left to right, and that of random orders, which are the same at every validation."""
        super().validation_step(batch, batch_idx)
        nats, target = self.permuted_nll(batch, 1.0, torch.Generator().manual_seed(SEED + batch_idx))
        self._log_mean("val/any_order", nats.sum(), (target >= 0).sum())

    def _predict(self, batch: Batch, rank: Tensor, places: Tensor) -> Tensor:
        """Logits (B, M, V) of targets at places (B, M), by their ranks (B, T); the token before them has the lowest."""
        tokens = torch.cat([batch.x, batch.y[:, -1:].clamp(min=0)], 1)  # (B, 1 + T)
        return self.net.two_stream(tokens, F.pad(rank, (1, 0), value=-1), places + 1)

    # -- texts -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def unmask(self, tokens: Tensor, how: SamplingParams, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Fill the masks among tokens (B, T), negative for padding, one after another in a random order.

        Known tokens come first in the order, from left to right. With `predicted_share` below 1 they are read at once.

        Returns:
            The tokens (B, T), and the log-probability of the filled tokens of each row (B,).
        """
        mode = self.training
        self.eval()
        rows, columns = tokens.shape
        given = 0 if self.tokenizer is not None and self.tokenizer.affixes[0] else 1
        if given:
            tokens = F.pad(tokens, (1, 0), value=self.begin)
        hidden, padding = tokens == self.mask_token, tokens < 0
        noise = RowNoise(rows, generator)  # of whole contexts: other rows do not change the numbers of a row
        order = noise.draw(1 + self.spec.size)[:, given : given + columns].to(self.device)
        order = F.pad(order, (given, 0))  # (B, T or 1 + T), in [0, 1)
        place = torch.arange(tokens.shape[1], device=self.device).expand_as(tokens)
        known = place - 2.0 * tokens.shape[1] if self.hparams["predicted_share"] == 1 else torch.full_like(order, -1.0)
        key = torch.where(hidden, order, known).masked_fill(padding, 2.0)
        total = torch.zeros(rows, device=self.device)
        for _ in range(int(hidden.sum(1).max()) if tokens.numel() else 0):
            here = key.masked_fill(~hidden, 2.0).min(1, keepdim=True).indices  # (B, 1): the next mask of each row
            logits = self.net.two_stream(tokens.masked_fill(hidden | padding, 0), key, here)[:, 0].float()  # (B, V)
            uniform = noise.draw(1).to(self.device)
            chosen = how.sample(logits, uniform[:, 0])  # (B,)
            sure = logits.log_softmax(-1).gather(1, chosen[:, None])
            live = hidden.gather(1, here)  # (B, 1): rows with fewer masks are complete
            total = total + (sure * live)[:, 0]
            tokens = tokens.scatter(1, here, torch.where(live, chosen[:, None], tokens.gather(1, here)))
            hidden = hidden.scatter(1, here, False)
        self.train(mode)
        return tokens[:, given:], total

    def fill(self, texts: str | list[str], *, seed: int | None = None, **options: Any) -> list[str]:
        """Replace each `[MASK]` in texts by one token.

        Args:
            texts: within the context.
            seed: of the sampling; None uses torch's global generator.
            **options: temperature (0 takes the likeliest tokens), top_k, top_p.

        Raises:
            ZooError: a text longer than the context, or a model of other data than text.
        """
        defaults = {name: self.hparams[name] for name in ("temperature", "top_p")}
        how, generator = self.sampling_params(options, **defaults), seeded(seed)
        return self.fill_masks(texts, lambda tokens: self.unmask(tokens, how, generator))

    def export_module(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        tokens = InputSpec("tokens", "token", (self.context,), high=self.spec.tokens.vocab_size)
        return ExportableSampler(self.net, [tokens], self.net, start_tokens=[self.end])

    def charts(self) -> dict[str, list[str]]:
        """Losses from left to right and in random orders, and bits per byte."""
        return super().charts() | {"any order": ["val/any_order"]}
