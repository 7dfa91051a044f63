"""Text as windows of tokens.

A split is one stream of tokens, `<end> text <end> text <end>`. Where a tokenizer begins texts with another token, it is
`<begin> text <end> <begin> text <end> <begin>`. A window of context + 1 tokens gives
x = window[:-1] and y = window[1:].
"""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import DataError
from zoo.core.signature import Component
from zoo.core.space import Space
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import ShuffledSampler, TensorLoader
from zoo.data.text.tokenizers.base import Tokenizer, dumps, loads

TokenizerChoice = Annotated[str | dict[str, Any], Component("tokenizer")]
Texts = tuple[list[str], list[str], list[str]]  # training, validation, test
SPLITS = ("train", "val", "test")


class TokenizedData(DataModule):
    """Three splits of texts, with a tokenizer that is fitted to the training texts or taken from a model.

    A subclass provides `read`, and `texts_of` if a sample has several texts.
    """

    def __init__(self, context: int, tokenizer: str | dict[str, Any], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.context = context
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self.tokenizer_from_model = False
        self._splits: Any = None

    def read(self) -> Any:
        """Read the training, validation and test samples."""
        raise NotImplementedError

    def texts_of(self, samples: Any) -> list[str]:
        """List every text of a split."""
        return list(samples)

    @property
    def splits(self) -> Any:
        """Samples of each split; the first access reads them and fits the tokenizer."""
        if self._splits is None:
            self._splits = self.read()
            if not self.tokenizer_from_model:
                self.tokenizer.fit(self.texts_of(self._splits[0]))
        return self._splits

    @property
    def spec(self) -> DataSpec:
        """Tokens of the context and the tokenizer; reads the texts, which define the vocabulary."""
        _ = self.splits
        text = Tokens(self.context, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(self.space_of(text), name=self.registered_name)

    def space_of(self, text: Tokens) -> Space:
        """Space of a sample that consists of such texts."""
        return text

    def use_tokenizer_from(self, spec: DataSpec) -> None:
        """Take the tokenizer of a pretrained model instead of fitting one; call it before the data is read.

        Raises:
            DataError: the model does not have a tokenizer.
        """
        if not spec.tokens.tokenizer:
            raise DataError(f"init_from: the model of {spec} does not have a tokenizer. Give a run of a text model.")
        self.tokenizer, self.tokenizer_from_model = loads(spec.tokens.tokenizer), True


class TokenWindows(TokenizedData):
    """Windows of tokens from texts in three splits; a subclass provides `read`.

    A training epoch draws one window from each stretch of `context` tokens, at a random offset, so it covers the corpus
    once. Held-out windows are adjacent, so every token is scored exactly once. In an incomplete last one y is -100.

    Args:
        context: tokens per window.
        tokenizer: tokenizer, fitted to the training texts.
        batch_size: windows per batch.
        seed: seed of the order and offsets of windows.
    """

    keep_on_gpu = True
    python: ClassVar[bool] = False  # the texts are Python source code

    @property
    def texts(self) -> Texts:
        """Texts of each split."""
        return self.splits

    def load(self) -> None:
        """Tokenize the texts.

        Raises:
            DataError: fewer training tokens than one window, or a split without text.
        """
        streams = self.streams()
        length = len(streams[0])
        if length <= self.context:
            remedy = f", or set data.context={length - 1} or less" if length > 2 else ""
            raise DataError(
                f"data.context={self.context}: the training text of {self.registered_name} has only {length} tokens. "
                f"Give more text{remedy}."
            )
        for name, stream in zip(("validation", "test"), streams[1:], strict=True):
            if len(stream) < 3:  # ends of texts alone
                raise DataError(f"data={self.registered_name}: the {name} text is empty. Give more text.")
        starts = torch.arange(0, length - self.context, self.context)
        self.train: Split = starts, streams[0]
        self.val: Split = torch.arange(0, len(streams[1]) - 1, self.context), streams[1]
        self.test: Split = torch.arange(0, len(streams[2]) - 1, self.context), streams[2]

    def streams(self) -> list[Tensor]:
        """Tokens of each split, (N,)."""
        return [self.join(self.tokenizer.encode_all(texts)) for texts in self.texts]

    def iterate_texts(self, split: str) -> Iterable[str]:
        """Yield the texts of a split."""
        return iter(self.texts[SPLITS.index(split)])

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """Take n evenly spaced texts of at most `length` tokens: whole ones if enough are short, else excerpts."""
        texts = self.texts[SPLITS.index(split)]
        whole = [text for text in texts if text and len(self.tokenizer.encode(text)) <= length]
        if len(whole) < n:
            return self.cut_evenly(self.join(self.tokenizer.encode_all(texts)), n, length)
        return whole[:: len(whole) // n][:n]

    def cut_evenly(self, stream: Tensor, n: int, length: int) -> list[str]:
        """Cut n evenly spaced excerpts of `length` tokens from a stream."""
        starts = torch.linspace(0, max(len(stream) - length, 0), n, dtype=torch.float64).long().tolist()
        return [self.tokenizer.decode(stream[start : start + length].tolist()) for start in starts]

    def fitting_dataloader(self) -> TensorLoader:
        """The training text once, in adjacent windows like held-out data."""
        stream = self.train[1]
        starts = torch.arange(0, len(stream) - 1, self.context)
        return self._loader((starts, stream), ShuffledSampler(len(starts)), train=False)

    def join(self, encoded: list[Tensor]) -> Tensor:
        """Join texts, with a begin token before the first and a separator after each: int32 (N,)."""
        ids = [self.tokenizer.begin], self.tokenizer.separator
        begin, separator = (torch.tensor(some, dtype=torch.int32) for some in ids)
        return torch.cat([begin, *(part for ids in encoded for part in (ids, separator))])

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Cut windows x int64 (B, context), and the next tokens y (B, context)."""
        starts, stream = (self.on_device(indices, x) for x in split)
        begin = starts[indices]
        if train:  # a random offset; in the last stretch a whole window must remain
            room = (len(stream) - self.context - begin).clamp(max=self.context)
            uniform = torch.rand(len(begin), generator=generator, dtype=torch.float64)
            begin = begin + (uniform.to(begin.device, non_blocking=True) * room).long()
        positions = begin[:, None] + torch.arange(self.context + 1, device=begin.device)  # (B, context + 1)
        window = stream[positions.clamp(max=len(stream) - 1)].long()
        y = window[:, 1:].masked_fill(positions[:, 1:] >= len(stream), -100)
        return window[:, :-1], y
