"""Collapse of adversarial training."""

import logging
import math
from collections import deque
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Fraction, Positive
from zoo.core.spaces import Image, Vector
from zoo.data.base import DataModule
from zoo.data.loader import fixed_order, make_generator
from zoo.metrics.prdc import prdc
from zoo.models.abilities import SupportsAdversarialLoss, SupportsPrior
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.loggers import summary_writer
from zoo.training.diagnosis import SHORT

SEED = 30_000_000  # of the noise that the samples are drawn from
N, N_VECTORS = 512, 2048  # samples, and held-out ones to compare them with; few vectors do not show thin structures
FEW = 100  # held-out vectors: the density of fewer is noise
PATIENCE = 20  # logged batches in a row
log = logging.getLogger(__name__)


@register("callback", "collapse_monitor")
class CollapseMonitor(L.Callback):
    """Warns of collapse in training, in the log and in TensorBoard, once per kind; for models that sample quickly.

    - Saturation: over `PATIENCE` logged batches the discriminator's accuracy is above 99.5 %, and mean logits differ by
      `gap`. Losses whose gradient does not vanish are exempt.
    - Imbalance: over as many batches the gradient norms of the players differ by more than `ratio`.
    - Low variance: total variance of samples, relative to held-out data, is below `spread` (`samples/spread`).
    - Missing classes, for data with labels: each sample gets the label of the nearest held-out sample. The effective
      number of classes, exp of the entropy, relative to the data, is below `classes` (`samples/classes`).

    The last two apply from the second validation on, and after `SHORT` batches: before, no model has learned much.

    Two numbers are logged for the diagnosis at the end, relative to the data. `samples/detail` is the difference of
    neighbouring pixels of images, and `samples/density` the number of held-out points near samples of vectors.

    Args:
        gap: difference of the mean logits of real and fake samples.
        ratio: ratio of gradient norms.
        spread: fraction of the data's variance.
        classes: fraction of the data's effective number of classes.
    """

    with_sharded_weights = "off"  # the first process runs the model alone

    def __init__(
        self, *, gap: Positive = 10.0, ratio: Positive = 1e4, spread: Fraction = 0.1, classes: Fraction = 0.4
    ) -> None:
        self.gap, self.ratio, self.spread, self.classes = gap, ratio, spread, classes
        self.raised: list[str] = []
        self.readings: deque[tuple[float, float, float]] = deque(maxlen=PATIENCE)  # accuracy, gap, ratio
        self.validations = 0

    @staticmethod
    def applies(model: Model, data: DataModule) -> bool:
        """Models with an adversarial loss, and models that decode latents from a prior."""
        return supports(model, SupportsAdversarialLoss) or supports(model, SupportsPrior)

    def state_dict(self) -> dict[str, Any]:
        """Issued warnings, and readings."""
        return {
            "raised": list(self.raised),
            "readings": [list(reading) for reading in self.readings],
            "validations": self.validations,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        self.raised, self.validations = list(state_dict["raised"]), state_dict["validations"]
        self.readings = deque((tuple(reading) for reading in state_dict["readings"]), maxlen=PATIENCE)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check discriminator and gradients on logged batches, where the logger waits for the device anyway."""
        assert isinstance(pl_module, Model)
        done, known = pl_module.step + 1, trainer.callback_metrics
        if not pl_module.is_logging_step or "train/accuracy_d" not in known:
            return
        norms = [float(known.get(f"grad_norm/{player}", math.nan)) for player in ("generator", "discriminator")]
        ratio = math.log10(norms[0] / norms[1]) if min(norms) > 0 else 0.0
        gap = float(known["train/logit_real"]) - float(known["train/logit_fake"])
        self.readings.append((float(known["train/accuracy_d"]), gap, ratio))
        if len(self.readings) < PATIENCE:
            return
        accuracy, gap = (sum(column) / PATIENCE for column in list(zip(*self.readings, strict=True))[:2])
        if pl_module.discriminator_saturates() and accuracy > 0.995 and gap > self.gap:
            self.warn_once(
                trainer,
                "saturation",
                f"the discriminator is saturated after {done} batches (accuracy {accuracy:.1%}, logits {gap:.0f} "
                f"apart). Set model.r1_gamma=1, a smaller model.discriminator_lr, or another model.loss",
            )
        ratios = [reading[2] for reading in self.readings]
        limit = math.log10(self.ratio)
        if all(r > limit for r in ratios) or all(r < -limit for r in ratios):
            self.warn_once(
                trainer,
                "gradients",
                f"after {done} batches the generator's gradient is {10 ** ratios[-1]:.1g} times the discriminator's. "
                f"Set model.discriminator_lr or model.clip",
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare samples with held-out data."""
        assert isinstance(pl_module, Model)
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        n = N_VECTORS if isinstance(pl_module.spec.x, Vector) else N
        real, labels = data.fetch(data.val, fixed_order(len(data.val[0]))[:n], make_generator(SEED), train=False)
        mode = pl_module.training
        pl_module.eval()
        with torch.no_grad():
            fake = pl_module.sample(n, generator=make_generator(SEED)).cpu().float().flatten(1)
        pl_module.train(mode)
        found = {"spread": spread(real.flatten(1), fake)} if len(real) > 1 else {}
        if isinstance(pl_module.spec.x, Image):
            found["detail"] = detail(real, fake.view(-1, *real.shape[1:]))
        elif isinstance(pl_module.spec.x, Vector) and len(real) >= FEW:
            found["density"] = prdc(real, fake)["density"]
        if pl_module.spec.n_classes > 1:
            found["classes"] = classes(real.flatten(1), labels, fake)
        pl_module.log_dict({f"samples/{name}": value for name, value in found.items()}, rank_zero_only=True)
        step = pl_module.step + 1
        self.validations += 1
        if self.validations < 2 or step < SHORT:
            return
        if found.get("spread", 1.0) < self.spread:
            self.warn_once(
                trainer,
                "spread",
                f"after {step} batches the variance of samples is {found['spread']:.1%} of the data's",
            )
        if found.get("classes", 1.0) < self.classes:
            self.warn_once(
                trainer,
                "classes",
                f"after {step} batches samples cover {found['classes']:.0%} of the data's effective number of classes",
            )

    def warn_once(self, trainer: L.Trainer, kind: str, sentence: str) -> None:
        """Warn, once per kind."""
        if kind in self.raised:
            return
        self.raised.append(kind)
        writer = summary_writer(trainer)
        if trainer.is_global_zero:
            log.warning("collapse: %s.", sentence)
        if writer:
            writer.add_text("collapse", sentence, trainer.fit_loop.epoch_loop.total_batch_idx + 1)


def spread(real: Tensor, fake: Tensor) -> float:
    """Ratio of total variances: samples (N, D) over data (M, D)."""
    return (fake.var(0).sum() / real.var(0).sum().clamp(min=1e-12)).item()


def detail(real: Tensor, fake: Tensor) -> float:
    """Ratio of mean squared differences of neighbouring pixels: samples (N, C, H, W) over data (M, C, H, W)."""

    def roughness(x: Tensor) -> Tensor:
        return x.diff(dim=-1).square().mean() + x.diff(dim=-2).square().mean()

    return (roughness(fake) / roughness(real).clamp(min=1e-12)).item()


def classes(real: Tensor, labels: Tensor, fake: Tensor) -> float:
    """Ratio of effective numbers of classes: samples (N, D), labelled by nearest neighbours, over data (M, D)."""
    nearest = labels[torch.cdist(fake, real).argmin(1)]

    def effective(given: Tensor) -> float:
        share = given.bincount().float() / len(given)
        return torch.special.entr(share).sum().exp().item()

    return effective(nearest) / effective(labels)
