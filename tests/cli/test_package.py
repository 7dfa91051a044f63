"""The installed wheel in another folder, and a third-party plug-in."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from hatchling.build import build_wheel

from tests.contracts.specs import slow

ROOT = Path(__file__).parents[2]

PLUGIN = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "zoo-blobs"
        version = "1.0"
        [project.entry-points."zoo.plugins"]
        blobs = "zoo_blobs"
        [tool.hatch.build.targets.wheel]
        packages = ["zoo_blobs"]
    """,
    "zoo_blobs/__init__.py": '''
        """A model and a network that live outside the zoo."""
        from dataclasses import dataclass

        import torch
        from torch import nn

        import zoo
        from zoo.core.signature import Positive, PositiveInt


        @zoo.register("decoder", "straight")
        class Straight(nn.Module):
            """A single linear map."""

            def __init__(self, in_dim, shape, *, bias: bool = True):
                super().__init__()
                self.shape = shape
                self.map = nn.Linear(in_dim, int(torch.tensor(shape).prod()), bias=bias)

            def forward(self, z):
                return self.map(z).unflatten(1, tuple(self.shape))


        @zoo.register("model", "blobs")
        class Blobs(zoo.Model):
            """Random linear pictures whose mean is the data's (nobody 2026)."""

            family = "toy"

            def __init__(
                self,
                spec,
                *,
                latent_dim: PositiveInt = 4,
                decoder: zoo.Decoder = "straight",
                optimizer: zoo.Optimizer = "plain",
            ):
                super().__init__(spec)
                self.latent_dim = latent_dim
                self.decoder = self.build_component("decoder", "decoder", latent_dim, spec.shape)

            def loss(self, batch):
                fake = self.decoder(self.randn(len(batch), self.latent_dim))
                return {"loss": (fake - batch.x).square().flatten(1).sum(1).mean()}

            def sample(self, n, *, condition=None, generator=None, **options):
                return self.decoder(self.randn(n, self.latent_dim, generator=generator)).clamp(0, 1)


        @zoo.register("optimizer", "plain")
        @dataclass(kw_only=True)
        class Plain(zoo.OptimizerConfig):
            """Gradient descent by hand, for the plug-in's own models and for all others."""

            lr: Positive = 1e-2

            def build(self, groups, *, hidden=(), fused=False):
                return torch.optim.SGD(groups, self.lr)
    ''',
    "zoo_blobs/conf/model/big_blobs.yaml": """
        # Blobs with more room (nobody 2026).
        defaults:
          - blobs
          - _self_
        latent_dim: 32
    """,
}
BROKEN = {
    "broken.py": "raise RuntimeError('half installed')",
    "broken-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n",
    "broken-1.0.dist-info/entry_points.txt": "[zoo.plugins]\nbroken = broken\n",
}


def dedent(text: str) -> str:
    import textwrap

    return textwrap.dedent(text).lstrip()


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))
    return folder


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def build(source: Path, site: Path, scratch: Path) -> None:
    """A wheel of a project, unpacked into a folder that PYTHONPATH can name."""
    with chdir(source):
        wheel = build_wheel(str(scratch))
    ZipFile(scratch / wheel).extractall(site)


def test_a_foreign_package_is_listed_trained_and_loaded(tmp_path: Path) -> None:
    """Installed beside a plug-in that is broken, which is named and skipped."""
    (tmp_path / "wheel").mkdir()
    build(write(tmp_path / "source", PLUGIN), tmp_path / "site", tmp_path / "wheel")
    write(tmp_path / "site", BROKEN)
    script = """
        import sys, glob, zoo
        assert {"blobs", "big_blobs"} <= set(zoo.list_models("*blobs*")), zoo.list_models()
        assert zoo.create_model("big_blobs").hparams["latent_dim"] == 32
        assert zoo.create_model("vae", decoder="straight").decoder.map.in_features > 0
        sys.argv = ["train.py", "model=big_blobs", "model.latent_dim=5", "trainer=smoke"]
        from zoo.cli.train import train
        train()
        model = zoo.load(glob.glob("runs/*/*-big_blobs-digits")[0])
        print(type(model).__module__, tuple(model.sample(3).shape), model.hparams["latent_dim"])
    """
    done = run("-c", dedent(script), cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert "zoo_blobs (3, 1, 8, 8) 5" in done.stdout
    assert "broken-plugin" in done.stderr
    assert "half installed" in done.stderr


def test_recipes_of_ones_own_need_no_package(tmp_path: Path) -> None:
    write(tmp_path, {"mine/model/tiny_vae.yaml": "# My VAE.\ndefaults:\n  - vae\n  - _self_\nlatent_dim: 3\n"})
    command = ["train.py", "--config-dir", "mine", "model=tiny_vae", "trainer=smoke"]
    done = run("-c", f"import sys; sys.argv = {command!r}; from zoo.cli.train import train; train()", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (config,) = tmp_path.glob("runs/*/*-tiny_vae-digits/config.yaml")
    assert "latent_dim: 3" in config.read_text()


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    """Modules, recipes, measured classifiers, the page of the server. `.ci/run` installs it and trains."""
    with chdir(ROOT), ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        held = set(wheel.namelist())
    paths = [path for folder in ("zoo", "conf") for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in paths if path.parent.name != "__pycache__"}
    assert {"zoo/py.typed", "conf/config.yaml"} <= names
    assert {name if name.startswith("zoo/") else f"zoo/{name}" for name in names} <= held


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "wheel").mkdir()
    build(ROOT, tmp_path / "site", tmp_path / "wheel")
    script = """
        import sys, zoo
        from zoo.config.compose import CONF
        assert "site" in zoo.__file__ and "site" in str(CONF), (zoo.__file__, CONF)
        assert (CONF.parent / "py.typed").exists()
        from zoo.evaluation.features.base import features_for
        assert features_for(zoo.create_model("vae", data="mnist").spec).name == "mnist"
        sys.argv = ["zoo", "train", "model=ae", "trainer=smoke"]
        from zoo.cli.main import main
        main()
    """
    done = run("-c", dedent(script), cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/*/*-ae-digits/best.ckpt"))


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Plain DDP over gloo, with two optimizers: one run folder, written by the first process.

    `test_distributed.py` has both in processes that it starts itself.
    """
    command = ["-m", "zoo", "train", "model=gan", "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_steps=4",
               "trainer.val_check_interval=2", "data.batch_size=16"]  # fmt: skip
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cpu x 2" in done.stdout
    assert done.stdout.count("reached") == 1
    assert len(list(tmp_path.glob("runs/*/*-gan-digits/best.ckpt"))) == 1
    assert len(list(tmp_path.glob("runs/*/*"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM)])
def test_a_signal_saves_and_the_run_goes_on_from_there(number: signal.Signals, cli, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "model=vae",
        "trainer.max_steps=100000",
        "trainer.accelerator=cpu",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/*/metrics.csv")) and time.monotonic() < deadline:
            time.sleep(0.2)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number, err
    assert "Traceback" not in err
    told = re.search(r"after (\d+) batches.*python train.py (resume=\S+)", out, re.DOTALL)
    assert told, out
    done = int(told[1])
    again = cli(told[2], f"trainer.max_steps={done + 3}")
    assert again.code == 0, again.err
    (last,) = tmp_path.glob("runs/*/*/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == done + 3
