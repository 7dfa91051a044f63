"""Plain text from files."""

from zoo.core.cache import data_root, user_path
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import cut, decode_file, files_of


@register("data", "text")
class Text(TokenWindows):
    """Your own text: data=text data.path=FILE_OR_FOLDER data.glob='*.md'.

    UTF-8 files are joined in the order of their paths. Split by characters: the first 90 % are for training, the next
    5 % for validation, the last 5 % for testing.

    Args:
        path: file or folder; null is `$ZOO_DATA/text`.
        glob: files of a folder and its sub-folders.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        glob: str = "*.txt",
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.glob = path, glob

    def read(self) -> Texts:
        """Read all files.

        Raises:
            DataError: no such file or folder, no match, or not text.
        """
        path = user_path(self.path) if self.path else data_root(None) / "text"
        train, val, test = cut([decode_file(file) for file in files_of(path, self.glob)], 0.9, 0.05)
        return train, val, test
