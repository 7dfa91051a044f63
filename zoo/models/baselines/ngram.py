"""N-gram language models."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.baselines.base import Fitted
from zoo.nn.networks.kneser_ney import KneserNey


@register("model", "ngram")
class NGram(LanguageModelBase, Fitted):
    """N-gram language model with interpolated Kneser-Ney smoothing.

    The windows of the training data are counted once. Windows that begin with the last token of the one before are
    read as one text. Held-out windows are scored separately, as by any language model. Before fitting, all tokens are
    equally likely.

    Args:
        spec: what the data looks like.
        order: length of the longest n-grams; a token is predicted from order - 1 others.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
    """

    paper = "Kneser & Ney 1995 (ICASSP); Chen & Goodman 1999 (Computer Speech & Language 13)"
    fit_on = 1_000_000_000  # windows, so all
    without = ("token_confidence",)  # its logits are not computed for all positions at once

    def __init__(
        self, spec: DataSpec, *, order: PositiveInt = 5, temperature: NonNegative = 1.0, top_p: Fraction = 1.0
    ) -> None:
        super().__init__(spec)
        self.net = KneserNey(spec.tokens.vocab_size, order, spec.size, self.end)

    def statistics(self, batch: Batch) -> Tensor:
        """Windows with the token that follows each, int32 (B, T + 1)."""
        x, y = batch
        return torch.cat([x[:, :1], y], dim=1).int()

    def fit(self, data: Tensor) -> None:
        """Count windows (N, T + 1); negative numbers are padding."""
        continued = F.pad(data[:-1, -1] == data[1:, 0], (1, 0))  # its first token is counted already
        real, starts = data >= 0, torch.zeros_like(data, dtype=torch.bool)
        real[:, 0] &= ~continued
        starts[:, 0] = True
        self.net.fit(data[real].long(), starts[real])

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood (B, T) of the targets in nats, 0 where they are not scored; and the targets."""
        x, y = batch
        return -self.net.log_prob(x, y).float().masked_fill(y < 0, 0), y

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the likeliest token is the target, for every scored token (N,)."""
        x, y = batch
        context = max(self.net.order - 1, 1)
        histories = F.pad(x, (context - 1, 0), value=-1).unfold(1, context, 1)  # (B, T, order - 1)
        rows, targets = histories[y >= 0], y[y >= 0]
        found = [self.net.logits(some).argmax(-1) for some in rows.split(256)]  # (256, V) at a time
        return torch.cat(found) == targets if found else targets > 0
