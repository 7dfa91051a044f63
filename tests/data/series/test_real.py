"""Real series have the values of their source, in order; without the package one message names the extra."""

import sys

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.data.series.real import SOURCES


def loaded(series: str, **given):
    pytest.importorskip("statsmodels", reason="the extra `series` is not installed")
    data = zoo.create_data("real_series", series=series, **given)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("series", "shape", "known", "later"),
    [
        ("sunspots", (309, 1), {"1700": [5.0], "1957": [190.2], "2008": [2.9]}, ["2009", "2010"]),
        ("co2", (526, 1), {"1958-04-01": [(317.3 + 317.6 + 317.5 + 316.4) / 4]}, ["2002-01-01", "2002-02-01"]),
        ("elnino", (732, 1), {"1950-01-01": [23.11], "1950-02-01": [24.20]}, ["2011-01-01", "2011-02-01"]),
        ("macrodata", (203, 3), {"1959-04-01": [2.34, 5.1, 3.08]}, ["2009-10-01", "2010-01-01"]),
    ],
)
def test_values_and_times_are_those_of_the_source(series, shape, known, later) -> None:
    data = loaded(series)
    (one,) = data.ends()
    assert one.x.shape == shape
    assert len(one.times) == len(one.x)
    for time, values in known.items():
        assert one.x[list(one.times).index(time)].tolist() == pytest.approx(values, rel=1e-6)
    assert one.later(2) == later
    assert data.spec.x.shape == (SOURCES[series].length, shape[1])
    assert data.variant == series
    for part in (data.train, data.val, data.test):
        assert len(part[0])


def test_columns_are_chosen() -> None:
    data = loaded("macrodata", columns=["treasury_bills", "inflation"])
    assert data.spec.x.columns == ("treasury_bills", "inflation")
    assert torch.equal(data.ends()[0].x, loaded("macrodata").ends()[0].x[:, [2, 0]])
    with pytest.raises(zoo.ZooError, match=r"data.columns=gdp: no such column. There are inflation"):
        loaded("macrodata", columns=["gdp"])


def test_months_follow_one_another() -> None:
    """A year is the best lag; in a table that was read by months, it is not."""
    x = loaded("elnino").ends()[0].x[:, 0]

    def best(values: torch.Tensor) -> int:
        z = values - values.mean()
        return max(range(6, 19), key=lambda lag: float((z[lag:] * z[:-lag]).mean()))

    assert best(x) == 12
    assert best(x.view(61, 12).T.flatten()) != 12, "the control"


def test_missing_months_stay_missing_or_are_filled() -> None:
    data = loaded("co2")
    assert int(data.ends()[0].x.isnan().sum()) == 5
    assert data.spec.x.missing
    filled = loaded("co2", missing="forward")
    assert filled.ends()[0].x.isfinite().all()
    with pytest.raises(zoo.ZooError, match="seasonal_naive does not read missing values"):
        data.check_model(zoo.create_model("seasonal_naive", data=data.spec))
    filled.check_model(zoo.create_model("seasonal_naive", data=filled.spec))


def test_windows_that_are_too_long_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"data\.series=macrodata: the longest series has 203 steps"):
        loaded("macrodata", length=180)


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.datasets.sunspots", None)
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", None)
    with pytest.raises(ConfigError, match=r"data\.series=sunspots: needs statsmodels.*generative-zoo\[series\]"):
        zoo.create_data("real_series").setup()
