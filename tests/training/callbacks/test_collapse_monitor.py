"""A collapsed game is noticed, a healthy one is not."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import SPECS
from tests.contracts.test_resume import Data
from zoo.models.adversarial.gan import GAN
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.collapse_monitor import PATIENCE, CollapseMonitor, classes, detail, spread
from zoo.training.callbacks.throughput import StatsMonitor


def test_spread_and_classes_in_closed_form() -> None:
    real = torch.randn(500, 7)
    assert spread(real, real) == pytest.approx(1)
    assert spread(real, real / 2 + 3) == pytest.approx(0.25)
    assert spread(real, real[:1].expand(50, 7)) == 0
    centres, labels = 10 * torch.eye(10), torch.arange(10).repeat(20)
    data = centres[labels] + torch.randn(200, 10) / 10
    assert classes(data, labels, data) == pytest.approx(1)
    assert classes(data, labels, data[labels == 3]) == pytest.approx(0.1)
    half = classes(data, labels, data[labels < 5])
    assert half == pytest.approx(0.5)
    uneven = torch.cat([data[labels == 0], data[labels == 1][:10]])  # 20 and 10 samples
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert classes(data, labels, uneven) == pytest.approx(math.exp(entropy) / 10, rel=1e-4)


def play(model: zoo.Model, folder: Path) -> CollapseMonitor:
    alarm = CollapseMonitor()
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(120), max_epochs=-1, val_check_interval=60, check_val_every_n_epoch=None,
        num_sanity_val_steps=0, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=1,
        logger=RunFolder(folder).loggers(), callbacks=[StatsMonitor(), alarm],
    )  # fmt: skip
    trainer.fit(model, datamodule=Data(model.spec, 0))
    return alarm


def test_detail_of_a_blur_in_closed_form() -> None:
    x = torch.randn(200, 1, 32, 32, dtype=torch.float64)
    blurred = (x + x.roll(1, -1)) / 2  # neighbours in a row share half of their noise
    expected = (2 * 1 / 4 + 2 * 1 / 2) / (2 + 2)  # differences along rows, then between rows; the first column wraps
    assert detail(x, blurred) == pytest.approx(expected, rel=0.02)
    assert detail(x, 0.5 * x) == pytest.approx(0.25)
    assert detail(x, x.mean((2, 3), keepdim=True).expand_as(x)) == 0.0
    assert detail(x, x.flip(0)) == pytest.approx(1.0)


def test_a_collapsed_generator_raises_the_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The generator is constant and does not learn, so the discriminator soon separates it from data."""
    model = zoo.create_model("gan", data=SPECS["image"], optimizer={"lr": 1e-12}, discriminator_lr=0.05)
    with torch.no_grad():
        for p in [*model.generator.parameters(), *model.generator_ema.parameters()]:
            p.zero_()
    alarm = play(model, tmp_path)
    assert {"saturation", "spread", "classes"} <= set(alarm.raised), alarm.readings
    told = [message for message in caplog.messages if message.startswith("collapse: ")]
    assert len(told) == len(alarm.raised), "each kind once"
    assert alarm.state_dict()["raised"] == alarm.raised
    assert "samples/spread" in (tmp_path / "metrics.csv").read_text()


def test_a_healthy_beginning_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: samples are data, and the first batches of the default recipe do not raise a warning."""
    data = Data(SPECS["image"], 0)
    data.setup()
    x, labels = data.train
    monkeypatch.setattr(GAN, "sample", lambda self, n, **_: x[torch.arange(n) % len(x)])
    assert labels.unique().numel() > 5
    assert play(zoo.create_model("gan", data=SPECS["image"]), tmp_path).raised == []


@pytest.mark.parametrize(("ratio", "rings"), [(1e5, True), (1e-5, True), (1e3, False), (1.0, False)])
def test_a_player_that_has_stopped_is_noticed(ratio: float, rings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, alarm = (
        zoo.create_model("gan", data=SPECS["vector"], generator="mlp", discriminator="mlp"),
        CollapseMonitor(),
    )
    numbers = {"train/accuracy_d": 0.9, "train/logit_real": 1.0, "train/logit_fake": 0.0}
    norms = {"grad_norm/generator": ratio, "grad_norm/discriminator": 1.0}
    trainer = SimpleNamespace(callback_metrics={**numbers, **norms}, is_global_zero=True, loggers=[])
    for step in range(1, PATIENCE + 1):
        assert alarm.raised == [], "not before it has lasted"
        monkeypatch.setattr(GAN, "step", step)
        monkeypatch.setattr(GAN, "is_logging_step", True)
        alarm.on_train_batch_end(trainer, model, None, None, 0)
    assert alarm.raised == (["gradients"] if rings else [])


@pytest.mark.parametrize(("loss", "gap", "rings"), [
    ("hinge", 11.0, True), ("hinge", 9.0, False), ("wasserstein", 50.0, False),
])  # fmt: skip
def test_a_saturated_discriminator_is_noticed(loss: str, gap: float, rings: bool, monkeypatch) -> None:
    networks = {"generator": "mlp", "discriminator": "mlp"}
    model, alarm = zoo.create_model("gan", data=SPECS["vector"], loss=loss, **networks), CollapseMonitor()
    numbers = {"train/accuracy_d": 1.0, "train/logit_real": gap, "train/logit_fake": 0.0}
    trainer = SimpleNamespace(callback_metrics=numbers, is_global_zero=True, loggers=[])
    monkeypatch.setattr(GAN, "is_logging_step", True)
    for _ in range(PATIENCE):
        alarm.on_train_batch_end(trainer, model, None, None, 0)
    assert alarm.raised == (["saturation"] if rings else [])


@pytest.mark.slow
def test_the_default_run_is_healthy(cli, tmp_path: Path) -> None:
    """Some minutes: 4000 batches on digits."""
    told = cli("model=gan", "trainer=cpu", "hydra.run.dir=mine")
    assert told.code == 0
    assert "collapse" not in told.err
