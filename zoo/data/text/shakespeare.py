"""Tiny Shakespeare."""

from zoo.core.cache import data_file
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import cut, decode_file


@register("data", "shakespeare")
class Shakespeare(TokenWindows):
    """Tiny Shakespeare: 1,115,394 characters of plays, in `tinyshakespeare/input.txt` (Karpathy 2015).

    The usual split: the first 90 % of the characters are for training, the last 10 % for validation and testing.

    Args:
        path: folder that contains `tinyshakespeare/`; null is `$ZOO_DATA`, else `~/.cache/zoo`.
    """

    licence = "public domain"

    SOURCE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

    def __init__(
        self,
        *,
        path: str | None = None,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path = path

    def read(self) -> Texts:
        """Read and split the file.

        Raises:
            DataError: no such file.
        """
        train, val = cut(decode_file(data_file(self.path, "tinyshakespeare/input.txt", self.SOURCE)), 0.9)
        return [train], [val], [val]
