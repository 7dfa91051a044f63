"""What a model has learned, to look at: samples from the same noise over time, reconstructions, walks, text."""

from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.callbacks import pictures
from zoo.callbacks.reading import reading
from zoo.data.base import DataModule
from zoo.data.instructions import Answers
from zoo.data.loader import seeded
from zoo.models.base import Encodes, GenerativeModel, Interpolates, Writes
from zoo.run import board
from zoo.whole import write_text

SEED = 20_000_000  # of the noise that is the same in every picture of every run


class Samples(L.Callback):
    """After each validation: samples as a file and on the dashboard, with reconstructions and walks where they exist.

    Everything is drawn from generators of its own, so that looking at a model does not change its training.

    Args:
        folder: for the files `<batch>.png` or `<batch>.txt`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, GenerativeModel)
        step = pl_module.step + 1
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        writer = board(trainer)
        for name, picture in draw(pl_module, data).items():
            file = f"{step:06d}" if name == "samples" else f"{name}-{step:06d}"
            if isinstance(picture, str):
                if name == "samples":
                    write_text(self.folder / f"{file}.txt", picture)
                if writer:
                    writer.add_text(name, picture if picture.startswith("|") else fenced(picture), step)
            else:
                if name == "samples":
                    pictures.save_png(self.folder / f"{file}.png", picture)
                if writer:
                    writer.add_image(name, picture, step, dataformats="HWC")


@torch.no_grad()
def draw(model: GenerativeModel, data: DataModule) -> dict[str, pictures.Picture | str]:
    """Everything a model can show of itself: name -> picture (H, W, 3) uint8, or text.

    The model's mode (train or eval) is left as found.
    """
    training = model.training
    model.eval()
    shown: dict[str, pictures.Picture | str] = {}
    if isinstance(model, Writes) and model.spec.text:
        if model.spec.kind == "pair":
            shown["samples"] = show_pairs(model, data)
        else:
            asked = data.pairs("val")[:6] if isinstance(data, Answers) else [("", "")] * 6
            shown["samples"] = show_text(model, [prompt for prompt, _ in asked])
        shown |= reading(model, data)
    else:
        n = {"image": 60 if model.conditional else 64, "vector": 2500}[model.spec.kind]
        shown["samples"] = show(model, *labelled(model, n, seeded(SEED)))
    if model.spec.kind == "image":
        if isinstance(model, Encodes):
            x, y = data.fetch(data.val, torch.arange(min(32, len(data.val[0]))), seeded(SEED), train=False)
            again = model.reconstruct(x.to(model.device), y.to(model.device))
            shown["reconstructions"] = pictures.pairs(x, again)
        if isinstance(model, Interpolates):
            shown["interpolations"] = pictures.strips(model.interpolate(8, 10, generator=seeded(SEED, 1)))
    model.train(training)
    return shown


def labelled(
    model: GenerativeModel, n: int, generator: torch.Generator, label: int | None = None
) -> tuple[Tensor, int | None]:
    """Samples, and in how many columns to show them: a conditional model gets a column for each class."""
    if not model.conditional:
        return model.sample(n, generator=generator), None
    k = model.spec.n_classes
    classes = torch.arange(n) % k if label is None else torch.full((n,), label)
    return model.sample(n, condition=classes, generator=generator), k if label is None and k <= 16 else None


def show(model: GenerativeModel, x: Tensor, columns: int | None = None) -> pictures.Picture:
    """Samples as one picture: a grid of images, or the density of points."""
    return pictures.grid(x, columns) if model.spec.kind == "image" else pictures.density(x.cpu())


def show_text(model: Any, prompts: list[str], tokens: int = 200) -> str:
    """Prompts, which may be empty, and what follows them."""
    done = model.generate(prompts, max_new_tokens=tokens, seed=SEED)
    texts = [prompt + text.text for prompt, text in zip(prompts, done, strict=True)]
    return f"\n{'-' * 78}\n".join(texts)


def show_pairs(model: Any, data: Any, n: int = 8) -> str:
    """The first validation sources, their targets, and what the model writes, likeliest token by token."""
    pairs = data.pairs("val")[:n]
    done = model.generate([source for source, _ in pairs], temperature=0, seed=SEED)
    shown = [
        f"source  {source}\ntarget  {target}\nmodel   {written.text}"
        for (source, target), written in zip(pairs, done, strict=True)
    ]
    return f"\n{'-' * 78}\n".join(shown)


def fenced(text: str) -> str:
    """Text as a block that Markdown leaves alone."""
    return "\n".join("    " + line for line in text.splitlines())
