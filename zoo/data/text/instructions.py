"""Your own prompts with answers, chats, and preference pairs, from files.

The format is recognised from the fields of the records, see `zoo.data.text.conversations`.
"""

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Preference, Tokens
from zoo.data.text.datamodule import TokenizerChoice
from zoo.data.text.file_prompts import FileBackedPrompts


@register("data", "instructions")
class Instructions(FileBackedPrompts):
    """Your own prompts with answers, or chats: data=instructions data.path=FILE.jsonl.

    A file is split by a hash of the prompt: 5 % for validation, 5 % for testing, the rest for training. A folder may
    have splits, see `zoo.data.text.records`. Of a chat, the answers of the assistant are scored, and nothing else.

    Args:
        path: file or folder: JSON Lines, JSON, CSV, TSV, Parquet, or saved by `datasets`.
        prompt: field of the prompt, or a template of fields such as `Translate: {de}\\n`; see
            `zoo.data.text.templates`. Without it the format is recognised, see `zoo.data.text.conversations`.
        response: field or template of the answer.
        skip_broken: leave out records that cannot be used, and count them; else the first one is an error.
        streaming: read rows one by one, for files that are larger than memory. Their tokens are written once into
            the cache, and mapped.
        packing: pack whole training rows into windows of `context` tokens. The model must have
            `model.document_mask=true`.
        batch_size: rows per batch, or windows with `packing`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str | None = None,
        response: str | None = None,
        skip_broken: bool = False,
        streaming: bool = False,
        packing: bool = False,
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.skip_broken, self.packing, self.streaming = path, skip_broken, packing, streaming
        self.fields = {"prompt": prompt, "response": response}


@register("data", "preferences")
class Preferences(FileBackedPrompts):
    """Your own prompts with a better and a worse answer, or with answers that have a label.

    data=preferences data.path=FILE.jsonl. Records with `prompt`, `completion` and `label` (true or false) are for
    model=kto.

    Args:
        path: a file, split by prompt as in `instructions`, or a folder.
        prompt: field of the prompt, or a template of fields. Without templates the format is recognised, see
            `zoo.data.text.conversations`.
        chosen: field or template of the better answer.
        rejected: field or template of the worse answer.
        skip_broken: leave out records that cannot be used, and count them; else the first one is an error.
        streaming: read rows one by one, for files that are larger than memory. Their tokens are written once into
            the cache, and mapped.
    """

    def space_of(self, text: Tokens) -> Space:
        """A chosen and a rejected answer."""
        return Preference(text)

    n_answers = 2

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str | None = None,
        chosen: str | None = None,
        rejected: str | None = None,
        skip_broken: bool = False,
        streaming: bool = False,
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.skip_broken, self.streaming = path, skip_broken, streaming
        self.fields = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
