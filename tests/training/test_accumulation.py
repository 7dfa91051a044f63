"""Accumulated gradients, in every size against the length of the training: schedules, logs, the last checkpoint."""

import csv
from pathlib import Path

import pytest
import torch

from tests.contracts.specs import slow

BATCHES, EPOCH, EVERY = 10, 7, 2  # of the training, in an epoch, from one logged row to the next
TINY = (
    "trainer=cpu", "data=digits", "data.batch_size=200", f"trainer.max_steps={BATCHES}", "trainer.val_check_interval=4",
    f"trainer.log_every_n_steps={EVERY}", "model.optimizer.schedule=linear", "model.optimizer.lr=0.01",
    "model.optimizer.warmup=0",
)  # fmt: skip
GAN = ("model=gan", "model/generator=mlp", "model/discriminator=mlp")


def trained(cli, folder: Path, *overrides: str) -> tuple[dict, list[dict[str, str]]]:
    """last.ckpt and metrics.csv of a run."""
    told = cli(*TINY, *overrides, f"hydra.run.dir={folder}")
    assert told.code == 0, told.err
    with (folder / "metrics.csv").open() as file:
        return torch.load(folder / "last.ckpt", weights_only=True), list(csv.DictReader(file))


def steps_of(rows: list[dict[str, str]], column: str) -> list[int]:
    return [int(row["step"]) for row in rows if row.get(column)]


@pytest.mark.parametrize("accumulate", [1, 3, 10, *slow(2, 4)])
def test_one_optimizer(cli, tmp_path: Path, accumulate: int) -> None:
    saved, rows = trained(cli, tmp_path / "run", "model=vae", f"+trainer.accumulate_grad_batches={accumulate}")
    stepped = [b for b in range(1, BATCHES + 1) if ((b - 1) % EPOCH + 1) % accumulate == 0 or b % EPOCH == 0]
    assert saved["global_step"] == len(stepped)
    assert saved["run"]["batches"] == BATCHES
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.01 * (1 - stepped[-1] / BATCHES))
    assert steps_of(rows, "train/loss") == list(range(EVERY - 1, BATCHES, EVERY)), "in batches, as without"
    assert steps_of(rows, "val/loss") == [3, 7, 9]


@pytest.mark.parametrize("accumulate", [3, 7, *slow(1, 2, 10)])
def test_two_optimizers(cli, tmp_path: Path, accumulate: int) -> None:
    saved, rows = trained(cli, tmp_path / "run", *GAN, f"model.accumulate={accumulate}")
    assert saved["run"]["batches"] == BATCHES
    done = BATCHES // accumulate
    assert saved["global_step"] == 2 * done
    rates = [state["param_groups"][0]["lr"] for state in saved["optimizer_states"]]
    assert rates == pytest.approx([0.01 * (1 - done * accumulate / BATCHES)] * 2)
    assert steps_of(rows, "train/loss_d") == list(range(EVERY - 1, BATCHES, EVERY))
    assert steps_of(rows, "val/fd") == [3, 7, 9], "the end is validated and saved"


@pytest.mark.parametrize(
    ("model", "setting"), [(("model=vae",), "+trainer.accumulate_grad_batches"), (GAN, "model.accumulate")]
)
def test_too_few_batches_for_a_step_are_refused(cli, tmp_path: Path, model, setting: str) -> None:
    told = cli(*TINY, *model, f"{setting}={BATCHES + 1}", f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 1
    assert f"{setting.lstrip('+')}={BATCHES + 1}: more batches than trainer.max_steps={BATCHES}" in told.err
    assert not (tmp_path / "run").exists()


def test_a_finished_run_trains_no_further(cli, tmp_path: Path) -> None:
    saved, _ = trained(cli, tmp_path / "run", *GAN, "model.accumulate=3")
    told = cli(f"resume={tmp_path / 'run'}")
    assert told.code == 0, told.err
    again = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert again["run"]["batches"] == BATCHES
    assert all(torch.equal(again["state_dict"][key], value) for key, value in saved["state_dict"].items())


def test_a_value_that_is_no_number_is_refused(cli, tmp_path: Path) -> None:
    for value in ("0", "two", "1.5"):
        told = cli(*TINY, "model=vae", f"+trainer.accumulate_grad_batches={value}", f"hydra.run.dir={tmp_path / 'run'}")
        assert told.code == 1
        assert f"trainer.accumulate_grad_batches={value}: not a number of batches" in told.err
