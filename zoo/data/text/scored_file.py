"""A text file whose tokens are scored once each, in blocks or by a sliding window."""

from pathlib import Path

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spaces import ABSENT
from zoo.core.spec import DataSpec
from zoo.data.base import Split
from zoo.data.text.datamodule import Texts, TokenWindows
from zoo.data.text.files import decode_file


class ScoredFile(TokenWindows):
    """The tokens of a UTF-8 file as one split, with the tokenizer and context of a model.

    A window reads `context` tokens. With a stride of the context, windows are adjacent blocks. With a smaller one they
    overlap, and only the last `stride` tokens of each are scored. Each of these has at least context - stride tokens
    before it, except in the first window.

    Args:
        path: the file.
        spec: that of the model.
        stride: scored tokens per window, at most the context.

    Raises:
        DataError: an empty file.
    """

    registered_name = "text"

    def __init__(self, path: Path, spec: DataSpec, stride: int) -> None:
        super().__init__(spec.size, "char", 1, 0)
        self.use_tokenizer_from(spec)
        self.path, self.stride = path, stride
        size = self.context
        self.policy = f"{path.name}_blocks{size}" if stride == size else f"{path.name}_windows{size}_stride{stride}"

    def read(self) -> Texts:
        """Read the file."""
        return [], [], [decode_file(self.path)]

    def load(self) -> None:
        """Tokenize the file."""
        stream = self.join(self.tokenizer.encode_all(self.texts[2]))  # (N,)
        if len(stream) < 3:  # ends of texts alone
            raise DataError(f"--text={self.path}: the file is empty. Give a file with text.")
        last = max(len(stream) - 1 - (self.context - self.stride), 1)
        self.train = self.val = self.test = torch.arange(0, last, self.stride), stream

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Cut windows x int64 (B, context), and the tokens y (B, context) that are scored in them."""
        x, y = super().fetch(split, indices, generator, train=False)
        seen = torch.arange(self.context, device=y.device) < self.context - self.stride
        again = (split[0].to(indices.device)[indices] > 0)[:, None] & seen  # scored in a window before
        return x, y.masked_fill(again, ABSENT)
