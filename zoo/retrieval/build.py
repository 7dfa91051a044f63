"""Make an index from files or data, and search it by the model that made it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Label, Tokens
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.text.datamodule import TokenizedData
from zoo.data.text.files import decode_file
from zoo.data.text.tokenizers.base import loads
from zoo.hub.pretrained import resolve
from zoo.retrieval.approximate import Approximate
from zoo.retrieval.chunks import chunks
from zoo.retrieval.embedding import Embedder, batches_of
from zoo.retrieval.index import Hit, Index
from zoo.retrieval.similarity import Similarity
from zoo.runs.checkpoint import find_checkpoint
from zoo.runs.folder import RunFolder

TEXTS = (".txt", ".md", ".rst", ".py")  # files of a folder
SPLITS = ("train", "val", "test")
NearestSearch = Callable[[torch.Tensor, int, Sequence[str]], list[Hit]]  # vector, k, filters


def build_index(
    out: str | Path,
    run: str | Path | None = None,
    settings: Sequence[str] = (),
    files: Sequence[Path] = (),
    *,
    split: str = "train",
    similarity: str = "cosine",
    size: int = 150,
    device: str = "cpu",
    add: bool = False,
) -> Index:
    """Make an index of passages of files, or of a split of data.

    Args:
        out: new folder, or with `add` an index.
        run: model that embeds texts, or encodes data; None keeps texts without vectors.
        settings: `data=NAME` and `data.KEY=VALUE`; by default the data of the run.
        files: text files, and folders of them, in place of data.
        split: of the data.
        similarity: cosine, euclidean, inner_product or jaccard.
        size: most words of a passage.
        device: of the model.
        add: add the items to an index that exists, which the same model made.

    Raises:
        ConfigError: neither files nor data, a model that does not embed, a folder that exists, or another model.
        DataError: there is nothing to index.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split={split}: unknown. Use {', '.join(SPLITS)}.")
    embedder = None if run is None else Embedder(run, device)
    data = None if files else data_of(run, settings)
    texts, metadata = list[str](), list[dict[str, Any]]()
    if data is None or isinstance(data, TokenizedData):
        sources = read_files(files) if data is None else texts_of(data, split)
        for name, text in sources:
            for chunk in chunks(text, size):
                texts.append(chunk.text)
                metadata.append({"source": name, "begin": chunk.begin, "end": chunk.end})
        if not texts:
            raise DataError(f"index={out}: no texts. Give other files or data.")
        vectors = None if embedder is None else embedder.texts(texts)
    elif embedder is None:
        raise ConfigError("index: data without texts need a model that encodes them. Give its run folder.")
    else:
        parts = []
        for batch in batches_of(data, split):
            parts.append(embedder.data(batch.x, batch.y))
            for facts in facts_of(batch, data):
                metadata.append({"split": split, "row": len(metadata)} | facts)
        vectors = torch.cat(parts)
    about = {} if embedder is None else embedder.about
    index = Index(out) if add else Index.create(out, cast(Similarity, similarity), about)
    if index.about.get("sha256") != about.get("sha256"):
        raise ConfigError(f"--add: {index.about.get('run', 'no model')} made the index {out}. Give the same run.")
    index.add(vectors, texts, metadata)
    return index


def delete_items(index: Index, which: Sequence[str]) -> int:
    """Delete items by id, or by a filter such as `year<1990`: their number.

    Raises:
        ConfigError: neither an id nor a filter.
    """
    filters = [one for one in which if not one.isdecimal()]
    deleted = index.delete([int(one) for one in which if one.isdecimal()])
    return deleted + sum(index.delete(where=[one]) for one in filters)


def nearest_of(index: Index, exact: bool = False) -> NearestSearch:
    """Search for vectors: approximately if the index has a structure for it, unless `exact`."""
    found = None if exact else Approximate.open(index)
    return found.nearest if found is not None else index.nearest


def data_of(run: str | Path | None, settings: Sequence[str]) -> DataModule:
    """Data that the settings name, or those of a run.

    Raises:
        ConfigError: neither.
    """
    if any(word.startswith("data=") for word in settings):
        chosen = to_plain(compose(*settings).data)
    elif run is not None:
        chosen = RunFolder(find_checkpoint(resolve(run)).parent).config()["data"]
        changes = dict(word.removeprefix("data.").split("=", 1) for word in settings)
        chosen = {**chosen, **changes}
    else:
        raise ConfigError("index: nothing to index. Give --files, or data=NAME, or a run folder.")
    data: DataModule = registry.build("data", chosen, where="data")
    data.setup()
    return data


def facts_of(batch: Batch, data: DataModule) -> list[dict[str, Any]]:
    """Label or caption of each sample of a batch, if it has one."""
    given = data.spec.condition
    if isinstance(given, Label):
        return [{"label": label} for label in batch.y.tolist()]
    if isinstance(given, Tokens) and given.tokenizer:
        tokenizer = loads(given.tokenizer, given.vocab_size)
        return [{"caption": tokenizer.decode(t for t in row if t >= 0)} for row in batch.y.tolist()]
    return [{}] * len(batch.x)


def texts_of(data: TokenizedData, split: str) -> list[tuple[str, str]]:
    """Names and texts of a split; of pairs, each text alone."""
    found = data.texts_of(data.splits[SPLITS.index(split)])
    return [(f"{data.registered_name}/{split}/{number}", text) for number, text in enumerate(found)]


def read_files(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Names and contents of text files, and of those in folders.

    Raises:
        DataError: no such file, or not a text.
    """
    found = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.suffix in TEXTS and p.is_file()) if path.is_dir() else [path]
        found += [(str(file), decode_file(file)) for file in inside]
    return found


def embedder_of(index: Index, device: str = "cpu") -> Embedder:
    """The model that made the vectors of an index.

    Raises:
        ConfigError: the index has no vectors, or the weights have changed since.
    """
    if "run" not in index.about:
        raise ConfigError(f"index={index.folder}: made without a model. Search for words, or make it with a run.")
    embedder = Embedder(index.about["run"], device)
    if embedder.about["sha256"] != index.about["sha256"]:
        raise ConfigError(
            f"index={index.folder}: the weights of {index.about['run']} have changed since. Make it again: zoo index."
        )
    return embedder


def search(
    index: Index, query: str, k: int = 10, where: Sequence[str] = (), device: str = "cpu", exact: bool = False
) -> list[Hit]:
    """The k best items for a text: by words, and together with vectors if the index has them; see `nearest_of`."""
    if "run" not in index.about:
        return index.search_text(query, k, where)
    return index.fuse(query, embedder_of(index, device).texts([query])[0], k, where, nearest_of(index, exact))
