"""Trains a small language model in two processes: `python fsdp_processes.py FOLDER STRATEGY BATCH [RUN to resume]`.

Each process writes which part of the weights and of the optimizer state it holds.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as L

from tests.cli.in_processes import MODELS, from_the_beginning
from zoo.config.compose import compose
from zoo.data.text.plain import Text
from zoo.training.callbacks.rng_state import RNGState
from zoo.training.fsdp import local
from zoo.training.train import train


def run(folder: Path, strategy: str, batch: int, name: str, resume: Path | None = None) -> Path:
    """Six batches in `folder / name`."""
    Text.fetch = from_the_beginning  # type: ignore[method-assign]
    several = ["trainer.devices=2", f"+trainer.strategy={strategy}"] if strategy != "auto" else []
    cfg = compose(
        *MODELS["gpt"], *several, f"data.path={folder / 'text.txt'}", "trainer=cpu", "trainer.precision=32-true",
        f"data.batch_size={batch}", "trainer.max_steps=6", "trainer.val_check_interval=3",
        "trainer.log_every_n_steps=1", "+trainer.gradient_clip_val=0.5", *([f"resume={resume}"] if resume else []),
    )  # fmt: skip
    train(cfg, str(resume or folder / name))
    return folder / name


def write_held(folder: Path, strategy: str) -> None:
    """At the end of the training, write the numbers that this process holds, and all of them."""

    def on_train_end(self: RNGState, trainer: L.Trainer, module: L.LightningModule) -> None:
        weights = list(module.parameters())
        states: list[Any] = [v for s in trainer.optimizers[0].state.values() for v in s.values() if v.ndim]
        held = {
            "weights": [sum(local(t).numel() for t in weights), sum(t.numel() for t in weights)],
            "state": [sum(local(t).numel() for t in states), sum(t.numel() for t in states)],
        }
        (folder / f"held-{strategy}-{trainer.global_rank}.json").write_text(json.dumps(held))

    RNGState.on_train_end = on_train_end  # type: ignore[method-assign]


if __name__ == "__main__":
    where, how, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    for each in how.split(","):
        write_held(where, each)
        run(where, each, size, each, Path(sys.argv[4]) if sys.argv[4:] else None)
