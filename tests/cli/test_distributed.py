"""Several processes learn what one does from their batches together, and none is left waiting for one that died."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import zoo
from tests.cli import in_processes
from zoo.config import compose
from zoo.data.text.plain import Text
from zoo.models.adversarial.gan import GAN

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
UNBUFFERED = ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}


def table(run: Path) -> dict[tuple[str, int], float]:
    """(name, batch) -> number, without speed and memory."""
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    return {(k, int(r["step"])): float(v) for r in rows for k, v in r.items() if v and k != "step"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, each in one process with 32 samples a batch and in two with 16."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "text.txt").write_text((ROOT / "LICENSE").read_text())
    command = [sys.executable, in_processes.__file__, str(folder), "2", "16"]
    two = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=290)
    assert two.returncode == 0, two.stderr
    with pytest.MonkeyPatch.context() as patch:  # puts back what `run` changes
        patch.setattr(GAN, "latents", GAN.latents)
        patch.setattr(Text, "fetch", Text.fetch)
        in_processes.run(folder, 1, 32)
        in_processes.run(folder, 1, 16, ("ae",))
    return folder


@pytest.mark.parametrize("name", in_processes.MODELS)
def test_two_processes_are_one_with_the_doubled_batch(name: str, trained: Path) -> None:
    """Losses of training and validation, gradient norms and the weights they lead to."""
    one, two = table(trained / f"{name}-1x32"), table(trained / f"{name}-2x16")
    assert one.keys() == two.keys()
    kinds = {k.partition("/")[0] for k, _ in one}
    assert {"train", "val", "grad_norm", "lr"} <= kinds
    assert sum(k.startswith("train/") for k, _ in one) >= 6
    # Samples of an autoencoder come from a density that is fitted on the data of the first process.
    compared = [k for k in one if name != "ae" or not k[0].startswith("samples/")]
    off = {k: abs(one[k] - two[k]) / max(abs(one[k]), 0.1) for k in compared}
    assert max(off.values()) < 1e-4, max(off.items(), key=lambda item: item[1])
    ends = weights(trained / f"{name}-1x32"), weights(trained / f"{name}-2x16")
    for k, a in ends[0].items():
        if not k.startswith("density."):  # fitted on what the first process holds
            torch.testing.assert_close(ends[1][k], a, rtol=1e-3, atol=1e-4, msg=lambda text, k=k: f"{k}: {text}")


def test_one_process_with_the_single_batch_is_something_else(trained: Path) -> None:
    """Negative control: without shared gradients the comparison above fails."""
    one, other = table(trained / "ae-1x32"), table(trained / "ae-1x16")
    last = ("val/loss", 5)
    assert abs(one[last] - other[last]) > 3e-3 * one[last]


@pytest.mark.parametrize("how", [["trainer=ddp"], ["trainer.devices=2"]], ids=" ".join)
def test_a_sweep_over_processes_is_refused_with_advice(how: list[str], cli, tmp_path: Path) -> None:
    refused = cli("-m", "model=ae,vae", *how, "trainer.accelerator=cpu")
    assert refused.code == 1
    assert "a sweep cannot start processes" in refused.err
    assert "for s in 1 2; do python train.py trainer=ddp seed=$s; done" in refused.err
    assert "Traceback" not in refused.err
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".ckpt", ".csv") or p.name in ("samples", "config.yaml")]


def test_a_share_smaller_than_a_batch_is_refused(cli, tmp_path: Path) -> None:
    refused = cli("model=ae", "trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=800")
    assert refused.code == 1
    assert "in each of 2 processes" in refused.err
    assert not list(tmp_path.rglob("runs/*"))


def test_synchronised_batch_normalisation_is_lightnings_own_key() -> None:
    from zoo.runs.folder import RunFolder
    from zoo.training.context import TrainingContext
    from zoo.training.trainer import build_trainer

    cfg = compose.compose("model=dcgan", "trainer=ddp", "trainer.accelerator=cpu", "+trainer.sync_batchnorm=true")
    run, model = RunFolder("unused"), zoo.create_model("dcgan")
    trainer = build_trainer(TrainingContext(cfg, run, model, zoo.create_data("digits")))
    wrapped = trainer.strategy._layer_sync.apply(model)
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in wrapped.modules())


def children(process: int) -> list[int]:
    """Living processes that a process started, by their number."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [int(pid) for pid, parent, state in rows if int(parent) == process and not state.startswith("Z")]


def alive(process: int) -> bool:
    """A zombie is dead."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(found.strip()) and not found.startswith("Z")


def within(seconds: float, true: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(true())


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)], ids=["other", "first"])
def test_a_process_that_dies_ends_the_run(victim: int, tmp_path: Path) -> None:
    """README's command: torchrun names the process.

    The run resumes from its last checkpoint without torchrun: Lightning starts the second process, and ends the first
    when the second dies.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "train.py"),
        "model=vae", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=16",
        "trainer.max_steps=1000000", "trainer.val_check_interval=50",
    ]  # fmt: skip
    with (
        (tmp_path / "err").open("w") as err,
        subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=err) as agent,
    ):
        try:
            assert within(200, lambda: list(tmp_path.glob("runs/*/*/last.ckpt"))), (tmp_path / "err").read_text()
            ranks = {rank(p): p for p in children(agent.pid) if "train.py" in Path(f"/proc/{p}/cmdline").read_text()}
            assert ranks.keys() == {0, 1}
            os.kill(ranks[victim], signal.SIGKILL)
            assert within(60, lambda: not alive(ranks[1 - victim])), "the other process still waits"
            assert agent.wait(10) != 0
        finally:
            agent.terminate()
    said = (tmp_path / "err").read_text()
    assert re.search(rf"rank\s*: {victim} ", said), said
    assert "Signal 9 (SIGKILL)" in said
    assert len(list(tmp_path.glob("runs/*/*"))) == 1, "a folder for each process"
    (last,) = tmp_path.glob("runs/*/*/last.ckpt")
    batches = reached(last)
    assert batches >= 50
    again = [sys.executable, str(ROOT / "train.py"), f"resume={last.parent}"]
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(again, cwd=tmp_path, env=UNBUFFERED, stdout=out, stderr=subprocess.STDOUT) as first,
    ):
        try:
            assert within(200, lambda: reached(last) > batches), (tmp_path / "out").read_text()
            (second,) = [p for p in children(first.pid) if "train.py" in Path(f"/proc/{p}/cmdline").read_text()]
            os.kill(second, signal.SIGKILL)
            assert first.wait(60) != 0
        finally:
            first.kill()
    said = (tmp_path / "out").read_text()
    assert "cpu x 2" in said
    assert said.count(f"from {batches:,} batches") == 1, "of two processes, the first prints"
    assert len(list(tmp_path.glob("runs/*/*"))) == 1


def reached(checkpoint: Path) -> int:
    """Number of batches before a checkpoint."""
    return torch.load(checkpoint, weights_only=True)["global_step"]


def rank(process: int) -> int:
    """The number that torchrun gave a process."""
    found = re.search(rb"(?:^|\0)RANK=(\d+)", Path(f"/proc/{process}/environ").read_bytes())
    assert found is not None
    return int(found[1])
