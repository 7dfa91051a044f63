"""Text as windows of tokens: Shakespeare, your own files; `zoo.data.stdlib` brings what comes with Python.

A split is one stream of tokens, `<end> text <end> text <end>`. A window of context + 1 tokens gives
x = window[:-1] and y = window[1:].
"""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import DataError
from zoo.core.signature import Component
from zoo.core.spaces import Space, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import TensorLoader
from zoo.data.text.tokenizers.base import Tokenizer, dumps, loads

TokenizerChoice = Annotated[str | dict[str, Any], Component("tokenizer")]
Texts = tuple[list[str], list[str], list[str]]  # training, validation, test


class TokenizedData(DataModule):
    """Texts in three splits, read once, with a tokenizer that is fitted to those of training or taken from a model.

    A subclass writes `read`, and `texts_of` where a sample is more than one text.
    """

    def __init__(self, context: int, tokenizer: str | dict[str, Any], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.context = context
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self.tokenizer_from_model = False  # is the tokenizer that of a model which was trained before?
        self._splits: Any = None

    def read(self) -> Any:
        """The texts for training, validation and testing."""
        raise NotImplementedError

    def texts_of(self, part: Any) -> list[str]:
        """Every text of a split."""
        return list(part)

    @property
    def splits(self) -> Any:
        """What `read` gives; reading it once also fits the tokenizer to the training texts."""
        if self._splits is None:
            self._splits = self.read()
            if not self.tokenizer_from_model:
                self.tokenizer.fit(self.texts_of(self._splits[0]))
        return self._splits

    @property
    def spec(self) -> DataSpec:
        """The context, and the tokenizer as a string; this reads the texts, as the vocabulary comes from them."""
        _ = self.splits
        text = Tokens(self.context, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(self.space_of(text), name=self.registered_name)

    def space_of(self, text: Tokens) -> Space:
        """The space of a sample that is made of such texts."""
        return text

    def use_tokenizer_from(self, spec: DataSpec) -> None:
        """Take the tokenizer of a model that is trained on, instead of fitting one; before the data are read.

        Raises:
            DataError: that model has none.
        """
        if not spec.tokens.tokenizer:
            raise DataError(
                f"init_from holds a model of {spec}, which has no tokenizer that {self.registered_name} could use."
            )
        self.tokenizer, self.tokenizer_from_model = loads(spec.tokens.tokenizer), True


class TokenWindows(TokenizedData):
    """Text in three splits, tokenised; a subclass says where the texts come from.

    Training: an epoch draws one window from each stretch of `context` tokens, beginning at a random place
    in it, so it goes over the corpus once. Held out: every token is scored exactly once, in windows side by side; where
    the last one is incomplete, y is -100.
    """

    keep_on_gpu = True
    python: ClassVar[bool] = False  # are the texts source code that Python can parse?

    @property
    def texts(self) -> Texts:
        """The texts of each split."""
        return self.splits

    def load(self) -> None:
        """Tokenise.

        Raises:
            DataError: fewer training tokens than one window.
        """
        streams = self.streams()
        length = len(streams[0])
        if length <= self.context:
            raise DataError(
                f"the training text of {self.registered_name} has {length} tokens, which is less than one window of "
                f"data.context={self.context} and the token after it: give more text, or a context below "
                f"{length}."
            )
        starts = torch.arange(0, length - self.context, self.context)
        self.train: Split = starts, streams[0]
        self.val: Split = torch.arange(0, len(streams[1]) - 1, self.context), streams[1]
        self.test: Split = torch.arange(0, len(streams[2]) - 1, self.context), streams[2]

    def streams(self) -> list[Tensor]:
        """The tokens of each split, (N,)."""
        return [self.join(self.tokenizer.encode_all(texts)) for texts in self.texts]

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """n texts of at most so many tokens from a split, evenly spaced: whole ones if enough are short, or pieces."""
        texts = self.texts[("train", "val", "test").index(split)]
        whole = [text for text in texts if text and len(self.tokenizer.encode(text)) <= length]
        if len(whole) < n:
            return self.pieces(self.join(self.tokenizer.encode_all(texts)), n, length)
        return whole[:: len(whole) // n][:n]

    def pieces(self, stream: Tensor, n: int, length: int) -> list[str]:
        """n pieces of a stream, of so many tokens each, evenly spaced."""
        starts = torch.linspace(0, max(len(stream) - length, 0), n, dtype=torch.float64).long().tolist()
        return [self.tokenizer.decode(stream[start : start + length].tolist()) for start in starts]

    def fitting_dataloader(self) -> TensorLoader:
        """The training text once, in order, in windows side by side like those held out."""
        stream = self.train[1]
        return self._held_out((torch.arange(0, len(stream) - 1, self.context), stream))

    def join(self, encoded: list[Tensor]) -> Tensor:
        """Texts, each followed by the end of text, and one before them all: int32 (N,)."""
        end = torch.tensor([self.tokenizer.end], dtype=torch.int32)
        return torch.cat([end, *(part for ids in encoded for part in (ids, end))])

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Windows x int64 (B, context), and the tokens after each place."""
        starts, stream = (self.on_device(indices, x) for x in split)
        begin = starts[indices]
        if train:  # somewhere in its own stretch; the last stretch ends where no whole window is left
            room = (len(stream) - self.context - begin).clamp(max=self.context)
            uniform = torch.rand(len(begin), generator=generator, dtype=torch.float64)
            begin = begin + (uniform.to(begin.device, non_blocking=True) * room).long()
        places = begin[:, None] + torch.arange(self.context + 1, device=begin.device)  # (B, context + 1)
        window = stream[places.clamp(max=len(stream) - 1)].long()
        y = window[:, 1:].masked_fill(places[:, 1:] >= len(stream), -100)
        return window[:, :-1], y
