"""N-grams: the language model that counts, and that every language model with parameters has to beat."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import LanguageModelBase
from zoo.models.baselines.base import Fitted
from zoo.nn.networks.kneser_ney import KneserNey


@register("model", "ngram")
class NGram(LanguageModelBase, Fitted):
    """N-gram language model with interpolated Kneser-Ney smoothing: what follows the last few tokens, counted.

    The windows of the training data are counted once. Those that continue each other, the next beginning with the
    token that this one ends with, are read as one text. Held-out windows are scored like those of any language
    model: the context of a token begins with its window. Before it is fitted, all tokens are as likely.

    Args:
        spec: what the data looks like.
        order: length of the longest n-grams; a token is predicted from order - 1 others.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.
    """

    paper = "Kneser & Ney 1995 (ICASSP); Chen & Goodman 1999 (Computer Speech & Language 13)"
    fit_on = 1_000_000_000  # windows: all there are

    def __init__(
        self, spec: DataSpec, *, order: PositiveInt = 5, temperature: NonNegative = 1.0, top_p: Fraction = 1.0
    ) -> None:
        super().__init__(spec)
        self.net = KneserNey(spec.tokens.vocab_size, order, spec.size, self.end)

    def keep(self, batch: Batch) -> Tensor:
        """Windows with the token after them, int32 (B, T + 1)."""
        x, y = batch
        return torch.cat([x[:, :1], y], dim=1).int()

    def fit(self, data: Tensor) -> None:
        """Count windows (N, T + 1), where a negative number is no token."""
        continued = F.pad(data[:-1, -1] == data[1:, 0], (1, 0))  # its first token is known already
        real, starts = data >= 0, torch.zeros_like(data, dtype=torch.bool)
        real[:, 0] &= ~continued
        starts[:, 0] = True
        self.net.fit(data[real].long(), starts[real])

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cost of every target token (B, T) in nats, zero where it is not scored; and the targets."""
        x, y = batch
        return -self.net.log_prob(x, y).float().masked_fill(y < 0, 0), y

    def token_hits(self, batch: Batch) -> Tensor:
        """Is the likeliest token the right one, for every one that is scored? (N,)"""
        x, y = batch
        context = max(self.net.order - 1, 1)
        histories = F.pad(x, (context - 1, 0), value=-1).unfold(1, context, 1)  # (B, T, order - 1)
        rows, targets = histories[y >= 0], y[y >= 0]
        found = [self.net.logits(some).argmax(-1) for some in rows.split(256)]  # each has a row of the vocabulary
        return torch.cat(found) == targets if found else targets > 0
