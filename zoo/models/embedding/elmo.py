"""ELMo: vectors of words in context, from language models in both directions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.spaces import ABSENT, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood, require_tokenizer
from zoo.models.autoregressive.base import token_nll
from zoo.models.base import Model
from zoo.models.masked.base import before_padding
from zoo.models.tokenizer_mixin import TokenizerMixin
from zoo.nn.blocks.layer_mix import LayerMix
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.muon import hidden_layers


@register("model", "elmo")
class ELMo(TokenizerMixin, ExactLikelihood, Model):
    """Two recurrent language models, from left to right and from right to left; their states are vectors of tokens.

    A window of T + 1 tokens has T predictions in each direction. The first token is given to one direction, and the
    last token to the other. Both share the embeddings and the head. `loss` is the mean of both, in nats per token.
    `log_prob` and `token_nll` are those of the direction from left to right, as of other language models.

    The vector of a token is the mean over layers of the states of both directions after this token; `mix` has the
    weights of the layers. The embedding of a text is the mean over its tokens. Tokens take the place of the paper's
    convolutions over characters.

    Args:
        spec: what the data looks like.
        backbone: the network of each direction: lstm, gru, rnn, or a registered one with the states of its layers.
        optimizer: with its learning rate and schedule; muon takes the matrices of the layers.
    """

    accepts = (Tokens,)
    paper = "Peters et al. 2018 (arXiv:1802.05365)"
    likelihood_kind = "discrete"

    def __init__(self, spec: DataSpec, *, backbone: Backbone = "lstm", optimizer: Optimizer = "muon") -> None:
        super().__init__(spec)
        self.load_tokenizer(spec)
        if self.tokenizer is None:
            self.lacks("embed", "token_loss")
        size = spec.tokens.vocab_size
        self.forward_net, self.backward_net = (
            self.build_component("backbone", "backbone", size, size, spec.size, method="layer_states") for _ in range(2)
        )
        del self.backward_net.embedding  # those of `forward_net` serve both
        self.backward_net.head = None
        self.mix = LayerMix(len(self.forward_net.blocks) + 1)

    @property
    def ends(self) -> tuple[int, int]:
        """The tokens before and after a text."""
        known = self.tokenizer
        return (known.begin, known.end) if known is not None else (self.spec.tokens.vocab_size - 1,) * 2

    # -- likelihood ------------------------------------------------------------------------------------------

    def states(self, tokens: Tensor, net: Any) -> list[Tensor]:
        """States that the layers of `forward_net` or `backward_net` read, and the head: L tensors (B, T, D)."""
        found: list[Tensor] = net.run(self.forward_net.embedding(tokens.clamp(min=0)))
        return found

    def logits(self, tokens: Tensor, net: Any) -> Tensor:
        """Logits (B, T, V) of the token that follows each of the tokens (B, T) in the direction of a network."""
        found: Tensor = self.forward_net.project(self.states(tokens, net)[-1])
        return found

    def both_nll(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Nats (B, T) of the tokens after the first given those before, and of those but the last given those after.

        Args:
            window: tokens (B, T + 1), negative after the end of a row.
        """
        turned = reverse(window)
        first = token_nll(self.logits(window[:, :-1], self.forward_net), window[:, 1:])
        second = token_nll(self.logits(turned[:, :-1], self.backward_net), turned[:, 1:])
        return first, reverse(F.pad(second, (1, 0)), (window >= 0).sum(1))[:, :-1]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per token, of both directions and of each."""
        window = window_of(batch)
        number = (window[:, 1:] >= 0).sum().clamp(min=1)
        forward, backward = (nats.sum() / number for nats in self.both_nll(window))
        return {"loss": (forward + backward) / 2, "forward": forward.detach(), "backward": backward.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log means over all tokens and bytes of the split, of both directions and of each."""
        window = window_of(batch)
        nats, after = self.both_nll(window), window[:, 1:]
        self.log_token_means(torch.cat(nats, 1), torch.cat([after, window[:, :-1].masked_fill(after < 0, ABSENT)], 1))
        for name, one in zip(("forward", "backward"), nats, strict=True):
            self._log_mean(f"val/{name}", one.sum(), (after >= 0).sum())

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Nats of every target token given those before it (B, T), 0 where it is not scored; and the targets."""
        return token_nll(self.logits(batch.x, self.forward_net), batch.y), batch.y

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Log-likelihood (B,) in nats of targets y given inputs x; without y, of x (B, T) after a begin token."""
        if y is None:
            x, y = F.pad(x[:, :-1], (1, 0), value=self.ends[0]), x
        return -self.token_nll(Batch(x, y))[0].sum(1)

    def backward_log_prob(self, x: Tensor) -> Tensor:
        """Log-likelihood (B,) in nats of texts x (B, T) from their last token to the first, after an end token."""
        return -self.both_nll(F.pad(x, (0, 1), value=self.ends[1]))[1].sum(1)

    # -- vectors ---------------------------------------------------------------------------------------------

    def layers(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), negative after the end of a row -> states of both directions (L, B, T, 2 D).

        Layer 0 has the embeddings, twice. State t has read token t and, from left to right, those before it; from right
        to left, those after it.
        """
        number = (tokens >= 0).sum(1)
        first = torch.stack(self.states(tokens, self.forward_net))
        second = self.states(reverse(tokens), self.backward_net)
        turned = torch.stack([reverse(layer, number) for layer in second])
        return torch.cat([first, turned], 3)

    def features(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), negative after the end of a row -> vectors (B, T, 2 D), layers mixed."""
        mixed: Tensor = self.mix(self.layers(tokens))
        return mixed

    def embed(self, texts: str | list[str]) -> Tensor:
        """Texts of any length -> vectors (N, 2 D): the mean over their tokens.

        Raises:
            ZooError: a text without tokens.
        """
        texts = [texts] if isinstance(texts, str) else texts
        rows = [require_tokenizer(self).encode(text) for text in texts]
        if blank := [text for text, row in zip(texts, rows, strict=True) if not row]:
            raise ZooError(f"text={blank[0]!r}: empty. Give words.")
        begin, end = self.ends
        width = max(map(len, rows), default=0)
        read = [[begin, *row, end, *[ABSENT] * (width - len(row))] for row in rows]
        tokens = torch.tensor(read, device=self.device).view(len(rows), width + 2)
        inside = tokens.ge(0).roll(-1, 1) & tokens.ge(0)  # without the end
        inside[:, 0] = False
        inside[:, -1] = False
        return (self.features(tokens) * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)

    # -- training --------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """The layers of both directions."""
        return [*hidden_layers(self.forward_net), *hidden_layers(self.backward_net)]

    def charts(self) -> dict[str, list[str]]:
        """Loss, and both directions."""
        return {
            "loss": ["train/loss", "val/loss"],
            "directions": ["val/forward", "val/backward"],
            "bits per byte": ["val/bits_per_byte"],
        }


def window_of(batch: Batch) -> Tensor:
    """Inputs and targets -> the window that they were cut from (B, T + 1), negative after the last scored target."""
    x, y = batch
    after = torch.where(y >= 0, y, F.pad(x[:, 1:], (0, 1), value=ABSENT))
    return torch.cat([x[:, :1], after.masked_fill(~before_padding(y), ABSENT)], 1)


def reverse(x: Tensor, number: Any = None) -> Tensor:
    """Rows (B, T, ...), their first `number` (B,) entries in reverse order; None counts those that are not negative.

    It is its own inverse: the entries after them are turned too.
    """
    number = (x >= 0).sum(1) if number is None else number
    place = (number[:, None] - 1 - torch.arange(x.shape[1], device=x.device)) % x.shape[1]  # (B, T)
    return x.gather(1, place.view(*place.shape, *[1] * (x.ndim - 2)).expand_as(x))
