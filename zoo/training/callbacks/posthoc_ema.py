"""Averages of the weights from which an average of any width can be made after the training (EDM2)."""

from typing import Annotated, Any

import pytorch_lightning as L
import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.io.atomic import write_bytes
from zoo.io.folders import make_folder
from zoo.io.weights_file import pack
from zoo.models.base import Model
from zoo.nn.optim.power_ema import decay, exponent
from zoo.runs.posthoc_ema import FOLDER
from zoo.training.context import TrainingContext


@register("callback", "posthoc_ema")
class PosthocEMA(L.Callback):
    """Stores averages with power-function profiles during the training (Karras et al. 2023, arXiv:2312.02696).

    `zoo ema RUN --std 0.15` then makes an average of any width. The training, and its other average, stay as they are.
    Each file in `posthoc_ema/` is a complete model.

    Args:
        context: its run folder receives the files.
        stds: widths of the averages, as standard deviations relative to the length of the training.
        snapshots: files of each average, evenly over the training.
    """

    with_sharded_weights = "refused"  # it averages whole weights

    def __init__(
        self,
        context: TrainingContext,
        *,
        stds: Annotated[tuple[float, ...], Interval(gt=0.0, lt=0.28)] = (0.05, 0.1),
        snapshots: PositiveInt = 16,
    ) -> None:
        self.folder, self.stds, self.snapshots = context.run.folder / FOLDER, tuple(stds), snapshots
        self.seen = 0  # samples
        self.tracks: dict[str, dict[str, Tensor]] = {}  # by std: averages by the names of the weights

    def state_dict(self) -> dict[str, Any]:
        """Averages and samples so far."""
        return {"seen": self.seen, "tracks": {std: dict(track) for std, track in self.tracks.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.seen = state_dict["seen"]
        self.tracks = {std: {k: v.clone() for k, v in track.items()} for std, track in state_dict["tracks"].items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the averages at the initial weights, or move the restored ones to the model's device."""
        assert isinstance(pl_module, Model)
        named = {
            f"{name}.{key}": value
            for name, part in pl_module.modules_to_average().items()
            for key, value in part.named_parameters()
        }
        for std in map(str, self.stds):
            track = self.tracks.get(std, {key: value.detach().clone() for key, value in named.items()})
            self.tracks[std] = {key: track[key].to(value.device) for key, value in named.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages, and store them if due."""
        assert isinstance(pl_module, Model)
        samples = len(batch) * trainer.world_size
        self.seen += samples
        for std, track in self.tracks.items():
            factor = decay(exponent(float(std)), self.seen, samples)
            live: list[Tensor] = [pl_module.get_parameter(name) for name in track]
            torch._foreach_lerp_(list(track.values()), live, 1 - factor)
        done, total = pl_module.step + 1, pl_module.total_steps
        if trainer.is_global_zero and done * self.snapshots // total > (done - 1) * self.snapshots // total:
            self.store(pl_module, done)

    def store(self, model: Model, batches: int) -> None:
        """Write one file for each average."""
        make_folder(self.folder)
        for std, track in self.tracks.items():
            profile = {"std": float(std), "seen": self.seen}
            note = {**model.note(), "hyper_parameters": dict(model.hparams), "posthoc_ema": profile}
            file = self.folder / f"{batches:07d}-{std}.safetensors"
            write_bytes(file, pack({**model.state_dict(), **track}, note))
