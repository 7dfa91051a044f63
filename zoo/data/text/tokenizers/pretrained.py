"""Pretrained tokenizers in the format of the Hugging Face `tokenizers` library."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.data.text.tokenizers.base import Tokenizer
from zoo.data.text.tokenizers.bpe import BPE, byte_alphabet

FILE = "tokenizer.json"
END = "<|endoftext|>"  # default name of the end of text
BEGINS = ("bos_token", "cls_token", "eos_token", "pad_token")  # the first of these that exists begins a text
ENDS = ("eos_token", "sep_token")
DEFAULTS = {  # names in known families, for a folder that does not define them
    "bos_token": ("<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "cls_token": ("[CLS]",),
    "eos_token": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "sep_token": ("[SEP]",),
    "pad_token": ("<pad>", "[PAD]"),
    "mask_token": ("[MASK]", "<mask>"),
}


@register("tokenizer", "pretrained")
class Pretrained(Tokenizer):
    """A trained tokenizer.json of the Hugging Face `tokenizers` library.

    Byte-level BPE (GPT-2, Llama 3), WordPiece (BERT), and the SentencePiece models (Llama 2, T5).

    Args:
        path: a folder with tokenizer.json, or the file.

    Raises:
        DataError: no such file, or a kind whose tokens cannot be converted to bytes.
    """

    def __init__(self, *, path: str) -> None:
        file = user_path(path)
        file = file / FILE if file.is_dir() else file
        if not file.is_file():
            raise DataError(f"data.tokenizer.path={path}: no file {file}. Give a tokenizer.json, or a folder with one.")
        self._take(file.read_text(encoding="utf-8"), special_tokens(file.parent), None)

    def _take(self, text: str, special: dict[str, str], size: int | None) -> "Pretrained":
        from tokenizers import Tokenizer as Backend

        try:
            self.backend = Backend.from_str(text)
        except BaseException as error:  # Rust panics of the library are not an Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{FILE} cannot be read ({reason}). It is damaged, or newer than the `tokenizers` library."
            ) from error
        self.text, self.special = text, special
        config = json.loads(text)
        added = {entry["id"]: entry["special"] for entry in config.get("added_tokens") or []}
        spell = speller(config.get("decoder"))
        names = {number: token for token, number in self.backend.get_vocab(with_added_tokens=True).items()}
        # A model may have more rows than its tokenizer has tokens, as padding.
        self.size = max(size or 0, max(names, default=-1) + 1)
        self.pieces = [
            b"" if i not in names or added.get(i) else names[i].encode() if i in added else spell(names[i])
            for i in range(self.size)
        ]
        kind = config["model"]
        unknown = self.backend.token_to_id(kind["unk_token"]) if kind.get("unk_token") else kind.get("unk_id")
        self.unknown = -1 if unknown is None else unknown
        return self

    def named(self, *roles: str) -> int | None:
        """Find the id of the first of these roles ("eos_token" ...) that the tokenizer has."""
        for role in roles:
            for token in (self.special[role],) if role in self.special else DEFAULTS.get(role, ()):
                if (number := self.backend.token_to_id(token)) is not None:
                    return number
        return None

    def of_size(self, size: int) -> "Pretrained":
        """Extend to the number of ids of a model.

        Raises:
            DataError: the model has fewer ids than the tokenizer.
        """
        if size < self.size:
            raise DataError(f"vocab_size={size}: the tokenizer has {self.size} tokens. Give the model's own tokenizer.")
        return Pretrained.load({"json": self.text, "special": self.special, "size": size})

    @property
    def begin(self) -> int:
        """The id before a text."""
        return self._needed(BEGINS)

    @property
    def end(self) -> int:
        """The id after a text."""
        return self._needed(ENDS)

    def _needed(self, roles: Sequence[str]) -> int:
        number = self.named(*roles)
        if number is None:
            raise DataError(
                f"The tokenizer does not have any of {', '.join(roles)}. Define one in its special_tokens_map.json."
            )
        return number

    def fit(self, texts: Sequence[str]) -> "Pretrained":
        """Return the tokenizer unchanged."""
        return self

    def encode(self, text: str) -> list[int]:
        """Encode a text as ids, without begin and end."""
        clean = text.encode("utf-8", errors="replace").decode()
        return self.backend.encode(clean, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids by the tokenizer's rules for spaces."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def state(self) -> dict[str, Any]:
        """Return the whole tokenizer.json, the names of special tokens, and the number of ids."""
        return {"json": self.text, "special": self.special, "size": self.size}

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Pretrained":
        """Restore from `state`."""
        special = {str(k): str(v) for k, v in dict(state["special"]).items()}
        return cls.__new__(cls)._take(str(state["json"]), special, int(state["size"]))


def special_tokens(folder: Path) -> dict[str, str]:
    """Read role -> token from the files next to a tokenizer.json."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            try:
                config = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataError(f"{folder / name} is not JSON ({error}). Download it again.") from error
            for role in DEFAULTS:
                token = config.get(role)
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    found[role] = token
    return found


def speller(decoder: Any) -> Any:
    """Return the function from a token's name to its bytes, by the type of the decoder.

    Raises:
        DataError: an unsupported decoder.
    """
    kinds = [part["type"] for part in (decoder or {}).get("decoders", [decoder or {"type": "none"}])]
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()
        return lambda token: bytes(alphabet[c] for c in token if c in alphabet)
    if "WordPiece" in kinds:
        mark = decoder.get("prefix", "##")
        return lambda token: token.removeprefix(mark).encode() if token.startswith(mark) else b" " + token.encode()
    if "Metaspace" in kinds or "Replace" in kinds:

        def sentencepiece(token: str) -> bytes:
            if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
                return bytes([int(byte[1], 16)])
            return token.replace("\u2581", " ").encode()

        return sentencepiece
    raise DataError(
        f"Unsupported tokenizer decoder {' and '.join(kinds)}. Supported are ByteLevel, WordPiece and Metaspace."
    )


def as_pretrained(tokenizer: Tokenizer) -> tuple[str, dict[str, str]]:
    """Convert a BPE or Pretrained tokenizer to a tokenizer.json and the roles of its special tokens.

    Raises:
        DataError: another kind of tokenizer.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    if isinstance(tokenizer, Pretrained):
        return tokenizer.text, tokenizer.special
    if not isinstance(tokenizer, BPE):
        raise DataError(
            f"data/tokenizer={tokenizer.registered_name}: not supported by the Hugging Face format. Train with "
            "data/tokenizer=bpe."
        )
    config = json.loads(tokenizer.state())["model"]
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in config["merges"]]
    backend = Backend(models.BPE(config["vocab"], merges))
    pieces = pre_tokenizers.Split(Regex(f"(?m:{BPE.PIECE.pattern})"), "isolated")  # m: a dot may be a line break
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True)])
    return backend.to_str(), {"bos_token": END, "eos_token": END}
