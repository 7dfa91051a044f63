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
from zoo.data.text.tokenizers.bpe import BPE, byte_alphabet, portable_pattern

FILE = "tokenizer.json"
COMPANIONS = (  # files beside it that an export must contain unchanged
    "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
UNLIMITED = 10**9  # tokens: `transformers` writes a larger number for no limit
END = "<|endoftext|>"  # default name of the end of text
MARK = "\N{SYMBOL FOR RECORD SEPARATOR}"  # some text before another
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
        folder = file.parent
        files = {n: (folder / n).read_text(encoding="utf-8") for n in COMPANIONS if (folder / n).is_file()}
        self._take(file.read_text(encoding="utf-8"), special_tokens(files), None, end_ids(folder), files)

    def _take(
        self, text: str, special: dict[str, str], size: int | None, ends: list[int], files: dict[str, str]
    ) -> "Pretrained":
        from tokenizers import Tokenizer as Backend

        try:
            self.backend = Backend.from_str(text)
        except BaseException as error:  # Rust panics of the library are not an Exception
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{FILE} cannot be read ({reason}). It is damaged, or newer than the `tokenizers` library."
            ) from None
        self.backend.no_truncation()  # what the last use left in the file is not a property of the tokenizer
        self.backend.no_padding()
        self.text, self.special, self.given_ends, self.files = text, special, ends, files
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
        self._affixes = self._find_affixes()
        return self

    def _find_affixes(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer's post-processor puts before and after a text."""
        plain, whole = (self.backend.encode("a", add_special_tokens=on).ids for on in (False, True))
        for first in range(len(whole) - len(plain) + 1):
            if whole[first : first + len(plain)] == plain:
                return whole[:first], whole[first + len(plain) :]
        return [], []

    def named(self, *roles: str) -> int | None:
        """Find the id of the first of these roles ("eos_token" ...) that the tokenizer has."""
        for role in roles:
            for token in (self.special[role],) if role in self.special else DEFAULTS.get(role, ()):
                if (number := self.backend.token_to_id(token)) is not None:
                    return number
        return None

    @property
    def max_length(self) -> int:
        """Most tokens of a text, by the file beside the tokenizer; 0 if it has no limit."""
        most = _object(self.files.get("tokenizer_config.json", "{}"), "tokenizer_config.json").get("model_max_length")
        return most if type(most) is int and 0 < most < UNLIMITED else 0

    def of_size(self, size: int) -> "Pretrained":
        """Extend to the number of ids of a model.

        Raises:
            DataError: the model has fewer ids than the tokenizer.
        """
        if size < self.size:
            raise DataError(f"vocab_size={size}: the tokenizer has {self.size} tokens. Give the model's own tokenizer.")
        return Pretrained.load(self.state() | {"size": size})

    @property
    def begin(self) -> int:
        """The id before a text: the post-processor's, or else by the roles of special tokens."""
        return self._affixes[0][0] if self._affixes[0] else self._needed(BEGINS)

    @property
    def affixes(self) -> tuple[list[int], list[int]]:
        """Ids that the post-processor puts before and after a text."""
        return self._affixes

    @property
    def end(self) -> int:
        """The id after a text."""
        return self._needed(ENDS)

    @property
    def ends(self) -> list[int]:
        """All ids that end a text, those of generation_config.json or config.json included."""
        return list(dict.fromkeys([*(i for i in self.given_ends if i < self.size), self.end]))

    def special_id(self, text: str) -> int | None:
        """Id of a special token that is spelled like this, or None."""
        number = self.backend.token_to_id(text)
        return None if number is None or self.pieces[number] else number

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
        return self.encode_with_places(text)[0]

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode a text as `encode`; give the first character of each id too, and the one after its last."""
        clean = text.encode("utf-8", errors="replace").decode()
        encoded = self.backend.encode(clean, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a text as its post-processor does; one that starts with the begin token already is complete."""
        ids, (before, after) = self.encode(text), self.affixes
        if not before or ids[:1] != before[:1]:
            ids = [*before, *ids, *after]
        return ids or [self.begin]

    def encode_continuation(self, text: str) -> list[int]:
        """Encode a text that follows another one directly, without the space that SentencePiece puts before a text."""
        ids, mark, wanted = self.encode(text), self.encode(MARK), text.encode("utf-8", errors="replace")
        if self._spelled(ids) != wanted:
            longer = self.encode(MARK + text)
            if longer[: len(mark)] == mark and self._spelled(longer[len(mark) :]) == wanted:
                return longer[len(mark) :]
        return ids

    def _spelled(self, ids: list[int]) -> bytes:
        return b"".join([self.pieces[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids by the tokenizer's rules for spaces."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def state(self) -> dict[str, Any]:
        """Return the whole tokenizer.json, the files beside it, the roles of special tokens, and the ids."""
        state = {"json": self.text, "special": self.special, "size": self.size}
        return state | {"ends": self.given_ends, "files": self.files}

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Pretrained":
        """Restore from `state`."""
        special, files = ({str(k): str(v) for k, v in dict(state.get(key, {})).items()} for key in ("special", "files"))
        files = {name: text for name, text in files.items() if name in COMPANIONS}
        ends = [int(i) for i in state.get("ends", ())]
        return cls.__new__(cls)._take(str(state["json"]), special, int(state["size"]), ends, files)


def special_tokens(files: dict[str, str]) -> dict[str, str]:
    """Read role -> token from the files next to a tokenizer.json."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config = _object(files.get(name, "{}"), name)
        for role in DEFAULTS:
            token = config.get(role)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[role] = token
    return found


def end_ids(folder: Path) -> list[int]:
    """Read the ids that end a text from generation_config.json, or else config.json."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = _object((folder / name).read_text(encoding="utf-8"), str(folder / name)).get("eos_token_id")
            return [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i >= 0]
    return []


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{name} is not JSON ({error}). Download it again.") from None
    if not isinstance(value, dict):
        raise DataError(f"{name} is not a JSON object. Download it again.")
    return value


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


def with_sentinels(text: str, first: int, number: int) -> str:
    """Add the special tokens `<extra_id_0>`, `<extra_id_1>` ... to a tokenizer.json.

    Args:
        text: content of the file.
        first: id of the first one; each other one has the next id.
        number: how many.

    Raises:
        DataError: the tokenizer has such a token already, or unnamed ids at its end.
    """
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(text)
    names = [f"<extra_id_{i}>" for i in range(number)]
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    if [backend.token_to_id(name) for name in names] != list(range(first, first + number)):
        raise DataError(
            f"model.num_sentinels={number}: the tokenizer has other tokens at ids from {first} on, or its own "
            f"sentinels. Fine-tune on pairs before the export, or train with data/tokenizer=bpe."
        )
    return backend.to_str()


def as_pretrained(tokenizer: Tokenizer, sources: bool = False) -> tuple[str, dict[str, str]]:
    """Convert a BPE or Pretrained tokenizer to a tokenizer.json and the roles of its special tokens.

    Args:
        tokenizer: to convert.
        sources: of an encoder-decoder, whose texts end with the end token; other texts begin with it.

    Raises:
        DataError: another kind of tokenizer.
    """
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
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
    if tokenizer.lowercase:
        backend.normalizer = normalizers.Lowercase()
    pieces = pre_tokenizers.Split(Regex(portable_pattern()), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END, special=True)])
    single, pair = (f"$A {END}", f"$A $B {END}") if sources else (f"{END} $A", f"{END} $A $B")
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(END, tokenizer.end)]
    )
    return backend.to_str(), {"bos_token": END, "eos_token": END}
