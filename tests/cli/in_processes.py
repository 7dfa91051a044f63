"""Trains three models into a folder: `python in_processes.py FOLDER PROCESSES BATCH`, or `run` in this process."""

import sys
from pathlib import Path

import torch

from zoo.config.compose import compose
from zoo.data.base import Split
from zoo.data.text.plain import Text
from zoo.models.adversarial.gan import GAN
from zoo.training.train import train

# Muon scales up near-zero updates, rounding errors included.
SMALL = [
    "model.backbone.d_model=32",
    "model.backbone.n_layers=2",
    "model.optimizer=adamw",
    "data.context=16",
    "data/tokenizer=char",
]
fetch = Text.fetch
MODELS = {"ae": ["model=ae"], "gan": ["model=gan"], "gpt": ["model=gpt", "data=text", *SMALL]}


def run(folder: Path, processes: int, batch: int, names: tuple[str, ...] = tuple(MODELS)) -> None:
    """Six batches of each model in so many processes, of so many samples in each of them."""
    GAN.latents, Text.fetch = shared_latents, from_the_beginning
    for name in names:
        text = [f"data.path={folder / 'text.txt'}"] * (name == "gpt")
        where = [f"trainer.devices={processes}", *["+trainer.strategy=ddp"] * (processes > 1)]
        cfg = compose(
            *MODELS[name], *text, *where, "trainer=cpu", "trainer.precision=32-true", f"data.batch_size={batch}",
            "trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.log_every_n_steps=1",
        )  # fmt: skip
        train(cfg, str(folder / f"{name}-{processes}x{batch}"))


def shared_latents(self: GAN, n: int) -> torch.Tensor:
    """A process's part of one stream of noise, dealt out as the samples are."""
    if not hasattr(self, "stream"):
        self.stream = torch.Generator().manual_seed(1)
    world = self.trainer.world_size
    return torch.randn(n * world, self.latent_dim, generator=self.stream)[self.global_rank :: world]


def from_the_beginning(self: Text, split: Split, indices: torch.Tensor, generator: torch.Generator, **_: bool) -> Split:
    """Windows that begin where their stretch of text does: every process draws its own random places."""
    return fetch(self, split, indices, generator, train=False)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
