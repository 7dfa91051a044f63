"""A run that was stopped and taken up again ends bit for bit where it would have ended, for every model."""

from pathlib import Path

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import CASES, examples, make
from zoo.callbacks.clock import Clock
from zoo.callbacks.random_state import RandomState

EPOCH, TOTAL = 4, 10  # batches


class Data(zoo.DataModule):
    def __init__(self, spec: zoo.DataSpec) -> None:
        super().__init__(batch_size=8, seed=0)
        self.what = spec

    @property
    def spec(self) -> zoo.DataSpec:
        return self.what

    def load(self) -> None:
        self.train = self.val = self.test = examples(self.spec, 8 * EPOCH + 3)


class Save(L.Callback):
    """Writes a checkpoint after so many batches, and keeps every logged number."""

    def __init__(self, at: int, path: Path) -> None:
        self.at, self.path, self.numbers = at, path, []

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.numbers.append({k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("train/")})
        if pl_module.step + 1 == self.at:
            trainer.save_checkpoint(self.path)


def fit(name: str, key: str, save: Save, resume: Path | None = None) -> zoo.GenerativeModel:
    model = make(name, key)
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(TOTAL), max_epochs=-1, val_check_interval=EPOCH, check_val_every_n_epoch=None,
        num_sanity_val_steps=0, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, log_every_n_steps=1,
        callbacks=[Clock(TOTAL), RandomState(), save],
    )  # fmt: skip
    torch.manual_seed(1 if resume is None else 2)  # a new process has other random numbers
    trainer.fit(model, datamodule=Data(model.spec), ckpt_path=resume, weights_only=True)
    return model


@pytest.mark.parametrize("stop", [2, EPOCH, EPOCH + 1], ids=["mid-epoch", "end of epoch", "second epoch"])
@pytest.mark.parametrize(("name", "key"), [case for case in CASES if case[1] in ("image", "tokens")])
def test_a_resumed_run_equals_the_straight_one(name: str, key: str, stop: int, tmp_path: Path) -> None:
    saved = tmp_path / "stopped.ckpt"
    straight = Save(stop, saved)
    one = fit(name, key, straight)
    again = Save(0, saved)
    two = fit(name, key, again, resume=saved)
    for (k, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), k
    for a, b in zip(one.trainer.optimizers, two.trainer.optimizers, strict=True):
        for s, t in zip(a.state.values(), b.state.values(), strict=True):
            assert all(torch.equal(torch.as_tensor(s[k]), torch.as_tensor(t[k])) for k in s)
    for a, b in zip(again.numbers, straight.numbers[stop:], strict=True):
        assert {k: b[k] for k in a} == a, "numbers logged after the resume"  # b still shows older ones beside
