"""Spaces: the kinds of data that models learn, as gymnasium's spaces are to reinforcement learning.

A modality is one class here, or in your package: `@register("space", "graph")` over a frozen dataclass. Shapes
leave the batch out. Everything else that depends on the modality is registered for the class: its renderer
(`zoo.viz`), its feature extractor (`zoo.evaluation`), the models that list it in `accepts`.
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar

from zoo.core.columns import Column, read_columns
from zoo.core.constraints import Constraint, read_constraints
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.core.space import PixelSpace, Space, times

ABSENT = -100  # in place of a token: nothing to read, nothing to score (`ignore_index` of `cross_entropy`)


@register("space", "image")
@dataclass(frozen=True)
class Image(PixelSpace):
    """Pictures: float in [0, 1], (B, C, H, W), on the grid k / (levels - 1); levels=0 stands for continuous values."""

    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    levels: Count = 256

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


@register("space", "vector")
@dataclass(frozen=True)
class Vector(Space):
    """Real vectors, float (B, D); `columns` may name them."""

    dim: PositiveInt
    columns: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int]:
        """(D,)."""
        return (self.dim,)

    def validate(self, x: Any) -> None:
        """Check shape, type and that all numbers are finite."""
        super().validate(x)
        if not x.is_floating_point() or not bool(x.isfinite().all()):
            raise DataError(f"x={x.dtype}: vectors are float and finite. Convert them, and remove NaN and infinity.")


@register("space", "tokens")
@dataclass(frozen=True)
class Tokens(Space):
    """Sequences of token ids, int64 (B, T), T at most `length`.

    In a batch, y holds the token that follows each of x, `ABSENT` where it is not scored.
    """

    unit: ClassVar[str] = "tokens"
    items: ClassVar[str] = "windows"
    length: PositiveInt
    vocab_size: PositiveInt
    tokenizer: str = field(default="", repr=False)  # serialised, so that a checkpoint reads and writes text

    @property
    def shape(self) -> tuple[int]:
        """(T,)."""
        return (self.length,)

    def units(self, x: Any) -> int:
        """Tokens in a batch (B, T)."""
        return int(x.numel())

    def __str__(self) -> str:
        return f"tokens {self.length}, {self.vocab_size} tokens"


@register("space", "voices")
@dataclass(frozen=True)
class Voices(Tokens):
    """Music in voices as tokens of notes: all voices of a step, the highest first, then those of the next step."""

    voices: PositiveInt = 4
    steps_per_beat: PositiveInt = 4
    tempo: PositiveInt = 90  # beats per minute

    def __str__(self) -> str:
        return f"{self.voices} voices over {self.length // self.voices} steps"


@register("space", "note_events")
@dataclass(frozen=True)
class NoteEvents(Tokens):
    """Polyphonic music as tokens of events: notes begin and end, and time passes; see `zoo.data.music.event`."""

    steps_per_beat: PositiveInt = 24
    tempo: PositiveInt = 120  # beats per minute

    def __str__(self) -> str:
        return f"{self.length} events of music"


@register("space", "label")
@dataclass(frozen=True)
class Label(Space):
    """Class labels, int64 (B,), from 0 to n_classes - 1."""

    n_classes: PositiveInt

    @property
    def shape(self) -> tuple[()]:
        """A scalar."""
        return ()

    def __str__(self) -> str:
        return f"one of {counted(self.n_classes, 'label')}"


@register("space", "audio")
@dataclass(frozen=True)
class Audio(Space):
    """Waveforms: float in [-1, 1], (B, C, samples)."""

    channels: PositiveInt
    samples: PositiveInt
    sample_rate: PositiveInt  # Hz

    @property
    def shape(self) -> tuple[int, int]:
        """(C, samples)."""
        return self.channels, self.samples


@register("space", "video")
@dataclass(frozen=True)
class Video(PixelSpace):
    """Moving pictures: float in [0, 1], (B, F, C, H, W), on the grid k / (levels - 1)."""

    frames: PositiveInt
    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    levels: PositiveInt = 256
    frame_rate: PositiveInt = 8  # frames per second

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(F, C, H, W)."""
        return self.frames, self.channels, self.height, self.width

    @property
    def frame(self) -> Image:
        """One frame."""
        return Image(self.channels, self.height, self.width, self.levels)


