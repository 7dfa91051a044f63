"""Values that are not finite, with one optimizer and with two."""

from pathlib import Path

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import make
from tests.contracts.test_resume import Data
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.checkpointer import Checkpointer
from zoo.training.callbacks.nan_guard import LIMIT, NonFiniteError, NonFiniteGuard

BAD = 5  # the batch, from 1


class Poison(L.Callback):
    """Corrupts data or the first gradient of chosen batches."""

    def __init__(self, what: str, batches: range, value: float = float("nan")) -> None:
        self.what, self.batches, self.value = what, batches, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.what == "data" and pl_module.step + 1 in self.batches:
            batch.x.fill_(self.value)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if self.what == "gradient" and pl_module.step + 1 in self.batches:
            optimizer.param_groups[0]["params"][0].grad.view(-1)[0] = self.value


def fit(
    name: str, folder: Path, poison: L.Callback, skip: bool = False, total: int = 12, every: int = 1, logged: int = 1
) -> tuple:
    model, run = make(name, "image"), RunFolder(folder)
    folder.mkdir(exist_ok=True)
    keeper = Checkpointer(run, every=every, guard=NonFiniteGuard(run, skip))
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(total), max_epochs=-1, logger=False, accelerator="cpu", limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, log_every_n_steps=logged, callbacks=[poison, keeper.guard, keeper],
    )  # fmt: skip
    try:
        trainer.fit(model, datamodule=Data(model.spec, 0))
    except NonFiniteError as error:
        return model, keeper, str(error)
    return model, keeper, ""


def finite(model: zoo.Model) -> bool:
    return all(t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point())


@pytest.mark.parametrize("name", ["ae", "gan"])
@pytest.mark.parametrize(("what", "value"), [("data", float("nan")), ("gradient", float("nan")), ("gradient", 1e30)])
def test_the_first_bad_batch_stops_the_run_before_it_is_saved(name, what, value, tmp_path: Path) -> None:
    model, _, told = fit(name, tmp_path, Poison(what, range(BAD, 99), value))
    assert told.startswith(f"batch {BAD}: "), told
    assert ("loss" in told.split(",")[0]) == (what == "data"), "the term is named where there is one"
    assert "the gradient norm" in told
    assert f"The last good checkpoint is {tmp_path}/last.ckpt" in told
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["run"]["batches"] == BAD - 1
    assert all(t.isfinite().all() for t in saved["state_dict"].values())
    assert finite(model) or what == "data", "a bad gradient never reaches the weights"


@pytest.mark.parametrize("name", ["ae", "gan", "sngan"])
def test_a_bad_batch_is_left_out_if_asked(name: str, tmp_path: Path, caplog) -> None:
    model, keeper, told = fit(name, tmp_path, Poison("data", range(BAD, BAD + 2)), skip=True)
    assert told == ""
    assert finite(model)
    left_out = [message for message in caplog.messages if "skipped" in message]
    assert [message.split(":")[0] for message in left_out] == [f"batch {BAD}", f"batch {BAD + 1}"]
    assert keeper.guard.skipped == 0, "good steps followed"


@pytest.mark.parametrize("name", ["ae", "gan"])
def test_leaving_out_has_a_limit(name: str, tmp_path: Path) -> None:
    _, _, told = fit(name, tmp_path, Poison("gradient", range(BAD, 99)), skip=True, total=40)
    assert told.startswith(f"{LIMIT} batches in a row were skipped, then batch {BAD + LIMIT}: ")


class Late(NonFiniteGuard):
    """As on a GPU: numbers are read together, later."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.immediate = False


@pytest.mark.parametrize(
    ("name", "value", "sign"),
    [
        ("ae", float("nan"), "weight"),
        ("gan", float("nan"), "loss_g"),  # the discriminator's weights are in the generator's loss
        ("ae", 1e30, "exp_avg_sq"),
        ("gan", 1e30, "exp_avg_sq"),
    ],
)
def test_between_logged_batches_a_bad_gradient_shows_in_what_it_leads_to(name, value, sign, tmp_path: Path) -> None:
    """No norm is taken there, and a square overflows where the gradient did not; but nothing of it is saved."""
    _, _, told = fit(name, tmp_path, Poison("gradient", range(BAD, BAD + 1), value), logged=100)
    assert sign in told.split(",")[0]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["run"]["batches"] == BAD - 1


def test_a_bad_gradient_ends_the_training_at_the_next_loss(tmp_path: Path) -> None:
    _, _, told = fit("ae", tmp_path, Poison("gradient", range(BAD, BAD + 1)), every=100, logged=100)
    assert told.startswith(f"batch {BAD + 1}: loss is nan")


def test_numbers_read_late_are_read_before_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "NonFiniteGuard", Late)
    _, _, told = fit("ae", tmp_path, Poison("gradient", range(BAD, BAD + 1)), every=4)
    assert told.startswith(f"batch {BAD}: the gradient norm is nan")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["run"]["batches"] == 4


class Scratch(L.Callback):
    """Corrupts a weight after a batch."""

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if pl_module.step + 1 == BAD:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = float("inf")


def test_a_weight_that_went_bad_is_never_saved(tmp_path: Path) -> None:
    _, _, told = fit("ae", tmp_path, Scratch())
    assert "weight is not finite" in told
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["run"]["batches"] == BAD - 1


def test_good_numbers_are_left_alone(tmp_path: Path) -> None:
    """The guard changes no bit of a healthy training."""
    weights = []
    for number, skip in enumerate((False, True)):
        model, _, told = fit("gan", tmp_path / str(number), Poison("data", range(0)), skip)
        assert told == ""
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator")])
def test_out_of_memory_names_two_settings(error: Exception, tmp_path: Path, monkeypatch) -> None:
    from zoo.config.compose import compose
    from zoo.models.autoencoder.autoencoder import Autoencoder
    from zoo.training.train import train

    def full(self, batch):
        raise error

    monkeypatch.setattr(Autoencoder, "loss", full)
    with pytest.raises(zoo.ZooError, match=r"out of memory in batch 1: data.batch_size=128.*trainer.precision=bf16"):
        train(compose("model=ae", "trainer=smoke"), str(tmp_path / "run"))
