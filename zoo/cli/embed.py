"""`zoo embed`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app


@app.command("embed")
def embed_command(
    run: Annotated[str, typer.Argument(help=RUN + "; or word vectors: a .bin, .vec or .txt file")],
    texts: Annotated[list[str] | None, typer.Argument(help="words or texts; default: all words of the model")] = None,
    nearest: Annotated[int | None, typer.Option(min=1, help="show so many words with the nearest vectors")] = None,
    analogy: Annotated[
        list[str] | None, typer.Option(help="three words, 'man king woman': answer what king is to man; repeatable")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write vectors: .txt and .bin in the formats of word2vec, or .npy")
    ] = None,
    device: str = "cpu",
) -> None:
    """Print or write vectors of words and texts, their neighbours, and analogies."""
    from zoo.cli.embed_texts import embed_texts

    embed_texts(run, texts or (), nearest=nearest, analogies=analogy or (), out=out, device=device)
