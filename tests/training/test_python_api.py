"""Training from Python: tensors, arrays, data sets and loaders in one line."""

import inspect
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import zoo
from tests.contracts.specs import CASES, SPECS, examples, make, one_case_of_each_class
from zoo.config.compose import compose
from zoo.core.lightning_tips import LOGGERS, hide_tips, is_wanted
from zoo.core.spaces import Pair, Tokens
from zoo.data.in_memory import InMemoryData, as_datamodule
from zoo.data.loader import make_generator
from zoo.training.train import build_data

IMAGES = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


@pytest.mark.parametrize(
    ("data", "described"),
    [
        (IMAGES, "image 1x8x8"),
        ((IMAGES * 255).byte()[:, 0], "image 1x8x8"),
        (np.zeros((60, 8, 6, 3), dtype=np.uint8), "image 3x8x6"),
        ((IMAGES, LABELS), "image 1x8x8, 3 classes"),
        (np.random.default_rng(0).normal(size=(60, 5)), "vector 5"),
        (TensorDataset(IMAGES, LABELS), "image 1x8x8, 3 classes"),
        (DataLoader(TensorDataset(IMAGES), batch_size=7), "image 1x8x8"),
    ],
)
def test_the_spec_is_inferred(data, described: str) -> None:
    module = as_datamodule(data)
    module.setup()
    assert described in str(module.spec)
    assert [len(split[0]) for split in (module.train, module.val, module.test)] == [48, 6, 6]
    x, _ = next(iter(module.train_dataloader()))
    assert x.dtype == torch.float32
    if described.startswith("image"):
        module.spec.x.validate(x)


def test_splits_do_not_overlap_and_bytes_lose_nothing() -> None:
    exact = (IMAGES * 255).round() / 255
    module = InMemoryData(exact)
    module.setup()
    assert module.train[0].dtype == torch.uint8
    together = torch.cat([part[0] for part in (module.train, module.val, module.test)]).float() / 255
    assert torch.equal(together.flatten(1).sum(1).sort()[0], exact.flatten(1).sum(1).sort()[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (IMAGES * 300, "Scale floats"),
        (torch.zeros(60, 4, dtype=torch.long), "neither images nor vectors"),
        (torch.full((60, 4), torch.nan), "not finite"),
        (IMAGES[:5], "too few samples"),
        (3, "not data"),
        ([np.zeros((3, 3)), np.zeros((4, 4)), np.zeros((5, 5))], "do not stack"),
    ],
)
def test_unfit_data_are_refused(data, message: str) -> None:
    with pytest.raises(zoo.DataError, match=message):
        as_datamodule(data)


def test_fit_trains_and_returns_the_model() -> None:
    seen = []

    class Seen(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            seen.append(pl_module.step)

    model = zoo.fit("vae", IMAGES, max_steps=5, callbacks=["lr_monitor", Seen()], progress=False, accelerator="cpu")
    assert len(seen) == 5
    assert not model.training
    assert model.sample(2).shape == (2, 1, 8, 8)
    assert zoo.show(model, 4).size[0] > 8


def test_a_folder_keeps_the_run(tmp_path: Path) -> None:
    model = zoo.fit("gan", torch.randn(60, 2), max_steps=3, folder=tmp_path / "run", progress=False, accelerator="cpu")
    loaded = zoo.load(tmp_path / "run")
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_a_built_model_goes_on_and_other_data_are_refused() -> None:
    module = as_datamodule(IMAGES)
    model = zoo.create_model("vae", module.spec)
    before = [p.clone() for p in model.parameters()]
    assert zoo.fit(model, module, max_steps=2, progress=False, accelerator="cpu") is model
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(zoo.DataError, match="was built for"):
        zoo.fit(model, torch.randn(60, 2), max_steps=1, progress=False, accelerator="cpu")


@pytest.mark.parametrize(
    ("name", "key"), one_case_of_each_class(case for case in CASES if case[1] in ("image", "vector", "tokens"))
)
def test_a_plain_trainer_and_a_plain_loader_train_every_model(name: str, key: str) -> None:
    x, y = examples(SPECS[key], 12)
    loader = DataLoader(TensorDataset(x, y), batch_size=6)
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(make(name, key), loader)
    assert trainer.global_step >= 1 or not trainer.optimizers


def test_dir_is_the_public_api() -> None:
    assert {"fit", "load", "evaluate", "show", "ConfigError"} <= set(dir(zoo))
    assert "annotations" not in dir(zoo)
    assert all(hasattr(zoo, name) for name in dir(zoo))


@pytest.mark.parametrize("name", ["vae", "gan", "gmm", "ppca", "pixelcnn", "ddpm", "ae"])
def test_a_seed_draws_what_its_generator_draws(name: str) -> None:
    model = zoo.create_model(name, SPECS["image"])
    if name in ("gmm", "ppca", "ae"):
        model = zoo.fit(name, IMAGES, max_steps=1, progress=False, accelerator="cpu")
    first, again = model.sample(3, seed=1), model.sample(3, generator=make_generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, model.sample(3, seed=2))
    assert "seed" in inspect.signature(model.sample).parameters
    with pytest.raises(zoo.ConfigError, match="Leave one of them out"):
        model.sample(3, seed=1, generator=make_generator(1))
    if "interpolate" in model.abilities:
        assert torch.equal(model.interpolate(2, 3, seed=1), model.interpolate(2, 3, generator=make_generator(1)))


def test_texts_take_a_seed_too() -> None:
    model = zoo.create_model("gpt", SPECS["tokens"])
    assert torch.equal(model.sample(3, seed=1), model.sample(3, generator=make_generator(1)))


def test_python_builds_what_the_command_line_composes() -> None:
    from zoo.config.compose import compose, to_plain
    from zoo.core import registry

    for name in ("gpt", "vae", "bert"):
        cfg = compose(f"model={name}")
        model = zoo.create_model(name)
        assert model.spec == registry.build("data", to_plain(cfg.data), where="data").spec
        assert model.hparams["optimizer"] == to_plain(cfg.model)["optimizer"]
    assert zoo.create_model("gpt").spec.name == "stdlib"


def test_a_description_of_data_does_not_print_the_tokenizer() -> None:
    spec = zoo.DataSpec(Tokens(8, 300, tokenizer="{" + "x" * 100_000))
    for text in (repr(spec), str(spec), repr(Pair(spec.x, spec.x))):
        assert len(text) < 200


def test_lightning_advertises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    import pytorch_lightning.utilities.rank_zero as lightning

    with caplog.at_level("INFO"):
        for name in LOGGERS:
            logging.getLogger(name).setLevel("INFO")
        L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=True)
        lightning.rank_zero_info("GPU available")
    assert "GPU available" in caplog.text
    assert "Tip" not in caplog.text
    for name in LOGGERS:  # without the filter they would be shown
        logging.getLogger(name).removeFilter(is_wanted)
    try:
        with caplog.at_level("INFO"):
            L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=True)
        assert "Tip" in caplog.text
    finally:
        hide_tips()


