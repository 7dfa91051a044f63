"""`zoo index`, `zoo search` and `zoo ask`."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from zoo.cli.app import RUN, app
from zoo.core.counted import counted
from zoo.core.errors import ConfigError, DataError

Where = Annotated[
    list[str] | None, typer.Option(help="only items whose metadata fit: KEY=VALUE, KEY>=VALUE ...; several times")
]
Number = Annotated[int, typer.Option("-k", min=1, help="most items")]


@app.command("index")
def index_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="a run folder that embeds (none: search by words), data=NAME data.KEY=VALUE"),
    ] = None,
    out: Annotated[Path, typer.Option(help="new folder of the index, or an index to change")] = Path("index"),
    files: Annotated[list[Path] | None, typer.Option(help="text files or folders, in place of data")] = None,
    split: Annotated[str, typer.Option(help="of the data: train, val or test")] = "train",
    similarity: Annotated[str, typer.Option(help="cosine, euclidean, inner_product or jaccard")] = "cosine",
    size: Annotated[int, typer.Option(min=1, help="most words of a passage")] = 150,
    kind: Annotated[
        str | None, typer.Option(help="search vectors by FAISS: hnsw, ivf, pq or flat; default: exactly, without it")
    ] = None,
    effort: Annotated[int, typer.Option(min=1, help="lists or nodes that a search visits: recall and time")] = 64,
    add: Annotated[bool, typer.Option("--add", help="add to an index that exists")] = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(help="delete from an index: an id, or metadata KEY=VALUE, KEY<VALUE; several times"),
    ] = None,
    compact: Annotated[bool, typer.Option("--compact", help="remove deleted vectors from disk")] = False,
    device: str = "cpu",
) -> None:
    """Make an index of passages of texts, or of data, for `zoo search` and `zoo ask`; or change one."""
    from zoo.retrieval.approximate import Approximate
    from zoo.retrieval.build import build_index, delete_items
    from zoo.retrieval.index import Index

    given = words or []
    settings = [word for word in given if word.startswith(("data=", "data."))]
    runs = [word for word in given if word not in settings]
    if len(runs) > 1:
        raise ConfigError(f"index: {' and '.join(runs)} are two runs. Give one, and data=NAME.")
    if not (given or files) and (delete or compact or kind):
        index = Index(out)
    else:
        index = build_index(
            out, runs[0] if runs else None, settings, files or [], split=split, similarity=similarity, size=size,
            device=device, add=add,
        )  # fmt: skip
    if delete:
        print(f"{out}: {counted(delete_items(index, delete), 'item')} deleted")
    if compact:
        index.compact()
    if kind is not None:
        Approximate(index, cast(Any, kind), effort).keep()
    _, vectors = index.vectors()
    print(f"{out}: {counted(len(index), 'item')}" + (f", vectors of {vectors.shape[1]}" if len(vectors) else ""))


@app.command("search")
def search_command(
    folder: Annotated[Path, typer.Argument(help="of an index")],
    query: Annotated[str, typer.Argument(help="words to search for")] = "",
    image: Annotated[Path | None, typer.Option(help="a picture to search for")] = None,
    like: Annotated[int | None, typer.Option("--id", help="an item to search for")] = None,
    k: Number = 10,
    where: Where = None,
    exact: Annotated[bool, typer.Option("--exact", help="compare with all vectors, without FAISS")] = False,
    device: str = "cpu",
) -> None:
    """Search an index: by words and, if its model embeds texts, by meaning; for a picture; or for an item."""
    from zoo.cli.edit_images import read_picture
    from zoo.core.spaces import Image
    from zoo.retrieval.build import embedder_of, nearest_of, search
    from zoo.retrieval.index import Index

    if sum(map(bool, (query, image, like))) != 1:
        raise ConfigError("search: give one of a query, --image and --id.")
    index, filters = Index(folder), where or []
    if like is not None:
        ids, vectors = index.vectors()
        rows = (ids == like).nonzero()[:, 0]
        if not len(rows):
            raise DataError(f"--id={like}: no such item with a vector. Use the id of a result.")
        hits = nearest_of(index, exact)(vectors[rows[0]], k, filters)
    elif image is not None:
        embedder = embedder_of(index, device)
        space = embedder.model.spec.x
        if not isinstance(space, Image):
            raise ConfigError(f"--image={image}: the index holds {space.registered_name}. Search for an item by --id.")
        x = read_picture(image, "--image", space, (space.height, space.width), space.channels)
        hits = nearest_of(index, exact)(embedder.data(x[None])[0], k, filters)
    else:
        hits = search(index, query, k, filters, device, exact)
    for hit in hits:
        print(line_of(hit))


@app.command("ask")
def ask_command(
    folder: Annotated[Path, typer.Argument(help="of an index of texts")],
    question: Annotated[str, typer.Argument()],
    model: Annotated[str, typer.Option(help="a language model: " + RUN)],
    k: Number = 4,
    where: Where = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    template: Annotated[str | None, typer.Option(help="of the prompt, with {passages} and {question}")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Answer a question by a language model, from passages that the index finds, and cite them."""
    from zoo.interop.loading import load
    from zoo.retrieval.answer import TEMPLATE, answer
    from zoo.retrieval.build import search
    from zoo.retrieval.index import Index

    hits = search(Index(folder), question, k, where or [], device)
    found = answer(
        load(model, device), question, hits, max_new_tokens=max_new_tokens, template=template or TEMPLATE, seed=seed,
        temperature=temperature,
    )  # fmt: skip
    print(found.text)
    for number, hit in enumerate(found.sources, 1):
        print(f"[{number}] {line_of(hit)}")
    if found.left_out:
        print(f"{found.left_out} more passages do not fit the context of {model}.")


def line_of(hit: Any) -> str:
    """One line about a result: id, score, metadata, and the begin of the text."""
    facts = " ".join(f"{key}={value}" for key, value in hit.metadata.items())
    text = " ".join(hit.text.split())
    return f"{hit.id}  {hit.score:.4f}  {facts}  {text[:120]}{'...' if len(text) > 120 else ''}".rstrip()
