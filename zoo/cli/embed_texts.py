"""Vectors of words and texts by a trained model, to a file or the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.core.counted import counted
from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.interop.loading import load
from zoo.interop.word_vectors import WordVectors
from zoo.io.word2vec_file import READ, write_vectors
from zoo.metrics.word_vectors import analogies as answer
from zoo.metrics.word_vectors import nearest as find_nearest
from zoo.models.abilities import SupportsDataEmbedding, SupportsEmbedding, SupportsWordVectors
from zoo.models.ability import supports

ANSWERS = 5  # of an analogy, by default


def embed_texts(
    run: str | Path,
    texts: Sequence[str] = (),
    *,
    nearest: int | None = None,
    analogies: Sequence[str] = (),
    out: Path | None = None,
    device: str = "cpu",
) -> None:
    """Print or write the vectors of texts, or print the words with the nearest vectors.

    Args:
        run: run folder, checkpoint file, pretrained or published model, or a file of word vectors.
        texts: words or texts; for none, `out` receives all words of the model.
        nearest: words to print for each text and analogy, in place of vectors.
        analogies: three words each.
        out: the file.
        device: device of the model.

    Raises:
        ConfigError: a model without vectors, an unknown word, or nothing to do.
    """
    asked_words = [question.split() for question in analogies]
    for question, three in zip(analogies, asked_words, strict=True):
        if len(three) != 3:
            raise ConfigError(f"--analogy={question!r}: {counted(len(three), 'word')}. Give three: 'man king woman'.")
    path = Path(run)
    model: Any = WordVectors(path) if path.suffix in READ and path.is_file() else load(run, device).eval()
    name = model.registered_name
    if not supports(model, SupportsEmbedding):
        other = supports(model, SupportsDataEmbedding)
        remedy = f"Use `zoo index {run}` for its data." if other else "Use a run of word2vec, glove, tfidf or bert."
        raise ConfigError(f"{run}: {name} does not embed texts. {remedy}")
    whole = supports(model, SupportsWordVectors)
    if not whole and (
        asked := [option for option, given in (("--nearest", nearest), ("--analogy", analogies)) if given]
    ):
        remedy = f"Leave out {' and '.join(asked)}, and give texts."
        raise ConfigError(f"{' and '.join(asked)}: {name} does not have a vector for each word. {remedy}")
    if not whole and not texts:
        raise ConfigError(f'{run}: no texts to embed. Write them after the run: zoo embed RUN "some words".')
    if not (texts or analogies or out):
        raise ConfigError(f"{run}: nothing to embed. Give words or texts, --analogy, or --out for all words.")
    words = model.words if whole else []
    rows = {word: i for i, word in enumerate(words)}
    for question, three in zip(analogies, asked_words, strict=True):
        for word in three:
            if word not in rows:
                raise ConfigError(f"--analogy={question!r}: {unknown_name_message('word', word, words)}.")
    with torch.no_grad():
        vectors = model.embed(list(texts)) if texts else None
    if out is not None:
        written = write_vectors(out, list(texts) or model.words, model.word_vectors() if vectors is None else vectors)
        print(f"{out}: {counted(written, 'vector')}")
    if nearest and vectors is not None:
        own = [[rows[text]] if text in rows else [] for text in texts]
        cosines, found = find_nearest(model.word_vectors(), vectors, nearest, own)
        for text, c, f in zip(texts, cosines.tolist(), found.tolist(), strict=True):
            print(f"{text}:", ", ".join(f"{words[i]} {cosine:.3f}" for i, cosine in zip(f, c, strict=True)))
    elif vectors is not None and out is None:
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            print(text, *(f"{number:.5g}" for number in vector))
    for three in asked_words:
        cosines, found = answer(model.word_vectors(), torch.tensor([[rows[w] for w in three]]), nearest or ANSWERS)
        a, b, c = three
        listed = zip(found[0].tolist(), cosines[0].tolist(), strict=True)
        print(f"{a} : {b} = {c} :", ", ".join(f"{words[i]} {cosine:.3f}" for i, cosine in listed))
