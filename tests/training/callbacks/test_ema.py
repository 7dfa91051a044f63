"""The average of the weights as a callback: its half-life, where it is seen, and what a checkpoint holds."""

from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

import zoo
from zoo.core import registry
from zoo.core.spaces import Vector
from zoo.io.vetting import check_state_dict
from zoo.models.base import Model
from zoo.nn.blocks.layers import maybe_spectral_norm
from zoo.runs.checkpoint import read_checkpoint, restore_model
from zoo.training.callbacks.ema import EMACallback

SPEC = zoo.DataSpec(Vector(2), name="points")
BATCH = 16


@pytest.fixture(autouse=True)
def models():
    with registry.isolated():

        @zoo.register("model", "steady")
        class Steady(Model):
            """One weight that every batch takes a step of one down."""

            def __init__(self, spec, *, optimizer: zoo.Optimizer = "sgd") -> None:
                super().__init__(spec)
                self.part_ = nn.Linear(1, 1, bias=False)
                nn.init.zeros_(self.part_.weight)
                self.seen: list[float] = []

            def loss(self, batch):
                return {"loss": self.part_.weight.sum()}

            def validation_step(self, batch, batch_idx):
                self.seen.append(self.part_.weight.item())

            def sample(self, n, *, condition=None, generator=None, **options):
                return self.part_.weight.expand(n, 2)

        yield


def steady() -> Model:
    return zoo.create_model("steady", data=SPEC, optimizer={"lr": 1.0, "momentum": 0.0})


def loader(size: int = BATCH * 8, batch: int = BATCH) -> DataLoader:
    return DataLoader(torch.utils.data.TensorDataset(torch.randn(size, 2), torch.zeros(size).long()), batch)


def train(model: L.LightningModule, steps: int, *callbacks: L.Callback, **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(model, loader(), loader(BATCH))
    return trainer


def expected(steps: int, half_life: float, batch: int = BATCH) -> float:
    """The average of weights -1, -2, ... after so many steps from an average of 0.

    a(t) = r a(t-1) - (1 - r) t with r = 2^(-batch / half_life), hence a(t) = -(t - r (1 - r^t) / (1 - r)).
    """
    r = 2 ** (-batch / half_life)
    return -(steps - r * (1 - r**steps) / (1 - r))


@pytest.mark.parametrize("half_life", [BATCH, 100, 5_000])
def test_the_half_life_is_in_samples(half_life: float) -> None:
    model, callback = steady(), EMACallback(half_life=half_life, ramp_up=0)
    train(model, 20, callback)
    assert callback.averages["part_"].average.weight.item() == pytest.approx(expected(20, half_life), rel=1e-5)
    assert model.part_.weight.item() == pytest.approx(expected(20, half_life), rel=1e-5), "after the training too"
    assert expected(20, half_life) != pytest.approx(expected(20, 2 * half_life), rel=1e-2), "the control"
    assert expected(20, half_life) != pytest.approx(expected(20, half_life, batch=1), rel=1e-2), "in samples, not steps"


def test_the_average_is_validated_and_drawn_and_the_raw_weights_are_trained() -> None:
    """Callbacks before and after it see the average at the end of a validation."""

    class Watch(L.Callback):
        def __init__(self) -> None:
            self.drawn: list[float] = []
            self.trained: list[float] = []

        def on_validation_end(self, trainer, pl_module) -> None:
            self.drawn.append(pl_module.part_.weight.item())

        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            self.trained.append(pl_module.part_.weight.item())

    before, after, model = Watch(), Watch(), steady()
    train(model, 9, before, EMACallback(half_life=50, ramp_up=0), after, val_check_interval=4)
    average = pytest.approx([expected(4, 50), expected(8, 50)], rel=1e-5)
    assert model.seen == average
    assert before.drawn == average
    assert after.drawn == average
    assert after.trained == [-float(step) for step in range(1, 10)]


def test_the_ramp_up_is_the_averages_own() -> None:
    model, callback = steady(), EMACallback(half_life=1e6, ramp_up=0.05)
    train(model, 40, callback)
    assert abs(model.part_.weight.item() + 40) < 5, "the first weights are forgotten early"


@pytest.mark.parametrize("validated", [True, False], ids=["while the model holds it", "in the middle of training"])
def test_a_checkpoint_holds_the_average_and_the_raw_weights(validated: bool, tmp_path: Path) -> None:
    class Save(L.Callback):
        def save(self, trainer) -> None:
            trainer.save_checkpoint(tmp_path / "one.ckpt")

        def on_validation_end(self, trainer, pl_module) -> None:
            if validated:
                self.save(trainer)

        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            if not validated and pl_module.step == 3:
                self.save(trainer)

    train(steady(), 4, EMACallback(half_life=50, ramp_up=0), Save(), val_check_interval=4)
    saved = read_checkpoint(tmp_path / "one.ckpt")  # vetted
    assert saved["state_dict"]["part_.weight"].item() == pytest.approx(expected(4, 50), rel=1e-5)
    assert {key: value.item() for key, value in saved["ema"]["raw"].items()} == {"part_.weight": -4.0}
    assert saved["ema"]["seen"] == {"part_": 4 * BATCH}
    model = restore_model(saved)
    check_state_dict(model, saved["state_dict"], tmp_path)
    assert model.sample(1)[0, 0].item() == pytest.approx(expected(4, 50), rel=1e-5)


def test_spectral_normalisation_belongs_to_the_weights_it_is_of() -> None:
    """The averaged weight has norm one under its own vectors, and training's vectors come back."""

    class Watch(L.Callback):
        def __init__(self) -> None:
            self.norms: list[float] = []
            self.kept: list[bool] = []
            self.before: dict[str, torch.Tensor] = {}

        def on_validation_end(self, trainer, pl_module) -> None:
            self.norms.append(torch.linalg.matrix_norm(pl_module.part_.weight, 2).item())

        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}

        def on_train_batch_start(self, trainer, pl_module, *_) -> None:
            if self.before:
                self.kept += [torch.equal(v, self.before[k]) for k, v in pl_module.state_dict().items()]

    torch.manual_seed(0)
    model, watch = steady(), Watch()
    model.part_ = maybe_spectral_norm(nn.Linear(12, 12, bias=False), True)
    target = torch.randn(12, 12)
    model.loss = lambda batch: {"loss": (model.part_.weight * target).sum()}
    model.validation_step = lambda batch, batch_idx: None
    train(model, 9, EMACallback(half_life=50), watch, val_check_interval=2)
    assert watch.norms == pytest.approx([1] * 4, abs=0.05)
    assert all(watch.kept)
    assert len(watch.kept) > 8


def test_a_gan_keeps_its_own_average(caplog) -> None:
    model = zoo.create_model("gan", data=SPEC)
    assert model.modules_to_average() == {}
    train(model, 2, callback := EMACallback(), limit_val_batches=0)
    assert callback.averages == {}
    assert "callbacks=ema does not average generator." in caplog.text


def test_it_is_registered_with_its_settings() -> None:
    assert registry.get("callback", "ema") is EMACallback
    assert registry.build("callback", {"name": "ema", "half_life": 5}).half_life == 5
    with pytest.raises(zoo.ZooError, match="half_life"):
        registry.build("callback", {"name": "ema", "half_life": 0})
