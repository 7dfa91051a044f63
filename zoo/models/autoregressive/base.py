"""Base class of models that predict one token after another, over text or other data."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.spaces import ABSENT
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.base import Model
from zoo.nn.blocks.attention import Attention
from zoo.nn.optim.muon import hidden_layers
from zoo.nn.samplers.autoregressive import IncrementalDecoder, sample_tokens
from zoo.nn.samplers.constraint import Vocabulary
from zoo.nn.samplers.sampling_params import SamplingParams, parse_sampling


def flatten_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, V) in at least single precision, and targets (N,): several times faster to score than (B, V, T)."""
    return logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)), target.flatten()


def token_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood (B, T) of the targets in nats, 0 for padding."""
    return F.cross_entropy(*flatten_logits(logits, target), ignore_index=ABSENT, reduction="none").view_as(target)


def marginal_log_prob(log_prob: Callable[[Tensor, Tensor], Tensor], x: Tensor, shares: Sequence[float]) -> Tensor:
    """Log-likelihood log p(x) = log sum_y p(y) p(x | y) in nats (B,).

    Args:
        log_prob: log p(x | y) in nats (B,), of data and labels (B,).
        x: data (B, ...).
        shares: probability p(y) of each class.
    """
    each = [
        math.log(share) + log_prob(x, torch.full((len(x),), label, device=x.device))
        for label, share in enumerate(shares)
        if share
    ]
    return torch.stack(each).logsumexp(0)


class AutoregressiveModel(ExactLikelihood, Model):
    """A model that predicts one token after another.

    A subclass writes `logits` (or `token_nll` and `token_hits`), and sets `net` to an `IncrementalDecoder` of
    `zoo.nn.samplers.autoregressive`, or overrides `prepare`.

    Args:
        spec: what the data looks like.
    """

    likelihood_kind = "discrete"
    net: Any  # an nn.Module with the methods of IncrementalDecoder

    @property
    def context(self) -> int:
        """Tokens (T,) of one training window."""
        return self.spec.size

    @property
    def begin(self) -> int | None:
        """The token before a sample, if it is one of those that are predicted."""
        return None

    def build_backbone(self, *given: Any) -> nn.Module:
        """Build the network that the setting `backbone` names, and remove the abilities that it does not have."""
        net: nn.Module = self.build_component("backbone", "backbone", *given, method="prefill")
        if not any(isinstance(module, Attention) for module in net.modules()):
            self.lacks("attention")
        if any(isinstance(module, nn.RNNBase) for module in net.modules()):
            self.lacks("export")  # torch.export fixes the length of their inputs
        return net

    def hidden_layers(self) -> list[nn.Module]:
        """The network's blocks."""
        return hidden_layers(self.net)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V), and the targets (B, T), negative where they are not scored."""
        raise NotImplementedError

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood (B, T) of the target tokens in nats, 0 where they are not scored; and the targets."""
        logits, target = self.logits(batch)
        return token_nll(logits, target), target

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Spelling of the tokens, if they spell a text."""
        return None

    def sampling(self, options: dict[str, Any]) -> SamplingParams:
        """Sampling parameters from options; the default follows the model's distribution exactly."""
        return parse_sampling(options)

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """The decoder for these prompts, each with its begin token, and the rows that it reads first."""
        return self.net, prompts

    def sample_tokens(
        self, rows: list[list[int]], length: int, params: SamplingParams, generator: torch.Generator | None
    ) -> Tensor:
        """Sample `length` tokens after each row: (n, length)."""
        if not rows:
            return torch.empty(0, length, dtype=torch.long)

        def steps() -> Iterator[Any]:
            net, begun = self.prepare(rows)
            return sample_tokens(
                net,
                begun,
                params,
                generator=generator,
                block_size=length,
                device=self.device,
                begin=self.begin,
                vocabulary=self.vocabulary if params.pattern else None,
            )

        return next(self._in_eval_mode(steps))[0]

    def _in_eval_mode(self, begin: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Iterate without dropout or gradients; between two items the network is in its previous mode."""
        steps: Iterator[Any] | None = None
        while True:
            training = self.net.training
            if training:  # a change of the mode visits all modules, which takes longer than a small step
                self.net.eval()
            try:
                with torch.no_grad():
                    steps = begin() if steps is None else steps
                    item = next(steps)
            except StopIteration:
                return
            finally:
                if training:
                    self.net.train()
            yield item
