"""What a model has learned, to look at: samples from the same noise over time, reconstructions, walks, text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.callbacks import pictures
from zoo.data.base import DataModule
from zoo.data.loader import seeded
from zoo.models.base import Encodes, GenerativeModel, Interpolates, Writes
from zoo.run import write_text

SEED = 20_000_000  # of the noise that is the same in every picture of every run


class Samples(L.Callback):
    """After each validation: samples as a file and on the dashboard, with reconstructions and walks where they exist.

    Everything is drawn from generators of its own, so that looking at a model does not change its training.

    Args:
        folder: for the files `<batch>.png` or `<batch>.txt`.
        n: number of samples in a grid.
    """

    def __init__(self, folder: Path, n: int = 64) -> None:
        self.folder, self.n = folder, n

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, GenerativeModel)
        step = pl_module.step + 1
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        board = next((logger.experiment for logger in trainer.loggers if hasattr(logger.experiment, "add_image")), None)
        for name, picture in draw(pl_module, data, self.n).items():
            file = f"{step:06d}" if name == "samples" else f"{name}-{step:06d}"
            if isinstance(picture, str):
                write_text(self.folder / f"{file}.txt", picture)
                if board:
                    board.add_text(name, fenced(picture), step)
            else:
                if name == "samples":
                    pictures.save_png(self.folder / f"{file}.png", picture)
                if board:
                    board.add_image(name, picture, step, dataformats="HWC")


@torch.no_grad()
def draw(model: GenerativeModel, data: DataModule, n: int = 64) -> dict[str, np.ndarray[Any, Any] | str]:
    """Everything a model can show of itself: name -> picture (H, W, 3) uint8, or text.

    The model's mode (train or eval) is left as found.
    """
    training = model.training
    model.eval()
    shown: dict[str, np.ndarray[Any, Any] | str] = {}
    if isinstance(model, Writes) and model.spec.kind == "tokens":
        shown["samples"] = show_text(model)
    else:
        classes = torch.arange(n) % max(model.spec.n_classes, 1) if model.conditional else None
        shown["samples"] = show(model, model.sample(n, condition=classes, generator=seeded(SEED)))
        if isinstance(model, Encodes):
            x, y = data.fetch(data.val, torch.arange(min(32, len(data.val[0]))), seeded(SEED), train=False)
            x, y = x.to(model.device), y.to(model.device)
            pair = model.reconstruct(x, y)
            if model.spec.kind == "image":
                shown["reconstructions"] = pictures.pairs(x.cpu(), pair.cpu())
        if isinstance(model, Interpolates) and model.spec.kind == "image":
            shown["interpolations"] = pictures.strips(model.interpolate(8, 10, generator=seeded(SEED, 1)).cpu())
    model.train(training)
    return shown


def show(model: GenerativeModel, x: Tensor) -> np.ndarray[Any, Any]:
    """Samples as one picture: a grid of images, or the density of points."""
    return pictures.grid(x.cpu()) if model.spec.kind == "image" else pictures.density(x.cpu())


def show_text(model: Any, n: int = 3, tokens: int = 256) -> str:
    """Texts begun from nothing."""
    texts = [done.text for done in model.generate([""] * n, max_new_tokens=tokens, seed=SEED)]
    return f"\n{'-' * 78}\n".join(texts)


def fenced(text: str) -> str:
    """Text as a block that Markdown leaves alone."""
    return "\n".join("    " + line for line in text.splitlines())
