"""Save and restore the state of all random number generators, which Lightning's checkpoints do not contain."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
import torch.distributed as dist

VALIDATION_SEED = 1


class RNGState(L.Callback):
    """Makes the random numbers of training a function of the seed and the number of batches.

    The generators of torch, CUDA, Python and NumPy are saved with every checkpoint, and restored on resume. Every
    validation uses the same separate seed, so the number of validations does not affect the training.
    """

    def __init__(self) -> None:
        self.begun = False  # everything is restored, and training has started
        self.restored: dict[str, Any] = {}
        self.training: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """One state per process: tensors and plain values, which load with `weights_only=True`."""
        states = [self.training or snapshot()]  # a checkpoint written during validation holds training's state
        if dist.is_initialized():  # Lightning calls this in all processes
            mine, states = states[0], [{}] * dist.get_world_size()
            dist.all_gather_object(states, mine)
        return {"processes": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the state until training starts: set-up may draw random numbers before."""
        self.restored = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the generators; in a new run, seed each process differently."""
        states = self.restored.get("processes", [])
        if len(states) == trainer.world_size:
            restore(states[trainer.global_rank])
        else:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)
        self.restored, self.begun = {}, True

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the generators, and seed the validation."""
        self.training = snapshot()
        torch.manual_seed(VALIDATION_SEED)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the generators."""
        restore(self.training)
        self.training = {}


def snapshot() -> dict[str, Any]:
    """State of all generators, as tensors and plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def restore(state: dict[str, Any]) -> None:
    """Inverse of `snapshot`; CUDA states are skipped if the number of devices differs."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
