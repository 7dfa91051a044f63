"""Windows never leak the future; files, times, gaps and covariates are read or refused with one message."""

import csv

import pytest
import torch

import zoo
from zoo.data.loader import make_generator
from zoo.data.series.calendar import Calendar
from zoo.data.series.windows import OneSeries, filled_forward

SIZES = {"length": 8, "horizon": 3, "batch_size": 2}


def write(path, heading: str, rows) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heading.split(","), *rows])
    return str(path)


def loaded(path: str, **given):
    data = zoo.create_data("series", path=path, **SIZES | given)
    data.setup()
    return data


def test_no_window_has_a_value_of_a_later_part(tmp_path) -> None:
    size, held = 100, 10
    path = write(tmp_path / "a.csv", "x", [[i] for i in range(size)])
    data = loaded(path)
    (train, _), (val, _), (test, _) = data.train, data.val, data.test
    assert float(train.max()) == size - 2 * held - 1
    assert sorted(set(val[:, -3:].flatten().tolist())) == list(range(size - 2 * held, size - held))
    assert sorted(set(test[:, -3:].flatten().tolist())) == list(range(size - held, size))
    for x in (train, val, test):
        assert torch.equal(x[:, 1:] - x[:, :-1], torch.ones_like(x[:, 1:])), "steps are in order"
    assert len(train) == size - 2 * held - 8 + 1
    assert len(loaded(path, stride=4).train[0]) == -(-len(train) // 4)


def test_columns_of_texts_that_are_not_used_are_named(tmp_path) -> None:
    path = write(tmp_path / "a.csv", "day,shop,x", [[f"2026-01-{d:02}", "a", d] for d in range(1, 31)])
    assert "day, shop: not numbers; data.time and data.id" in loaded(path).details["left out"]
    assert "left out" not in loaded(path, time="day", id="shop").details


def test_rows_are_sorted_and_gaps_are_missing(tmp_path) -> None:
    days = [f"2026-01-{d:02}" for d in range(1, 31) if d not in (4, 5)]
    rows = [[day, i] for i, day in enumerate(days)]
    data = loaded(write(tmp_path / "a.csv", "day,x", reversed(rows)), time="day")
    (one,) = data.ends()
    assert len(one.x) == 30
    assert one.x[:, 0].isnan().nonzero().flatten().tolist() == [3, 4]
    assert one.x[5, 0] == 3
    assert one.later(3) == ["2026-01-31", "2026-02-01", "2026-02-02"]
    assert data.spec.x.missing
    assert "6.7% missing" in data.details["series"]
    with pytest.raises(zoo.ZooError, match=r"vae does not read missing values. Set data.missing=forward"):
        data.check_model(zoo.create_model("vae", data=data.spec))
    data.check_model(zoo.create_model("deepar", data=data.spec))
    filled = loaded(str(tmp_path / "a.csv"), time="day", missing="forward")
    assert filled.ends()[0].x[3:5, 0].tolist() == [2, 2]
    filled.check_model(zoo.create_model("vae", data=filled.spec))


def test_filling_never_uses_a_later_value() -> None:
    x = torch.randn(30, 2, generator=make_generator(0))
    x[torch.rand(30, 2, generator=make_generator(1)) < 0.3] = torch.nan
    x[0] = torch.nan
    later = x.clone()
    later[20:] += 100
    one, two = (
        filled_forward(OneSeries("", [str(i) for i in range(30)], v, torch.zeros(30, 0), list)) for v in (x, later)
    )
    gone = 30 - len(one.x)
    assert gone > 0
    assert one.x.isfinite().all()
    assert torch.equal(one.x[: 20 - gone], two.x[: 20 - gone])
    assert one.times[0] == str(gone)


def test_several_series_with_covariates_of_the_future(tmp_path) -> None:
    rows = [[f"s{k}", t, 10 * k + t, int(t % 7 == 0)] for k in range(2) for t in range(40)]
    rows += [[f"s{k}", t, "", int(t % 7 == 0)] for k in range(2) for t in range(40, 43)]
    rows += [["short", t, t, 0] for t in range(5)]
    path = write(tmp_path / "a.csv", "shop,step,sold,promotion", rows)
    data = loaded(path, time="step", id="shop", covariates=["promotion"])
    assert data.spec.x.columns == ("sold",)
    assert data.spec.condition.columns == ("promotion",)
    x, y = data.train
    first = data.ends()[0]
    assert [one.name for one in data.ends()] == ["s0", "s1"], "the short one is left out"
    assert len(first.x) == 40
    assert len(first.covariates) == 43
    assert first.later(2) == ["40", "41"]
    in_order = x[x[:, 0, 0] < 1]  # the first window of s0
    assert torch.equal(y[x[:, 0, 0] < 1][..., 0], (in_order[..., 0] % 7 == 0).float())


@pytest.mark.parametrize(
    ("times", "later"),
    [
        (["2025-11-01", "2025-12-01", "2026-01-01"], ["2026-02-01", "2026-03-01"]),
        (["2025-11-30", "2025-12-31", "2026-01-31"], ["2026-02-28", "2026-03-31"]),
        (["2024-02-29", "2025-02-28", "2026-02-28"], ["2027-02-28", "2028-02-29"]),
        (["01.01.2025", "01.04.2025", "01.07.2025"], ["01.10.2025", "01.01.2026"]),
        (["2026-01-01 00:00:00", "2026-01-01 06:00:00"], ["2026-01-01 12:00:00", "2026-01-01 18:00:00"]),
        (["0.5", "1.0", "1.5"], ["2.0", "2.5"]),
        (["1990", "1991"], ["1992", "1993"]),
    ],
)
def test_times_go_on_as_they_began(times: list[str], later: list[str]) -> None:
    calendar = Calendar(times, "data.time=t")
    numbers = [calendar.number(t) for t in times]
    step = calendar.step(numbers)
    assert calendar.places(numbers, step) == list(range(len(times)))
    whole = [calendar.text(calendar.moved(numbers[0], step, i)) for i in range(len(times) + 2)]
    assert whole == times + later


@pytest.mark.parametrize(
    ("heading", "rows", "given", "message"),
    [
        ("t,x", [[i // 2, i] for i in range(60)], {"time": "t"}, "time 0 occurs twice"),
        ("t,x", [[i + (i % 3) / 7, i] for i in range(60)], {"time": "t"}, "not on a regular grid"),
        ("t,x", [["soon", i] for i in range(60)], {"time": "t"}, "'soon' is not a time"),
        ("t,x", [[10**9 * (i == 59) + i, i] for i in range(60)], {"time": "t"}, "Correct the times"),
        ("t,x", [[i, i] for i in range(12)], {"time": "t"}, "the longest series has 12 steps"),
        ("t,x", [[i, "many"] for i in range(60)], {"time": "t"}, "no column of numbers"),
        ("t,x", [[i, "many"] for i in range(60)], {"columns": ["x"]}, "'many' in column x, row 1"),
        ("t,x", [[i, i] for i in range(60)], {"time": "when"}, "no such column. There are t, x"),
        ("t,x", [[i, i] for i in range(60)], {"columns": ["x"], "covariates": ["x"]}, "another use too"),
        ("t,x", [["" if i == 3 else i, i] for i in range(60)], {"covariates": ["t"]}, "a value is missing"),
        ("t,x", [[i, i] for i in range(60)], {"horizon": 8}, "not less than data.length=8"),
        ("t,x", [[i, i] for i in range(60)], {"stride": 50}, "no validation window"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, heading: str, rows, given: dict, message: str) -> None:
    path = write(tmp_path / "a.csv", heading, rows)
    with pytest.raises(zoo.ZooError, match=message):
        loaded(path, **given)


def test_a_parquet_file_gives_the_same_windows(tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [[t, t % 5 if t != 9 else None] for t in range(60)]
    write_table(pa.table({"t": [r[0] for r in rows], "x": [r[1] for r in rows]}), tmp_path / "a.parquet")
    text = write(tmp_path / "a.csv", "t,x", [[t, "" if x is None else x] for t, x in rows])
    one, two = (loaded(p, time="t") for p in (str(tmp_path / "a.parquet"), text))
    assert torch.equal(one.train[0].nan_to_num(-1), two.train[0].nan_to_num(-1))


@pytest.mark.parametrize("process", ["ar", "seasonal", "garch"])
def test_synthetic_windows_follow_their_law(process: str) -> None:
    """Their mean log-density is the negative entropy, and another law has a lower one."""
    data = zoo.create_data("synthetic_series", process=process)
    data.setup()
    nats, fresh = data.log_prob(data.test[0]), data.log_prob(data.law.sample(1000, 48, make_generator(99))[..., None])
    error = float((nats.var() / 1000 + fresh.var() / 1000).sqrt())
    assert abs(float(nats.mean() - fresh.mean())) < 4.5 * error
    assert float(data.log_prob(data.test[0].flip(1) * 1.2).mean()) < float(nats.mean()) - 4.5 * error
    assert data.forecast(data.test[0][:3, :36], 12, 5, make_generator(0)).shape == (3, 5, 12, 1)
