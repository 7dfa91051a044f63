"""Bad input for everything that reads a file: seeded changes of real files, each of which must load or be refused.

`python -m tests.security.fuzz 200` prints the table of README: how many were tried, worked, were refused, crashed.
"""

import contextlib
import copy
import io
import json
import logging
import random
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.config import sandbox
from zoo.core import registry, spaces
from zoo.core.errors import ZooError, printable
from zoo.core.spaces import Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.image import torchvision
from zoo.data.image.folder import Images
from zoo.data.text.plain import Text
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.char import Char
from zoo.data.text.tokenizers.word import Word
from zoo.interop import loading

SECONDS = 30  # for one input
NUMBERS = (0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 2**32 - 1)


@dataclass
class Tally:
    """Outcomes of the inputs of one loader."""

    worked: int = 0
    refused: int = 0
    crashed: list[str] = field(default_factory=list)  # one line each
    slowest: float = 0.0  # seconds


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """A file after something has gone wrong with it."""
    place = rng.randrange(len(raw) + 1)
    length = rng.choice((1, 4, 64, 4096))
    how = rng.randrange(9)
    if how == 0:
        return raw[:place]
    if how == 1:
        return raw[place:]
    if how == 2:
        return raw[:place] + rng.randbytes(length) + raw[place:]
    if how == 3:
        return raw[:place] + raw[place + length :]
    if how == 4:
        return raw[:place] + bytes(length) + raw[place + length :]
    if how == 5:
        return raw[:place] + raw[max(place - length, 0) :]
    if how == 6:  # a size or an offset, early in the file, that lies
        place = rng.randrange(min(len(raw), 200) + 1)
        return raw[:place] + struct.pack(rng.choice("<>") + "I", rng.choice(NUMBERS) % 2**32) + raw[place + 4 :]
    if how == 7:
        return rng.choice((b"", b"\0", b"\xff" * 100, rng.randbytes(500), b"PK\x03\x04", b"%!PS-Adobe-3.0 EPSF-3.0\n"))
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 5, 50))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in nested dicts and lists, containers included."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


ODD = (None, True, 0, -1, 10**9, 10**12, 10**30, 0.5, float("nan"), float("inf"), "", "x", "../../x", "os.system", [])
ODD += ({}, [10**9] * 3, {"name": "os.system"}, {"_target_": "os.system"}, "\x1b[31m\n", torch.zeros(3), [[]] * 3)


def twisted(values: dict[str, Any], rng: random.Random, odd: tuple[Any, ...] = ODD) -> dict[str, Any]:
    """Nested values of which one is another than it should be, or is gone."""
    values = copy.deepcopy(values)
    *above, last = rng.choice(list(leaves(values)))
    node: Any = values
    for key in above:
        node = node[key]
    if rng.random() < 0.2:
        del node[last]
    else:
        node[last] = rng.choice(odd)
    return values


# -- one loader each: (folder, rng) -> a function that loads a bad input ------------------------------------------

PICTURES = {  # format -> (mode, options)
    "png": ("RGB", {}),
    "jpg": ("RGB", {}),
    "jpeg": ("CMYK", {}),
    "gif": ("P", {}),
    "bmp": ("RGB", {}),
    "tif": ("RGB", {"compression": "tiff_lzw"}),
    "tiff": ("I;16", {}),
    "webp": ("RGBA", {}),
    "ppm": ("RGB", {}),
    "tga": ("RGB", {}),
    "jp2": ("RGB", {}),
    "avif": ("RGB", {}),
}


def drawing(kind: str, rng: random.Random, side: int = 24) -> bytes:
    """A real picture of a format."""
    mode, options = PICTURES[kind]
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (side, side, 4), np.uint8)
    image = Image.fromarray(noise, "RGBA")
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    buffer = io.BytesIO()
    image = deep if mode == "I;16" else image.convert("RGB").convert(mode) if mode != "RGBA" else image
    Image.init()
    image.save(buffer, Image.EXTENSION[f".{kind}"], **options)
    return buffer.getvalue()


