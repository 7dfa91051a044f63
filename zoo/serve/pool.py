"""Models by name: loaded when they are needed, unloaded when memory runs out."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import unknown_name_message
from zoo.data.text.chat import ChatTemplate, template_of
from zoo.hub.address import name_of, split_version
from zoo.hub.pretrained import resolve
from zoo.interop.loading import load
from zoo.models.abilities import SupportsTokenSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.checkpoint import find_checkpoint
from zoo.runs.folder import CHECKPOINTS, PUBLISHED, RunFolder
from zoo.runs.reference_texts import read_lengths, read_reference
from zoo.serve.describe import describe
from zoo.serve.drift import Drift, ModelWatch
from zoo.serve.engine import Engine
from zoo.serve.errors import APIError, overloaded
from zoo.serve.jobs import token_ids
from zoo.serve.limits import Limits

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
log = logging.getLogger("zoo.serve")


@dataclass(frozen=True)
class Source:
    """A model that can be loaded.

    Args:
        name: in requests.
        load: makes the model, in evaluation mode.
        prompt: template of prompts of the run's data.
        created: seconds since 1970.
        size: bytes on disk, an estimate of the memory.
        folder: of the run, which may keep texts that prompts are compared with.
    """

    name: str
    load: Callable[[], Model]
    prompt: str = ""
    created: int = 0
    size: int = 0
    folder: Path | None = None


def find_sources(
    models: Iterable[str], folder: Path | None = None, device: str = "cpu", quantize: bool = False
) -> list[Source]:
    """Sources of `RUN` or `NAME=RUN` arguments, and of all runs and exports in a folder.

    Args:
        models: see `zoo.hub.pretrained.resolve` for RUN.
        folder: of runs.
        device: of the models.
        quantize: convert linear layers to 8-bit weights, which are made here once to check that each model can.

    Raises:
        ZooError: no such run, two of one name, or a model without 8-bit weights.
    """
    if quantize and torch.device(device).type != "cpu":
        raise ConfigError(f"--quantize: 8-bit weights are for processors, not --device={device}. Leave one out.")
    found: dict[str, Source] = {}
    places = [split_name(model) for model in models]
    if folder is not None:
        places += [(place.stem if place.is_file() else place.name, place) for place in runs_in(folder)]
    for name, place in places:
        if not NAME.fullmatch(name):
            raise ConfigError(f"model={name}: not a name for requests. Choose one: NAME={place}.")
        if name in found:
            raise ConfigError(f"model={name}: two models have this name. Rename one: NAME={place}.")
        found[name] = source_of(name, place, device, quantize)
    if not found:
        raise ConfigError("models=[]: there is nothing to serve. Give a run folder, or --models FOLDER.")
    for source in found.values() if quantize else ():
        source.load()
    return list(found.values())


def split_name(text: str) -> tuple[str, Path]:
    """Name and local place of `NAME=RUN`; the name is by default that of the folder, or of the published model."""
    name, equals, place = text.partition("=")
    if equals and NAME.fullmatch(name):
        return name, resolve(place)
    path = resolve(text)
    if path != Path(text):
        return name_of(split_version(text)[0]), path
    stem = path.stem if path.is_file() else path.resolve().name
    return (path.resolve().parent.name if path.name in CHECKPOINTS else stem), path


def runs_in(folder: Path) -> list[Path]:
    """Runs, Hugging Face folders and exports below a folder, at most four levels deep.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"--models={folder}: not a folder. Give the folder that contains the runs.")
    found, level = list[Path](), [folder]
    for _ in range(5):
        inside = [p for place in level for p in sorted(place.iterdir())]
        found += [p for p in inside if p.is_file() and p.suffix == ".safetensors"]
        folders = [p for p in inside if p.is_dir()]
        runs = [p for p in folders if any((p / name).is_file() for name in (*CHECKPOINTS, PUBLISHED, "config.json"))]
        found += runs
        level = [p for p in folders if p not in runs]
    return found


def source_of(name: str, place: Path, device: str, quantize: bool = False) -> Source:
    """A source for a run folder, a checkpoint, an export or a Hugging Face folder.

    Raises:
        ZooError: nothing can be loaded from there.
    """
    if (place / "config.json").is_file():
        files = [f for f in place.iterdir() if f.suffix == ".safetensors"]
        size, created = sum(f.stat().st_size for f in files), (place / "config.json").stat().st_mtime
    else:
        checkpoint = find_checkpoint(place)
        size, created = checkpoint.stat().st_size, checkpoint.stat().st_mtime
    home = RunFolder(place if place.is_dir() else place.parent)

    def loaded() -> Model:
        model = load(place, device)
        return with_small_weights(name, model) if quantize else model

    return Source(name, loaded, home.prompt_template(), int(created), size, home.folder)


def with_small_weights(name: str, model: Any) -> Model:
    """Convert a language model to 8-bit weights in place.

    Raises:
        ConfigError: another model, or one without linear layers.
    """
    if not supports(model, SupportsTokenSampling) or not hasattr(model, "quantize"):
        raise ConfigError(
            f"--quantize: {name} is a {model.registered_name}, and 8-bit weights are for models that write token "
            "by token. Serve it without --quantize."
        )
    try:
        converted: Model = model.quantize()
    except ZooError as error:
        raise ConfigError(f"--quantize: {name}: {error} Serve it without --quantize.") from None
    return converted


