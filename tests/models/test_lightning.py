"""Models as Lightning modules that others train, test and load without the command line."""

from pathlib import Path

import pytest
import pytorch_lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

import zoo
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.models.baselines.copies import TrainingSetBootstrap
from zoo.models.variational.vae import VAE

SPEC = DataSpec(Image(1, 4, 4), name="given")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def images(n: int = 16) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SPEC, latent_dim=2)


class Rows(torch.utils.data.Dataset):
    """Samples in any form."""

    def __init__(self, form) -> None:
        self.form, self.x = form, images()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i):
        return self.form(self.x[i])


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: {"x": x}, lambda x: {"x": x, "y": 0}])
def test_loaders_of_others_in_any_form(form) -> None:
    trainer = L.Trainer(max_epochs=1, **QUIET)
    trainer.fit(vae(), DataLoader(Rows(form), batch_size=4), DataLoader(Rows(form), batch_size=4))
    assert "val/loss" in trainer.callback_metrics
    (found,) = trainer.test(vae(), DataLoader(Rows(form), batch_size=4), verbose=False)
    assert found["test/loss"] > 0
    assert not any(name.startswith("val/") for name in found)


@pytest.mark.parametrize(
    ("x", "spec", "told"),
    [
        (images() * 255, SPEC, r"torch.float32 from [\d.e-]+ to 25\d.*: images are float in \[0, 1\]"),
        (images() * 2 - 1, SPEC, r"from -0.9\d+ to 0.9\d+: images are float in \[0, 1\]\. .*undo a normalisation"),
        (images()[..., :3], SPEC, r"x=\(4, 1, 4, 3\): not a batch of image 1x4x4"),
        (torch.full((16, 3), torch.nan), DataSpec(Vector(3), name="v"), "vectors are float and finite"),
    ],
)
def test_values_outside_of_the_space_are_refused_before_training(x, spec, told) -> None:
    model = VAE(spec, latent_dim=2)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(zoo.ZooError, match=told):
        L.Trainer(max_steps=2, **QUIET).fit(model, DataLoader(TensorDataset(x), batch_size=4))
    assert all(map(torch.equal, before, model.parameters()))


def test_a_datamodule_of_a_user_is_checked_too() -> None:
    data = zoo.create_data("digits")
    data.fetch = lambda split, rows, generator, train: (split[0][rows] * 255.0, split[1][rows])
    with pytest.raises(zoo.ZooError, match=r"from 0 to .*: images are float in \[0, 1\]"):
        L.Trainer(max_steps=2, **QUIET).fit(zoo.create_model("vae"), datamodule=data)


def test_a_gan_is_tested_by_its_validation_metric() -> None:
    model = zoo.create_model("gan", data=SPEC)
    (found,) = L.Trainer(**QUIET).test(model, DataLoader(Rows(lambda x: (x,)), batch_size=4), verbose=False)
    assert found.keys() == {"test/fd"}


def test_forward_gives_the_terms_of_the_loss() -> None:
    model, x = vae().eval(), images(4)
    torch.manual_seed(1)
    terms = model(x)
    torch.manual_seed(1)
    assert terms["loss"] == model({"x": x})["loss"]
    with pytest.raises(TypeError, match="not a batch"):
        model("text")


@pytest.mark.parametrize(("kind", "settings"), [(VAE, {"latent_dim": 2}), (TrainingSetBootstrap, {})])
def test_a_class_loads_its_checkpoint(tmp_path: Path, kind, settings) -> None:
    model = kind(SPEC, **settings)
    trainer = L.Trainer(max_steps=4, max_epochs=1, **QUIET)
    trainer.fit(model, DataLoader(TensorDataset(images(), torch.zeros(16).long()), batch_size=4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = kind.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.spec == SPEC
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


def test_a_network_with_another_signature_is_not_called_too_large() -> None:
    with zoo.core.registry.isolated():

        @zoo.register("encoder", "wrong")
        class Wrong(torch.nn.Module):
            """Encoder without arguments."""

            def __init__(self, *, width: int = 3) -> None:
                super().__init__()

        with pytest.raises(zoo.ZooError, match=r"model\.encoder: the encoder 'wrong' takes other positional arguments"):
            VAE(SPEC, encoder="wrong")


def test_a_module_in_place_of_a_name_is_refused_with_the_way() -> None:
    with pytest.raises(zoo.ZooError, match=r"encoder=Sequential: .*Register its class by @zoo.register, and give enc"):
        zoo.create_model("vae", encoder=torch.nn.Sequential())
