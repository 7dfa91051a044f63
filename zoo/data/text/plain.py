"""Plain text from files."""

from pathlib import Path

from zoo.core.cache import data_root
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import cut, decode_file, files_of


@register("data", "text")
class Text(TokenWindows):
    """Your own text: a UTF-8 file, or a folder of them in the order of their paths.

    Split by characters: the first 90 % are for training, the next 5 % for validation, the last 5 % for testing.

    Args:
        path: the file or folder; None is `$ZOO_DATA/text`.
        glob: which files of a folder, searched in all its subfolders.
        context: tokens in a window.
        tokenizer: fitted to the training part.
        batch_size: windows a batch.
        seed: of the order and place of windows.
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
        """All files.

        Raises:
            ZooError: nothing there, or nothing that matches.
        """
        place = Path(self.path).expanduser() if self.path else data_root(None) / "text"
        train, val, test = cut([decode_file(path) for path in files_of(place, self.glob)], 0.9, 0.05)
        return train, val, test