@register("space", "codes")
@dataclass(frozen=True)
class Codes(Space):
    """Indices into a codebook, int64 (B, *grid): the latents of a quantiser.

    A row of codes may be those of several grids, from coarse to fine, each in raster order: `heights` and `widths`.
    With `frames`, the first dimension of the grid is time.
    """

    unit: ClassVar[str] = "tokens"
    of_data: ClassVar[bool] = False
    grid: tuple[int, ...]
    codebook_size: PositiveInt
    heights: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    frames: Count = 0  # of a video, 0 for other data

    def __post_init__(self) -> None:
        super().__post_init__()
        row = (sum(h * w for h, w in self.scales),)
        if len(self.heights) != len(self.widths) or (self.heights and row != self.grid):
            raise ValueError(f"Codes.heights={self.heights}, widths={self.widths}: not the grids of a row {self.grid}.")

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each grid; empty for one grid."""
        return tuple(zip(self.heights, self.widths, strict=False))

    @property
    def shape(self) -> tuple[int, ...]:
        """The grid."""
        return self.grid

    def units(self, x: Any) -> int:
        """Indices in a batch (B, *grid)."""
        return int(x.numel())


@register("space", "interactions")
@dataclass(frozen=True)
class Interactions(Space):
    """Implicit feedback: which items a user has interacted with, float 0 or 1, (B, n_items).

    In a batch, y (B, n_items) marks the items to predict: others of the same user, or in training x itself.
    """

    unit: ClassVar[str] = "users"
    items: ClassVar[str] = "users"
    n_items: PositiveInt
    names: tuple[str, ...] = field(default=(), repr=False)  # of the items; may be empty

    @property
    def shape(self) -> tuple[int]:
        """(n_items,)."""
        return (self.n_items,)

    def validate(self, x: Any) -> None:
        """Check shape, type and range."""
        super().validate(x)
        if not x.is_floating_point() or bool(((x != 0) & (x != 1)).any()):
            raise DataError(f"x={x.dtype}: interactions are float, 0 or 1. Convert them.")

    def __str__(self) -> str:
        return f"interactions with {counted(self.n_items, 'item')}"


@register("space", "pair")
@dataclass(frozen=True)
class Pair(Space):
    """A source and a target, such as a sentence and its translation: x (B, *first.shape), y (B, *second.shape).

    Of texts, each row ends with its end token, then `ABSENT`.
    """

    unit: ClassVar[str] = "pairs"
    items: ClassVar[str] = "pairs"
    first: Space
    second: Space

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the target."""
        return self.second.shape

    def __str__(self) -> str:
        return f"pair of {self.first} and {self.second}" if self.first != self.second else f"pair of {self.first}"


@register("space", "unpaired")
@dataclass(frozen=True)
class Unpaired(Space):
    """Samples of another domain as a condition, y (B, *domain.shape), which are independent of x."""

    domain: Space

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample of the other domain."""
        return self.domain.shape

    def validate(self, x: Any) -> None:
        """Check a batch of the other domain."""
        self.domain.validate(x)

    def __str__(self) -> str:
        return f"{self.domain} of another domain"


@register("space", "preference")
@dataclass(frozen=True)
class Preference(Space):
    """A better and a worse answer to one prompt: x and y (B, 2, *answer.shape), the better first."""

    unit: ClassVar[str] = "pairs"
    items: ClassVar[str] = "pairs"
    answer: Space

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one answer."""
        return self.answer.shape

    def __str__(self) -> str:
        return f"preference between {self.answer}"