def interrupt_after(batches: int) -> L.Callback:
    class Interrupt(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            if pl_module.step + 1 == batches:
                signal.raise_signal(signal.SIGINT)

    return Interrupt()


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def test_an_interrupted_training_is_resumed_from_python(tmp_path: Path) -> None:
    options = {"max_steps": 6, "progress": False, "accelerator": "cpu", "val_check_interval": 3}
    whole = zoo.fit("vae", IMAGES, **options)
    with pytest.raises(KeyboardInterrupt, match=r"resume=True"):
        zoo.fit("vae", IMAGES, folder=tmp_path / "run", callbacks=interrupt_after(4), **options)
    again = zoo.fit("vae", IMAGES, folder=tmp_path / "run", resume=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))
    with pytest.raises(zoo.CheckpointError, match="belongs to another run"):
        zoo.fit("vae", IMAGES, folder=tmp_path / "run", **options)


def test_a_training_of_names_is_resumed_by_the_command_too(cli, tmp_path: Path) -> None:
    options = {"max_steps": 4, "progress": False, "accelerator": "cpu", "val_check_interval": 2, "limit_val_batches": 1}
    zoo.fit("ae", "digits", folder="run", batch_size=16, **options)
    resumed = cli("resume=run", "trainer.max_steps=6")
    assert resumed.code == 0, resumed.err
    assert torch.load("run/last.ckpt", weights_only=True)["run"]["batches"] == 6
    longer = zoo.fit("ae", "digits", folder="run", resume=True, batch_size=16, **{**options, "max_steps": 8})
    assert longer.registered_name == "ae"
    assert torch.load("run/last.ckpt", weights_only=True)["run"]["batches"] == 8


def test_a_command_cannot_resume_objects(cli, tmp_path: Path) -> None:
    zoo.fit("ae", IMAGES, folder="it's", max_steps=2, progress=False, accelerator="cpu")
    refused = cli("resume=it's")
    assert refused.code == 1
    assert 'zoo.fit(..., folder="it\'s", resume=True)' in refused.err


def test_data_without_a_model_have_batches_that_fit(tmp_path: Path) -> None:
    """Their own default, at most a quarter of the training set; what the user gives stays."""
    assert zoo.create_data("digits").batch_size == 64  # as in `zoo info digits`, and not as in the recipe gan
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    small = zoo.create_data("images", path=str(tmp_path))
    small.setup()
    assert small.batch_size == len(small.train[0]) // 4 == 7
    assert len(next(iter(small.train_dataloader())).x) == 7
    given = zoo.create_data("images", path=str(tmp_path), batch_size=30)
    given.setup()
    assert given.batch_size == 30
    with pytest.raises(zoo.DataError, match=r"data.batch_size=64: larger than the training set of images \(30 samples"):
        zoo.create_data("images", path=str(tmp_path), batch_size=64).setup()
    cfg = compose("model=gan", "data=images", f"data.path={tmp_path}", "data.batch_size=20")
    assert build_data(cfg).batch_size == 20


def test_a_model_is_built_for_a_datamodule_and_not_silently_for_the_default_data():
    data = zoo.create_data("moons")
    assert zoo.create_model("vae", data=data).spec == data.spec
    for wrong in (torch.zeros(3, 2), 3, {"path": "x"}):
        with pytest.raises(zoo.ZooError, match="DataModule"):
            zoo.create_model("vae", data=wrong)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_data_that_do_not_fit_into_memory_are_one_sentence(error: Exception, wrapped: bool) -> None:
    """Also where a data set takes every error of a file for a damaged one."""

    class Large(InMemoryData):
        def load(self) -> None:
            try:
                raise error
            except Exception as cause:
                raise zoo.DataError("x: damaged.") from (None if wrapped else cause)

    with pytest.raises(zoo.HardwareError, match=r"data=in_memory: out of memory. Choose fewer or smaller samples"):
        Large(IMAGES, None, 4).setup()
