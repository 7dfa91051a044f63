"""Base class of models that give each word of a vocabulary a vector."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.models.abilities import require_tokenizer
from zoo.models.base import Model
from zoo.models.baselines.base import gather
from zoo.models.masked.base import strip_padding

ALL = 1_000_000_000  # windows


class WordEmbedding(Model):
    """A model with one vector per token of a vocabulary, learned from tokens that occur near each other.

    A subclass writes `loss` and `vectors`. Tokens that are unknown words or ends of texts do not take part.

    Args:
        spec: what the data looks like.
    """

    accepts = (Tokens,)
    counts: Tensor  # of each token in the training text, int64 (V,); zeros before the training

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        text = spec.tokens
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None
        self.register_buffer("counts", torch.zeros(text.vocab_size, dtype=torch.int64))
        known = self.tokenizer
        if known is None:
            self.lacks("embed", "word_vectors")
        self.specials = [] if known is None else sorted({*known.ends, known.begin, known.unknown} - {-1})
        word = torch.ones(text.vocab_size, dtype=torch.bool)
        word[self.specials] = False
        self.register_buffer("is_word", word, persistent=False)
        self.is_word: Tensor

    def vectors(self) -> Tensor:
        """The vector of every token (V, D)."""
        raise NotImplementedError

    # -- training text ---------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Count the tokens of the training text, unless resumed."""
        super().on_train_start()
        if self.counts.any():
            return
        found = self.read_training_text(lambda batch: torch.masked_select(*self.words_of(batch)))
        self.counts.copy_(torch.bincount(found, minlength=len(self.counts)))
        self.on_counted()

    def on_counted(self) -> None:
        """Prepare what depends on the counts."""

    def read_training_text(self, keep: Any) -> Tensor:
        """Concatenate `keep(batch)` (N, ...) over the whole training text."""
        whole = getattr(getattr(self.trainer, "datamodule", None), "fitting_dataloader", None)
        return gather(self.trainer.train_dataloader if whole is None else whole(), keep, ALL)

    def words_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens (B, T), padding as token 0; and which are words, bool (B, T)."""
        tokens = strip_padding(batch) if batch.y.ndim == 2 else batch.x
        real = tokens >= 0
        tokens = tokens.clamp(min=0)
        return tokens, real & self.is_word[tokens]

    def ends_of(self, batch: Batch) -> Tensor:
        """Tokens between two texts, bool (B, T)."""
        ends = [] if self.tokenizer is None else self.tokenizer.ends
        return torch.stack([batch.x == end for end in ends]).any(0) if ends else torch.zeros_like(batch.x).bool()

    # -- vectors ---------------------------------------------------------------------------------------------

    @property
    def words(self) -> list[str]:
        """Spelling of every token with a vector, in the order of `word_vectors`."""
        return [self.spelling(i) for i in self.is_word.nonzero()[:, 0].tolist()]

    def spelling(self, token: int) -> str:
        """Text of one token, without spaces around it."""
        text: str = require_tokenizer(self).decode([token])
        return text.strip()

    @torch.no_grad()
    def word_vectors(self) -> Tensor:
        """Vectors of `words` (N, D)."""
        return self.vectors()[self.is_word]

    @torch.no_grad()
    def embed(self, items: str | list[str]) -> Tensor:
        """Words or texts -> vectors (N, D), the mean over the known words of a text.

        Raises:
            ZooError: a text without a known word.
        """
        table = self.vectors()
        return torch.stack([self.embed_one(text, table) for text in ([items] if isinstance(items, str) else items)])

    def embed_one(self, text: str, table: Tensor) -> Tensor:
        """Vector (D,) of a text, given the vectors of all tokens (V, D)."""
        ids = torch.tensor(require_tokenizer(self).encode(text), dtype=torch.int64, device=self.device)
        ids = ids[self.is_word[ids]]
        if not len(ids):
            raise ZooError(f"text={text!r}: no word of it was in the training text. Use other words, or more text.")
        return table[ids].mean(0)