def pictures(folder: Path, rng: random.Random) -> Callable[[], None]:
    """Eight good pictures and a bad one."""
    for i in range(8):
        Image.new("RGB", (24, 24), (i, 0, 0)).save(folder / f"{i}.png")
    kind = rng.choice(list(PICTURES))
    name = rng.choice((f"bad.{kind}", "bad.png", "ä\n\x1b[0m.jpg"))
    (folder / name).write_bytes(damaged(drawing(kind, rng), rng))
    settings: dict[str, Any] = {"size": rng.choice((None, 16)), "memory_gb": rng.choice((0.0, 4.0))}
    settings |= {"channels": rng.choice((None, 1, 3)), "on_error": rng.choice(("raise", "skip"))}

    def load() -> None:
        data = Images(path=str(folder), batch_size=2, val_fraction=0.2, test_fraction=0.2, **settings)
        data.setup()
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            for x, _ in loader:
                assert x.shape[1:] == data.spec.shape
                assert 0 <= x.min() <= x.max() <= 1

    return load


def texts(folder: Path, rng: random.Random) -> Callable[[], None]:
    """A damaged text between good ones, or a strange one."""
    raw = "def f(x):\n    return 'Zwölf €5 😀' + x\n".encode() * 40
    strange = (
        b"",
        b"\0" * 100,
        b"a" * 300_000,
        b" " * 300_000,
        b"\n" * 9,
        b"\xff\xfe" + raw,
        raw.decode().encode("utf-16"),
    )
    bad = rng.choice(strange) if rng.random() < 0.3 else damaged(raw, rng)
    (folder / "a.txt").write_bytes(bad)
    if rng.random() < 0.5:
        (folder / "b.txt").write_bytes(raw)
    tokenizer = rng.choice(("char", "byte", "word", {"name": "bpe", "vocab_size": 280, "min_frequency": 1}))

    def load() -> None:
        data = Text(path=str(folder), tokenizer=tokenizer, context=8, batch_size=2)
        data.setup()
        again = loads(data.spec.tokens.tokenizer)
        x, y = next(iter(data.train_dataloader()))
        assert x.shape == y.shape
        assert int(x.max()) < again.vocab_size == data.spec.tokens.vocab_size

    return load


def idx_files(folder: Path, rng: random.Random) -> Callable[[], None]:
    """MNIST's four files, one of them damaged."""
    noise = np.random.default_rng(0)
    (folder / "MNIST/raw").mkdir(parents=True)
    bad = rng.randrange(4)
    for i, (split, n) in enumerate((("train", 40), ("train", 40), ("t10k", 10), ("t10k", 10))):
        array = noise.integers(0, 256, (n, 28, 28)) if i % 2 == 0 else noise.integers(0, 10, n)
        raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
        name = f"{split}-{'labels-idx1' if i % 2 else 'images-idx3'}-ubyte"
        (folder / "MNIST/raw" / name).write_bytes(damaged(raw, rng) if i == bad else raw)

    def load() -> None:
        before, torchvision.N_VAL = torchvision.N_VAL, 10
        try:
            data = torchvision.MNIST(path=str(folder), batch_size=4, download=False)
            data.setup()
            for x, y in data.train_dataloader():
                assert x.shape[1:] == data.spec.shape
                assert 0 <= int(y.min()) <= int(y.max()) < 10
        finally:
            torchvision.N_VAL = before

    return load


WORDS = ["low lower lowest newer wider new", "e\u0301 € 😀"]
STATES = [dumps(t.fit(WORDS)) for t in (Char(), Word(vocab_size=270), BPE(min_frequency=1, vocab_size=280))]


def tokenizers(folder: Path, rng: random.Random) -> Callable[[], None]:
    """The tokenizer of a checkpoint, with one value changed or as a damaged string."""
    text = rng.choice(STATES)
    plain = tuple(value for value in ODD if not isinstance(value, torch.Tensor))
    if rng.random() < 0.4:
        bad = damaged(text.encode(), rng).decode(errors="replace")
    else:
        values = json.loads(text)
        if values["name"] == "bpe":
            values["state"] = json.dumps(twisted(json.loads(values["state"]), rng, plain))
        bad = json.dumps(values if values["name"] == "bpe" and rng.random() < 0.9 else twisted(values, rng, plain))

    def load() -> None:
        tokenizer = loads(bad)
        ids = tokenizer.encode("new lower €")
        assert all(0 <= i < tokenizer.end for i in ids)
        tokenizer.decode(ids)

    return load


