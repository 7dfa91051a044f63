"""Molecules of a file, in SMILES notation."""

import hashlib
import logging
from typing import Annotated

from annotated_types import Interval

from zoo.core.cache import user_path
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.smiles_syntax import syntax_error
from zoo.data.listing import log_rank0
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import decode_file, files_of

log = logging.getLogger(__name__)
SUFFIXES = (".smi", ".smiles", ".txt")  # that are read in a folder
Share = Annotated[float, Interval(gt=0.0, lt=0.5)]


@register("data", "smiles")
class Smiles(TokenWindows):
    """Your own molecules: data=smiles data.path=FILE.smi, one SMILES string a line.

    A word after the string, such as a name, is left out. So are repeated lines, and those that are not SMILES by their
    syntax. A hash of the string assigns a molecule to a split.

    Args:
        path: a text file; or a folder, whose .smi, .smiles and .txt files are read.
        context: tokens per window.
        tokenizer: of atoms, bonds, ring numbers and parentheses.
        batch_size: windows per batch.
        seed: seed of the order and offsets of windows.
        held_out: share of the molecules for validation, and the same for testing.

    Raises:
        DataError: no such file, or fewer than three molecules.
    """

    def __init__(
        self,
        *,
        path: str,
        context: PositiveInt = 64,
        tokenizer: TokenizerChoice = "smiles",
        batch_size: PositiveInt = 64,
        seed: int = 0,
        held_out: Share = 0.1,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.held_out = user_path(path), held_out

    def read(self) -> Texts:
        """Read the molecules, and split them."""
        files = files_of(self.path, "*")
        if self.path.is_dir():
            files = [file for file in files if file.suffix.lower() in SUFFIXES]
        lines = [line.split() for file in files for line in decode_file(file).split("\n")]
        found = dict.fromkeys(words[0] for words in lines if words)
        wrong = {text: error for text in found if (error := syntax_error(text))}
        if wrong:
            text, error = next(iter(wrong.items()))
            log_rank0(
                log.warning,
                f"data.path={self.path}: left out {counted(len(wrong), 'line')} without SMILES, such as {text[:60]} "
                f"({error}).",
            )
        kept = [text for text in found if text not in wrong]
        if len(kept) < 3:
            raise DataError(f"data.path={self.path}: {len(kept)} molecules, too few to split. Give at least 3.")
        order = sorted(kept, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())
        held = max(round(self.held_out * len(order)), 1)
        return order[2 * held :], order[:held], order[held : 2 * held]
