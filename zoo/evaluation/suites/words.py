"""Agreement of word vectors with human judgements: similarities of pairs, and analogies."""

from pathlib import Path
from typing import Any

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.data.text.files import decode_file
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.word_vectors import Judgement, analogy_accuracy, word_similarity
from zoo.models.abilities import SupportsWordVectors
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "words")
class WordSuite(Suite):
    """Files of `zoo evaluate --judgements`."""

    order = 30

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with a vector for each word."""
        return supports(model, SupportsWordVectors)

    def measure(self, context: EvaluationContext) -> Scores:
        """One metric for each file: its name, and the number of judgements whose words the model has."""
        model: Any = context.model
        table, rows = model.word_vectors().float(), {word: i for i, word in enumerate(model.words)}
        scores: Scores = {}
        for path in context.protocol.judgements:
            kind, found = judge(path, table, rows)
            note = f"{found.known} of {found.total}: the others have unknown words"
            name = f"{kind}_{path.stem}@{found.known}"
            scores[name] = Metric(found.value, "higher", error=found.error, note=note)
        return scores


def judge(path: Path, table: Any, rows: dict[str, int]) -> tuple[str, Judgement]:
    """Measure the judgements in one file; words are compared in small letters.

    Lines have four words of an analogy, or two words and the similarity that people gave to them. Comments (#),
    headings (:) and lines of other forms are left out.

    Raises:
        ConfigError: no line has such a form.
    """
    lines = [line.lower().split() for line in decode_file(path).splitlines() if line[:1] not in ("#", ":", "")]
    questions = [tuple(line) for line in lines if len(line) == 4 and not any(map(is_number, line))]
    if questions:
        return "analogy", analogy_accuracy(table, rows, questions)
    pairs = [(line[0], line[1], number) for line in lines if (number := first_number(line[2:])) is not None]
    if not pairs:
        raise ConfigError(f"--judgements={path}: no pairs with a similarity, and no analogies. See `zoo evaluate -h`.")
    return "spearman", word_similarity(table, rows, pairs)


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    return first_number([text]) is not None


def first_number(texts: list[str]) -> float | None:
    """The first text, if it is a number."""
    try:
        return float(texts[0])
    except (IndexError, ValueError):
        return None