def base_checkpoint(rng: random.Random) -> dict[str, Any]:
    """Of a small model of one of the families."""
    image = DataSpec(spaces.Image(1, 8, 8, levels=17), Label(10), name="digits")
    text = DataSpec(Tokens(8, 280, STATES[2]), name="text")
    flat: dict[str, Any] = {"name": "mlp", "width": 8, "depth": 1}
    name, spec, settings = rng.choice(
        (
            ("ae", image, {"latent_dim": 2, "encoder": flat, "decoder": flat}),
            ("vae", image, {"latent_dim": 2, "encoder": flat, "decoder": flat}),
            ("gan", image, {"latent_dim": 2, "generator": flat, "discriminator": flat}),
            ("language_model", text, {"backbone": {"name": "transformer", "d_model": 8, "n_layers": 1, "n_heads": 2}}),
        )
    )
    if spec is text:
        spec = DataSpec(Tokens(8, loads(STATES[2]).vocab_size, STATES[2]), name="text")
    model = registry.build("model", {"name": name, **settings}, spec)
    saved = {"state_dict": dict(model.state_dict()), "hyper_parameters": dict(model.hparams), "epoch": 0, "loops": {}}
    model.on_save_checkpoint(saved)
    return saved


def checkpoints(folder: Path, rng: random.Random) -> Callable[[], None]:
    """A checkpoint with one value changed, or as a damaged file."""
    saved, path = base_checkpoint(rng), folder / "best.ckpt"
    if rng.random() < 0.5:
        torch.save(twisted(saved, rng), path)
    else:
        torch.save(saved, path)
        path.write_bytes(damaged(path.read_bytes(), rng))
    return lambda: loading.load(folder) and None


def recipes(folder: Path, rng: random.Random) -> Callable[[], None]:
    """A damaged `overrides.yaml`, as `resume=` reads it."""
    raw = b"- model=vae\n- data=mnist\n- model.latent_dim=8\n- seed=${model.beta}\n- 'data.path=/a b'\n- ~trainer\n"
    (folder / "overrides.yaml").write_bytes(damaged(raw, rng))
    return lambda: sandbox.read_saved_overrides(folder / "overrides.yaml") and None


LOADERS = {
    "pictures": pictures,
    "texts": texts,
    "IDX files": idx_files,
    "tokenizers": tokenizers,
    "checkpoints": checkpoints,
    "runs' overrides": recipes,
}


# -- trying --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """End with a TimeoutError what takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(loader: str, seed: int, tally: Tally) -> None:
    """Make one bad input, and see what becomes of it."""
    rng = random.Random(f"{loader} {seed}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load, began = LOADERS[loader](Path(folder), rng), time.perf_counter()
        try:
            with limited(SECONDS):
                load()
            tally.worked += 1
        except ZooError as refusal:
            if str(refusal) == printable(str(refusal)) and len(str(refusal)) < 2000:
                tally.refused += 1
            else:
                tally.crashed.append(f"{loader} {seed}: refused in more than a sentence: {str(refusal)[:300]!r}")
        except BaseException as error:  # panics of the tokenizers library do not derive from Exception
            tally.crashed.append(f"{loader} {seed}: {type(error).__name__}: {str(error)[:300]}")
        tally.slowest = max(tally.slowest, time.perf_counter() - began)


def fuzz(loader: str, n: int) -> Tally:
    """Try n bad inputs, the same ones each time."""
    logger, tally = logging.getLogger("zoo"), Tally()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for seed in range(n):
            attempt(loader, seed, tally)
    finally:
        logger.setLevel(level)
    return tally


def main(n: int) -> None:
    """Print the table."""
    print("| loader | tried | worked | refused in one sentence | crashed | slowest (s) |\n|---|---|---|---|---|---|")
    for loader in LOADERS:
        tally = fuzz(loader, n)
        numbers = f"{tally.worked} | {tally.refused} | {len(tally.crashed)} | {tally.slowest:.1f}"
        print(f"| {loader} | {n} | {numbers} |", *tally.crashed, sep="\n", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
