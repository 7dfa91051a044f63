"""Held-out data sorted by class: every prefix that a metric, a monitor or a picture takes has all classes."""

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.spaces import Image, Label, Vector
from zoo.data.base import DataModule
from zoo.data.loader import HeldOutSampler, fixed_order
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.features.calibration import images
from zoo.models.adversarial.gan import GAN
from zoo.training.callbacks.collapse_monitor import CollapseMonitor
from zoo.training.callbacks.tensorboard_layout import TensorBoardLayout
from zoo.viz.render import held_out

PER_CLASS = 2_100  # more than any prefix but that of `zoo evaluate`


class Sorted(DataModule):
    """Two classes, at -1 and +1 or black and white, sorted."""

    registered_name = "sorted"

    def __init__(self, x=None, per_class: int = PER_CLASS, batch_size: int = 100) -> None:
        super().__init__(batch_size, 0)
        self.space, self.per_class = Vector(2) if x is None else x, per_class

    @property
    def spec(self):
        return zoo.DataSpec(self.space, Label(2), name="sorted")

    def load(self) -> None:
        y = torch.arange(2).repeat_interleave(self.per_class)
        self.train = self.val = self.test = self.draw(y, torch.Generator().manual_seed(1)), y

    def draw(self, y, generator):
        low, high, noise = (-1, 1, 0.1) if isinstance(self.space, Vector) else (0.1, 0.9, 0.02)
        middle = torch.where(y == 1, high, low).view(-1, *[1] * len(self.spec.shape))
        return middle + noise * torch.randn(len(y), *self.spec.shape, generator=generator)


def half(y: torch.Tensor) -> bool:
    """Whether both classes are there with about the same share: within five standard errors."""
    return abs(float(y.double().mean()) - 0.5) < 2.5 / len(y) ** 0.5


@pytest.fixture
def data() -> Sorted:
    module = Sorted()
    module.setup()
    return module


class Sampler(GAN):
    """A GAN whose samples are drawn from the data, or from one class of them."""

    collapsed = False

    def decode(self, z, y, ema=True):
        data = self.trainer.datamodule
        labels = torch.zeros_like(y) if self.collapsed else (z[:, 0] > 0).long()
        return data.draw(labels, torch.Generator().manual_seed(int(1e4 * z.abs().sum())))


@pytest.mark.parametrize("space", [Vector(2), Image(1, 4, 4)])
def test_the_distance_of_a_gan_prefers_the_sampler_with_all_classes(space) -> None:
    found = {}
    for collapsed in (False, True):
        model = Sampler(Sorted(space).spec, generator="mlp", discriminator="mlp")
        model.collapsed = collapsed
        trainer = L.Trainer(
            max_steps=2, val_check_interval=1, accelerator="cpu", num_sanity_val_steps=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=Sorted(space))
        found[collapsed] = float(trainer.callback_metrics[model.monitor])
    assert found[False] < 0.2 * found[True], "best.ckpt is the one that is not collapsed"


def test_batches_of_a_limited_validation(data) -> None:
    for loader in (data.val_dataloader(), data.test_dataloader()):
        first = [y for _, y in loader][:2]
        assert half(torch.cat(first))


def test_pictures_and_alarm_and_projector(data) -> None:
    assert half(held_out(data, 64).y)
    seen = []

    class Model(GAN):
        def log_dict(self, values, **_):
            seen.append({name: float(value) for name, value in values.items()})

        def sample(self, n, **_):
            return data.draw(torch.arange(n) % 2, torch.Generator().manual_seed(2))

        def encode(self, x, y=None):
            seen.append(y)
            return x

    model = Model(data.spec, generator="mlp", discriminator="mlp")
    trainer = type("Trainer", (), {"datamodule": data})()
    CollapseMonitor().on_validation_epoch_end(trainer, model)
    assert seen.pop()["samples/classes"] == pytest.approx(1, abs=0.02)
    layout = TensorBoardLayout.__new__(TensorBoardLayout)
    layout.n_latents = 200
    layout.map_latents(type("Writer", (), {"add_embedding": lambda *_, **__: None})(), model, data)
    assert half(seen.pop())


def test_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.evaluation.context.MAX_SAMPLES", 400)
    data = Sorted()
    data.setup()
    context = EvaluationContext(zoo.create_model("noise", data=data.spec), data, EvaluationConfig())
    x, y = context.held_out
    assert len(x) == 400
    assert half(y)
    assert half(torch.cat([batch.y for batch in context.batches()])[:200]), "the latents take a prefix of the batches"
    assert half(images(data, "val", fixed_order(len(data.val[0]))[:100])[1])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_sample_once(world: int) -> None:
    parts = [HeldOutSampler(101, rank, world) for rank in range(world)]
    rows = torch.cat([part.epoch(0) for part in parts])
    assert sorted(rows.tolist()) == list(range(101))
    assert [len(part.epoch(0)) for part in parts] == [len(part) for part in parts]
    assert torch.equal(parts[0].epoch(0), parts[0].epoch(7)), "the same in every validation"
