"""Models of tables approach the entropy of a known law, and none falls below it."""

from functools import cache
from typing import Any

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.core.spaces import Vector
from zoo.data.table.synthetic import SyntheticTable, log_prob
from zoo.metrics.tables import column_shapes, copied_rows, pair_trends
from zoo.models.autoregressive.table_autoregressive import TableAutoregressive
from zoo.models.base import Model
from zoo.models.baselines.chow_liu import ChowLiu
from zoo.models.baselines.copies import TrainingSetBootstrap
from zoo.models.baselines.gaussian_copula import GaussianCopula
from zoo.models.diffusion.tabddpm import TabDDPM
from zoo.models.variational.tvae import TVAE
from zoo.nn.blocks.table_codec import TableCodec

SMALL = {"name": "mlp", "width": 64, "depth": 2}
ADAM = {"name": "adamw", "lr": 5e-3, "schedule": "cosine", "weight_decay": 0.0}
SETTINGS: dict[type[Model], tuple[int, dict[str, Any]]] = {
    TableAutoregressive: (250, {"encoder": SMALL, "optimizer": ADAM, "n_components": 2}),
    TVAE: (250, {"encoder": SMALL, "decoder": SMALL, "optimizer": ADAM, "likelihood": "table", "latent_dim": 4}),
    TabDDPM: (400, {"denoiser": SMALL, "optimizer": ADAM}),
    GaussianCopula: (1, {"sweeps": 10, "max_rows": 2000}),
    ChowLiu: (1, {}),
    TrainingSetBootstrap: (1, {}),
}


@cache
def data() -> SyntheticTable:
    made = SyntheticTable(n_rows=6_000, batch_size=256)
    made.setup()
    return made


@cache
def trained(kind: type[Model]) -> Model:
    torch.manual_seed(0)
    steps, settings = SETTINGS[kind]
    model = kind(data().spec, **settings)
    trainer = L.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data())
    return model.eval()


def cells(x: torch.Tensor) -> torch.Tensor:
    return TableCodec(data().spec.x).decode(x)


@pytest.mark.parametrize(
    ("kind", "above"),
    [
        (TableAutoregressive, 0.25),
        (TVAE, 1.0),
        (TabDDPM, 4.5),  # steps of fixed variance: loose
        (GaussianCopula, 1.2),
        (ChowLiu, 1.0),
    ],
)
def test_the_likelihood_is_near_that_of_the_law_and_not_above(kind: type[Model], above: float) -> None:
    x = data().test[0]
    with torch.no_grad():
        (found,) = trained(kind).likelihoods(x, k=1 if kind in (TableAutoregressive, ChowLiu) else 50)
    ideal = log_prob(cells(x))
    gap = ideal - found.value.double()  # (N,), its mean is the divergence from the law
    error = gap.std() / len(gap) ** 0.5
    assert -4 * error < gap.mean() < above
    assert found.kind == "discrete"


@pytest.mark.parametrize("kind", SETTINGS)
def test_samples_have_the_columns_of_the_law_and_only_copies_are_copies(kind: type[Model]) -> None:
    real, fake = cells(data().test[0]), cells(trained(kind).sample(2_000, seed=0))
    columns = TableCodec(data().spec.x).columns
    assert min(column_shapes(real, fake, columns)) > 0.85
    trends = pair_trends(real, fake, columns)
    assert min(trends) > (0.6 if kind is GaussianCopula else 0.7), "regions have no order, as scores would need"
    shuffled = torch.stack([c[torch.randperm(len(c))] for c in fake.T], 1)
    assert sum(pair_trends(real, shuffled, columns)) < sum(trends) - 0.1, "independent columns are seen"
    copied = copied_rows(fake, cells(data().train[0]))
    assert (copied == 1) == (kind is TrainingSetBootstrap)


def test_filling_in_knows_the_law() -> None:
    """The visit is later with more children: 14 days of the law. The mean income of two regions differs by 36."""
    for kind in (TableAutoregressive, GaussianCopula, ChowLiu):
        few, many = (cells(trained(kind).sample(600, seed=1, where=f"children={n}"))[:, 3].mean() for n in (1, 5))
        assert many - few > 8
    north, south = (
        cells(trained(TableAutoregressive).sample(600, seed=1, where=f"region={name}"))[:, 2].nanmean()
        for name in ("north", "south")
    )
    assert south - north > 25


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs one with columns"):
        TVAE(data().spec, encoder="mlp", decoder="mlp", likelihood="gaussian")
    with pytest.raises(zoo.ZooError, match="learns table data"):
        TVAE(zoo.DataSpec(Vector(3)), likelihood="table")
