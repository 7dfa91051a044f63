"""TensorBoard: chart layout, configuration, hyperparameters, latents, words."""

import re
from functools import partial
from typing import Any

import pytorch_lightning as L
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from zoo.config.compose import to_plain
from zoo.config.flatten import flatten
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image
from zoo.data.base import DataModule
from zoo.data.loader import fixed_order, make_generator
from zoo.models.abilities import SupportsLatents, SupportsWordVectors
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.loggers import summary_writer
from zoo.training.callbacks.graceful_stop import GracefulStop
from zoo.training.context import TrainingContext
from zoo.viz.render import as_code_block

CATEGORY = "all runs"


@register("callback", "tensorboard_layout")
class TensorBoardLayout(L.Callback):
    """Writes charts, configuration and hyperparameters at the start, a map of latents or words at the end.

    TensorBoard joins the charts of all runs, and draws a chart for every run that has its tags. They are therefore
    in one category, and each title names its tags alone, not a family.

    Args:
        context: its configuration is written as text and as hyperparameters.
        n_latents: number of validation samples, or of words, in the projector.
    """

    def __init__(self, context: TrainingContext, *, n_latents: PositiveInt = 1000) -> None:
        cfg, self.n_latents = context.cfg, n_latents
        self.config = OmegaConf.to_yaml(cfg, resolve=True)
        self.settings = {group: to_plain(cfg[group]) for group in ("model", "data", "trainer")} | {"seed": cfg.seed}

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Every model."""
        return True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write charts of several curves, the configuration as text, and the run's row of hyperparameters."""
        assert isinstance(pl_module, Model)
        writer = summary_writer(trainer)
        if writer is None or pl_module.step > 0:  # a resumed run has them
            return
        charts = {  # tags are regular expressions: train/loss must not match train/loss_d
            title: ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]] for title, tags in pl_module.charts().items()
        }
        writer.add_custom_scalars({CATEGORY: charts})
        writer.add_text("config", as_code_block(self.config), 0)
        self.row(writer, start=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the row of hyperparameters, and write the latents; a signal ends that."""
        assert isinstance(pl_module, Model)
        writer = summary_writer(trainer)
        if writer is None:
            return
        self.row(writer, start=False)
        if supports(pl_module, SupportsLatents):
            data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
            stop = next((c for c in trainer.callbacks if isinstance(c, GracefulStop)), None)  # type: ignore[attr-defined]
            write = partial(self.map_latents, writer, pl_module, data)
            stop.draw(write) if stop else write()
        if supports(pl_module, SupportsWordVectors):
            words = pl_module.words[: self.n_latents]
            vectors = pl_module.word_vectors()[: len(words)].cpu()
            writer.add_embedding(vectors, metadata=words, global_step=pl_module.step + 1, tag="word_vectors")

    def row(self, writer: Any, *, start: bool) -> None:
        """Write the start or the end of the run's row in the table of hyperparameters.

        The row does not list the columns: TensorBoard would take those of one run for all, and hide the others'.
        """
        _, started, ended = hparams(flatten(self.settings), {})
        writer._get_file_writer().add_summary(started if start else ended)

    @torch.no_grad()
    def map_latents(self, writer: Any, model: Any, data: DataModule) -> None:
        """Write latents of validation samples with labels and, for images, thumbnails.

        Latents as large as the data are the noise of diffusion or a flow: a ball, which may take minutes to compute.
        """
        rows = fixed_order(len(data.val[0]))[: self.n_latents]
        x, y = data.fetch(data.val, rows, make_generator(0), train=False)

        def encode(x: Tensor, y: Tensor) -> Tensor:
            return model.encode(x.to(model.device), y.to(model.device)).cpu()

        if encode(x[:1], y[:1]).numel() == x[0].numel():
            return
        z = torch.cat([encode(*chunk) for chunk in zip(x.split(250), y.split(250), strict=True)])
        thumbnails = None
        if isinstance(model.spec.x, Image):
            side = max(x.shape[-2:])
            scale = min(1.0, 8192 / (side * int(len(x) ** 0.5 + 1)))  # TensorBoard takes sprites of up to 8192 pixels
            rgb = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
            pad = side - torch.tensor(x.shape[-2:])
            thumbnails = torch.nn.functional.pad(rgb, (0, int(pad[1]), 0, int(pad[0])))  # sprites are square
            if scale < 1:
                thumbnails = torch.nn.functional.interpolate(thumbnails, scale_factor=scale, mode="area")
        labels = y.tolist() if model.spec.n_classes else None
        writer.add_embedding(z, metadata=labels, label_img=thumbnails, global_step=model.step + 1, tag="latents")
