import errno
from pathlib import Path

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.spaces import Vector
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.checkpointer import Checkpointer


class Data(zoo.DataModule):
    spec = zoo.DataSpec(Vector(2))

    def load(self) -> None:
        self.train = self.val = self.test = torch.randn(8, 2), torch.zeros(8, dtype=torch.long)


class Scripted(zoo.Model):
    """A model whose validation values the test sets."""

    registered_name = "scripted"

    def __init__(self, spec: zoo.DataSpec, scores: list[float]) -> None:
        super().__init__(spec)
        self.weight, self.scores = torch.nn.Parameter(torch.ones(2)), list(scores)

    def loss(self, batch):
        return {"loss": (self.weight - batch.x).square().sum()}

    def validation_step(self, batch, batch_idx) -> None:
        self.log("val/loss", self.scores.pop(0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, scores: list[float]) -> Checkpointer:
    keeper = Checkpointer(RunFolder(folder))
    trainer = L.Trainer(
        max_steps=2 * len(scores), val_check_interval=2, check_val_every_n_epoch=None, max_epochs=-1, logger=False,
        num_sanity_val_steps=0, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[keeper],
    )  # fmt: skip
    trainer.fit(Scripted(Data(8, 0).spec, scores), datamodule=Data(8, 0))
    return keeper


def steps(folder: Path) -> tuple[int, int]:
    """Steps of the weights in best.ckpt and in last.ckpt."""
    best, last = (torch.load(folder / name, weights_only=True)["global_step"] for name in ("best.ckpt", "last.ckpt"))
    return best, last


@pytest.mark.parametrize(
    ("scores", "best", "value"),
    [
        ([3.0, 1.0, 2.0, 2.0], 4, 1.0),  # the last is not the best
        ([3.0, 2.0, 1.0], 6, 1.0),
        ([2.0, 2.0], 2, 2.0),  # the first of equals
        ([2.0, float("nan"), float("-inf")], 6, float("-inf")),
        ([float("nan"), 5.0, float("nan")], 4, 5.0),  # a value that is not a number is never the best
    ],
)
def test_last_is_the_newest_and_best_is_the_lowest(tmp_path: Path, scores, best: int, value: float) -> None:
    assert fit(tmp_path, scores).best == value
    assert steps(tmp_path) == (best, 2 * len(scores))
    previous = torch.load(tmp_path / "previous.ckpt", weights_only=True)["global_step"]
    assert previous == 2 * (len(scores) - 1)
    assert sorted(p.name for p in tmp_path.glob("*.*")) == ["best.ckpt", "last.ckpt", "previous.ckpt"], "no drafts left"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, [2.0, 1.0])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ckpt")}

    def half_written(trainer: L.Trainer, path: Path) -> None:
        Path(path).write_bytes(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(L.Trainer, "save_checkpoint", half_written)
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, [0.0])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
