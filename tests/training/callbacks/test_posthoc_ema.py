"""Averages that are stored during a training: their values, their resume, and other widths made from them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS
from tests.contracts.test_models import train
from zoo.cli.main import main
from zoo.core.errors import CheckpointError, ConfigError
from zoo.interop.loading import load
from zoo.nn.optim.power_ema import decay, exponent
from zoo.runs.folder import RunFolder
from zoo.runs.posthoc_ema import make_average
from zoo.training.callbacks.posthoc_ema import PosthocEMA

STEPS, BATCH = 120, 16


class Record(PosthocEMA):
    """Also keeps the raw weight after each batch."""

    def __init__(self, folder: Path, **settings) -> None:
        super().__init__(SimpleNamespace(run=RunFolder(folder)), **settings)
        self.raw: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        self.raw.append(next(pl_module.decoder.parameters()).detach().double().clone())


def expected(raw: list[torch.Tensor], std: float, start: torch.Tensor) -> torch.Tensor:
    average = start.double()
    for now, value in enumerate(raw, 1):
        average = torch.lerp(value, average, decay(exponent(std), now, 1))
    return average


def fast_ae() -> zoo.Model:
    """A model whose weights move far in a few steps."""
    torch.manual_seed(0)
    return zoo.create_model("ae", data=SPECS["vector"], optimizer={"lr": 0.05})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Record, torch.Tensor, str]:
    """A short training with its callback, first weights, and the name of the weight that is followed."""
    folder, model = tmp_path_factory.mktemp("posthoc"), fast_ae()
    start = next(model.decoder.parameters()).detach().clone()
    name = "decoder." + next(iter(dict(model.decoder.named_parameters())))
    callback = Record(folder, snapshots=8)
    train(model, STEPS, callbacks=[callback])
    return folder, callback, start, name


def test_files_hold_the_averages(run) -> None:
    folder, callback, start, name = run
    files = sorted(path.name for path in (folder / "posthoc_ema").iterdir())
    assert files[:2] == ["0000015-0.05.safetensors", "0000015-0.1.safetensors"]
    assert len(files) == 16
    for std in (0.05, 0.1):
        stored = load(folder / "posthoc_ema" / f"0000120-{std}.safetensors").state_dict()[name]
        torch.testing.assert_close(stored.double(), expected(callback.raw, std, start), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(stored.double(), callback.raw[-1], atol=1e-4), "the control: the raw weights"


def test_a_stored_width_is_given_back_and_another_one_is_approximated(run) -> None:
    folder, callback, start, name = run
    for std in (0.05, 0.1):
        made = load(make_average(folder, std)).state_dict()[name].double()
        torch.testing.assert_close(made, expected(callback.raw, std, start), rtol=1e-4, atol=1e-4)
    made = load(make_average(folder, 0.07)).state_dict()[name].double()
    wanted = expected(callback.raw, 0.07, start)
    assert (folder / "ema-0.07.safetensors").exists()
    nearest = min((expected(callback.raw, std, start) - wanted).norm() for std in (0.05, 0.1))
    assert (made - wanted).norm() < 0.5 * nearest, "the control: the nearest stored one"


def test_the_command(run, tmp_path: Path, cli) -> None:
    out = tmp_path / "wide.safetensors"
    result = cli("ema", str(run[0]), "--std", "0.2", "--out", str(out), entry=main)
    assert result.code == 0
    assert str(out) in result.out
    assert load(out).spec == SPECS["vector"]
    with pytest.raises(ConfigError, match=r"--std=0\.5"):
        make_average(run[0], 0.5)
    with pytest.raises(CheckpointError, match="callbacks=posthoc_ema"):
        make_average(tmp_path, 0.1)


def test_the_averages_are_in_the_state_of_the_callback(run, tmp_path: Path) -> None:
    _, callback, _, name = run
    again = Record(tmp_path)
    again.load_state_dict(callback.state_dict())
    train(fast_ae(), 1, callbacks=[again])
    assert again.seen == (STEPS + 1) * BATCH
    factor = decay(exponent(0.05), STEPS + 1, 1)
    follow = torch.lerp(again.raw[0].float(), callback.tracks["0.05"][name], factor)
    torch.testing.assert_close(again.tracks["0.05"][name], follow)