@dataclass
class Loaded:
    """A model in memory, and who uses it."""

    engine: Engine
    size: int
    users: int = 0
    used_at: float = 0.0


class Pool:
    """All models of a server.

    Args:
        sources: that can be loaded.
        limits: of memory and of the engines.
    """

    def __init__(self, sources: Iterable[Source], limits: Limits) -> None:
        self.sources = {source.name: source for source in sources}
        self.limits = limits
        self.loaded: dict[str, Loaded] = {}
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.templates: dict[str, ChatTemplate] = {}
        self.drift = Drift()
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def source(self, name: str) -> Source:
        """The source of a name.

        Raises:
            APIError: there is none.
        """
        if name not in self.sources:
            message = f"{unknown_name_message('model', name[:200], list(self.sources))}."
            raise APIError(404, message, param="model", code="model_not_found")
        return self.sources[name]

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Engine]:
        """The engine of a model, which stays loaded until the end of the block.

        Raises:
            APIError: an unknown name, a model that cannot be loaded, or no memory.
        """
        source = self.source(name)
        if name not in self.loaded:
            async with self._loading:
                if name not in self.loaded:
                    await self._load(source)
        found = self.loaded[name]
        found.users += 1
        try:
            yield found.engine
        finally:
            found.users -= 1
            found.used_at = time.monotonic()

    async def describe(self, name: str) -> dict[str, Any]:
        """Abilities, spaces and options of a model, which are read from the model once."""
        if name not in self.descriptions:
            async with self.use(name):
                pass
        return self.descriptions[name] | {"loaded": name in self.loaded}

    async def template(self, name: str) -> ChatTemplate:
        """The chat template of a model."""
        if name not in self.templates:
            async with self.use(name):
                pass
        return self.templates[name]

    async def _load(self, source: Source) -> None:
        self._make_room(source.size)
        begun = time.monotonic()
        try:
            model = await asyncio.to_thread(source.load)
            if supports(model, SupportsTokenSampling) and source.name not in self.drift.models:
                reference = None if source.folder is None else read_reference(source.folder)
                lengths = None if source.folder is None else read_lengths(source.folder)
                self.drift.models[source.name] = await asyncio.to_thread(ModelWatch, model, reference, lengths)
        except (ZooError, OSError) as error:  # such as a file that was removed since the start
            log.error("model %s cannot be loaded: %s", source.name, error)
            raise APIError(
                503, f"model={source.name}: it cannot be loaded. The server's log has the reason.", kind="server_error"
            ) from error
        size = weight_bytes(model)
        self._make_room(size)
        self.descriptions[source.name] = describe(model, source)
        self.templates[source.name] = template_of(getattr(model, "tokenizer", None), source.prompt)
        engine = Engine(source.name, model, self.limits, asyncio.get_running_loop())
        engine.start()
        self.loaded[source.name] = Loaded(engine, size, used_at=time.monotonic())
        log.info("model %s loaded in %.2f s", source.name, time.monotonic() - begun)

    def watch_prompt(self, name: str, prompt: str | list[int], prompt_tokens: float, answer_tokens: float) -> None:
        """Add a request to the drift watch; the loss on its prompt is computed later, if nothing waits."""
        task = asyncio.create_task(self._watch(name, prompt, prompt_tokens, answer_tokens))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, name: str, prompt: str | list[int], prompt_tokens: float, answer_tokens: float) -> None:
        watch, rank = self.drift.models.get(name), None
        try:
            async with self.use(name) as engine:
                if watch is not None and watch.nats is not None and not engine.n_waiting:
                    rank = await engine.call(lambda model: watch.rank(model, token_ids(model, prompt)))
        except APIError as error:  # no time, or no room: this prompt is not measured
            log.debug("a prompt of model %s was not measured: %s", name, error)
        except Exception:
            log.exception("a prompt of model %s could not be measured", name)
        self.drift.add(name, {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens, "prompt_loss": rank})

    def _make_room(self, size: int) -> None:
        """Unload idle models, the longest unused first.

        Raises:
            APIError: the models in use leave too little.
        """
        while self.loaded and sum(m.size for m in self.loaded.values()) + size > self.limits.memory:
            idle = [name for name, model in self.loaded.items() if not model.users]
            if not idle:
                raise overloaded("All memory for models is in use. Send the request again later.")
            oldest = min(idle, key=lambda name: self.loaded[name].used_at)
            self.loaded.pop(oldest).engine.stop()
            log.info("model %s unloaded", oldest)

    @property
    def healthy(self) -> bool:
        """Whether the threads of all loaded models run."""
        return all(model.engine.is_alive() for model in self.loaded.values())

    async def close(self) -> None:
        """End all threads, after the work that they have."""
        engines = [model.engine for model in self.loaded.values()]
        for engine in engines:
            engine.stop()
        await asyncio.gather(*(asyncio.to_thread(engine.join, 10) for engine in engines))
        self.loaded.clear()


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's weights and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
