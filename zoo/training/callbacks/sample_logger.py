"""Log samples from fixed noise, reconstructions, interpolations, text, sound and animations."""

from functools import partial

import pytorch_lightning as L

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.io.atomic import write_text
from zoo.models.base import Model
from zoo.runs.loggers import log_gif, picture_tag, summary_writer
from zoo.training.callbacks.graceful_stop import GracefulStop
from zoo.training.context import TrainingContext
from zoo.viz import images
from zoo.viz.animation import Animation, gif, save_gif
from zoo.viz.render import as_code_block, render_samples
from zoo.viz.sound import Sound, save_wav


@register("callback", "sample_logger")
class SampleLogger(L.Callback):
    """Writes samples, reconstructions and interpolations to TensorBoard after each validation; samples to files too.

    Separate generators are used, so the training is not affected.

    Args:
        context: its run folder receives `samples/<batch>.png`, `.txt`, `.csv`, `.wav` or `.gif`.
    """

    with_sharded_weights = "off"  # the first process runs the model alone

    def __init__(self, context: TrainingContext) -> None:
        self.folder = context.run.samples

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Every model."""
        return True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Render and write; a signal ends the rendering."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Model)
        step = pl_module.step + 1
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        writer = summary_writer(trainer)
        stop = next((c for c in trainer.callbacks if isinstance(c, GracefulStop)), None)  # type: ignore[attr-defined]
        draw = partial(render_samples, pl_module, data)
        for name, picture in ((stop.draw(draw) if stop else draw()) or {}).items():
            file = f"{step:06d}" if name == "samples" else f"{name}-{step:06d}"
            if isinstance(picture, Sound):
                save_wav(self.folder / f"{step:06d}.wav", picture)
                if writer:
                    writer.add_audio(picture_tag(name), picture.wave.mean(0, keepdim=True), step, picture.rate)
            elif isinstance(picture, Animation):
                save_gif(self.folder / f"{step:06d}.gif", picture)
                if writer:
                    log_gif(writer, picture_tag(name), gif(picture), picture.frames.shape[1:3], step)
            elif isinstance(picture, str):
                if name == "samples":
                    write_text(self.folder / f"{file}{getattr(picture, 'suffix', '.txt')}", picture)
                if writer:
                    writer.add_text(
                        picture_tag(name), picture if picture.startswith("|") else as_code_block(picture), step
                    )
            else:
                if name == "samples":
                    images.save_png(self.folder / f"{file}.png", picture)
                if writer:
                    writer.add_image(picture_tag(name), picture, step, dataformats="HWC")