@register("space", "questions")
@dataclass(frozen=True)
class Questions(Space):
    """Questions about a sample with their answers as a condition, y (B, n, T + 1).

    A row holds the tokens of a question, `ABSENT` after them, and the token of its answer in the last place.
    """

    unit: ClassVar[str] = "questions"
    n: PositiveInt
    text: Tokens  # of one question

    @property
    def shape(self) -> tuple[int, int]:
        """(n, T + 1)."""
        return self.n, self.text.length + 1

    def __str__(self) -> str:
        return f"{counted(self.n, 'question')} of {self.text}"


@register("space", "table")
@dataclass(frozen=True)
class Table(Space):
    """Rows of mixed columns, encoded: float (B, F), column by column.

    A category is one-hot; its last place is a missing value, if there are any. A number is a standard normal score, see
    `zoo.core.columns.Column`. Where numbers may be missing, one-hot (present, missing) is before the score, which is 0
    for a missing one. `zoo.nn.blocks.table_codec` encodes and decodes.
    """

    unit: ClassVar[str] = "rows"
    items: ClassVar[str] = "rows"
    schema: str = field(repr=False)  # of `zoo.core.columns.write_columns`
    rules: str = field(default="", repr=False)  # of `zoo.core.constraints.write_constraints`

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.size:
            raise ValueError("a table needs a column that is not a key.")
        read_constraints(self.rules, self.columns)

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in their order."""
        return _columns_of(self.schema)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Rules that all rows obey."""
        return read_constraints(self.rules, self.columns)

    @property
    def shape(self) -> tuple[int]:
        """(F,)."""
        return (sum(column.width for column in self.columns),)

    def validate(self, x: Any) -> None:
        """Check shape, type and that all numbers are finite."""
        super().validate(x)
        if not x.is_floating_point() or not bool(x.isfinite().all()):
            raise DataError(f"x={x.dtype}: encoded rows are float and finite. Encode missing values.")

    def __str__(self) -> str:
        kinds = [column.kind for column in self.columns]
        counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
        return f"rows of {counted(len(kinds), 'column')} ({', '.join(counts)})"


_columns_of = lru_cache(64)(read_columns)


@register("space", "series")
@dataclass(frozen=True)
class Series(Space):
    """Windows of time series: float (B, T, D), `length` steps T of the D `columns`; NaN where a value is missing.

    Forecasts predict the last `horizon` steps from those before. Where the condition of the data is a series too, it
    holds covariates: y (B, T, C), whose future is known.
    """

    unit: ClassVar[str] = "windows"
    items: ClassVar[str] = "windows"
    length: PositiveInt
    columns: tuple[str, ...]
    horizon: PositiveInt
    missing: bool = False  # whether values may be missing

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.columns or self.horizon >= self.length:
            raise ValueError(f"series of {self.length} steps: needs a column, and a horizon of fewer steps.")

    @property
    def shape(self) -> tuple[int, int]:
        """(T, D)."""
        return self.length, len(self.columns)

    @property
    def history(self) -> int:
        """Steps before the horizon."""
        return self.length - self.horizon

    def validate(self, x: Any) -> None:
        """Check shape, type, and that numbers are finite; NaN is allowed where values may be missing."""
        super().validate(x)
        if not x.is_floating_point() or bool(x.isinf().any()) or (not self.missing and bool(x.isnan().any())):
            raise DataError(f"x={x.dtype}: series are float and finite. Convert them, and remove infinity and NaN.")

    def __str__(self) -> str:
        return f"series of {times(self.shape)}, horizon {self.horizon}"


def tokens_of(space: Space) -> Tokens | None:
    """The text that a space is made of; None for other data."""
    if isinstance(space, Tokens):
        return space
    parts = (getattr(space, f.name) for f in fields(space))
    return next((found for part in parts if isinstance(part, Space) and (found := tokens_of(part))), None)
