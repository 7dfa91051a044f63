"""Features of a trained model that embeds data."""

from pathlib import Path

import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.evaluation.features.base import features_for

DIGITS = DataSpec(Image(1, 8, 8), Label(10), name="digits")


def test_metrics_in_the_features_of_a_run(cli, tmp_path: Path) -> None:
    run, other = tmp_path / "simclr", tmp_path / "gmm"
    assert cli("model=simclr", "data=digits", "trainer=smoke", f"hydra.run.dir={run}").code == 0
    found = features_for(DIGITS, "model", run)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found(x), zoo.load(run).embed_data(x))
    assert found.name == "simclr_digits"
    assert found.sha256
    with pytest.raises(ZooError, match="cannot classify"):
        found.classify(x)
    wide = DataSpec(Image(1, 9, 9), Label(10), name="wide")
    with pytest.raises(ZooError, match=r"^weights=.*: trained on digits .*, not on wide"):
        features_for(wide, "model", run)
    with pytest.raises(ZooError, match=r"^features=model: needs a trained model .* --weights RUN\.$"):
        features_for(DIGITS, "model")

    assert cli("model=gmm", "data=digits", "trainer=smoke", f"hydra.run.dir={other}").code == 0
    with pytest.raises(ZooError, match="gmm does not embed data"):
        features_for(DIGITS, "model", other)
    asked = ("evaluate", str(other), "-n", "180", "--only", "samples", "--features", "model", "--weights", str(run))
    told = cli(*asked, entry=main)
    assert told.code == 0, told.err
    assert "fd_simclr_digits@180_test" in told.out
