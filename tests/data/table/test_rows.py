"""Tables of mixed columns: inferred types, round trips through CSV and Parquet, the law of the synthetic table."""

import csv
import io
import math
import random

import pytest
import torch

import zoo
from zoo.data.table.cells import given_rows
from zoo.data.table.infer import infer_type
from zoo.data.table.rows import texts_of, to_csv
from zoo.data.table.synthetic import DAYS, FIRST, MOST, draw, log_prob
from zoo.nn.blocks.table_codec import TableCodec

R = random.Random(0)
N = 60
COLUMNS = {
    "name": [f"person {i}" for i in range(N)],
    "sex": [R.choice(["female", "male", ""]) for _ in range(N)],
    "rooms": [str(R.randint(1, 5)) for _ in range(N)],
    "age": [str(R.randint(17, 90)) for _ in range(N)],
    "price": [R.choice([f"{R.gauss(100, 20):.2f}", "NA"]) for _ in range(N)],
    "real": [repr(R.gauss(0, 1)) for _ in range(N)],
    "born": [f"19{R.randint(10, 99)}-0{R.randint(1, 9)}-{R.randint(10, 28)}" for _ in range(N)],
    "seen": [f"2026-01-0{R.randint(1, 3)} {R.randint(10, 23)}:{R.randint(10, 59)}:07" for _ in range(N)],
}
KINDS = ["key", "category", "category", "number", "number", "number", "date", "date"]


def write(path, columns=COLUMNS):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def table(path, **settings):
    data = zoo.create_data("mixed_table", path=str(path), **{"batch_size": 8, **settings})
    data.setup()
    return data


def test_types_are_inferred_and_rows_survive(tmp_path):
    data = table(write(tmp_path / "a.csv"))
    columns = data.spec.x.columns
    assert [column.kind for column in columns] == KINDS
    assert [column.name for column in columns if column.missing] == ["sex", "price"]
    assert columns[2].categories == ("1", "2", "3", "4", "5")
    assert data.target == "seen"
    assert "price (" in data.details["columns"]
    x = torch.cat([data.train[0], data.val[0], data.test[0]])
    order = torch.cat([data.order[12:], data.order[:6], data.order[6:12]])
    heading, rows = texts_of(data.spec.x, x)
    assert heading == list(COLUMNS)
    for place, row in zip(order.tolist(), rows, strict=True):
        want = [COLUMNS[name][place] for name in COLUMNS]
        want[4] = want[4].replace("NA", "")
        assert row[1:5] == want[1:5]
        assert float(row[5]) == pytest.approx(float(want[5]), abs=1e-5)
        assert row[6:] == want[6:]
    assert [row[0] for row in rows] == [str(i) for i in range(1, N + 1)], "keys count"
    again = list(csv.reader(io.StringIO(to_csv(data.spec.x, x))))
    assert again == [heading, *rows]


def test_parquet_has_the_rows_of_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    some = {name: COLUMNS[name] for name in ("sex", "age", "price")}
    values = {
        "sex": [v or None for v in some["sex"]],
        "age": [int(v) for v in some["age"]],
        "price": [None if v == "NA" else float(v) for v in some["price"]],
    }
    parquet.write_table(pa.table(values), tmp_path / "a.parquet")
    one, two = table(tmp_path / "a.parquet"), table(write(tmp_path / "a.csv", some))
    assert one.spec.x.columns == two.spec.x.columns
    assert torch.equal(one.train[0], two.train[0])
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(zoo.ZooError, match="not a Parquet file"):
        table(tmp_path / "b.parquet")


def test_types_and_columns_are_chosen(tmp_path):
    path = write(tmp_path / "a.csv")
    data = table(path, types=["rooms:number", "age:category"], columns=["age", "rooms"], target="age")
    assert [column.kind for column in data.spec.x.columns] == ["category", "number"]
    assert data.target == "age"


MISTAKES = [
    ({"types": ["age:numbr"]}, "did you mean 'number'"),
    ({"types": ["room:number"]}, "data.types=room: no such column"),
    ({"columns": ["ages"]}, "data.columns=ages: no such column"),
    ({"target": "ages"}, "data.target=ages: no such column"),
    ({"target": "age", "columns": ["sex", "rooms"]}, "data.target=age: data.columns leaves it out"),
    ({"target": "name"}, "a key cannot be predicted"),
    ({"types": ["sex:number"]}, "is not a finite number"),
    ({"types": ["age:date"]}, "is not a date"),
    ({"columns": ["name"]}, "all columns are keys"),
]


@pytest.mark.parametrize(("settings", "told"), MISTAKES)
def test_mistakes_are_named(tmp_path, settings, told):
    with pytest.raises(zoo.ZooError, match=told):
        table(write(tmp_path / "a.csv"), **settings)


COMMAS = ["0,5", "1,25", "7", ""] * 5
FORMATS = ["2026-12-31", "31.12.2026"] * 10


@pytest.mark.parametrize(("fields", "told"), [(COMMAS, r"decimal commas \(0,5\)"), (FORMATS, "several formats")])
def test_numbers_and_dates_that_would_be_categories_are_refused(tmp_path, fields, told):
    path = write(tmp_path / "a.csv", {"a": fields, "b": ["x", "y"] * 10})
    with pytest.raises(zoo.ZooError, match=told):
        table(path)
    assert table(path, types=["a:category"]).spec.x.columns[0].kind == "category"
    assert table(path, columns=["b"]).spec.x.columns[0].kind == "category"


def test_files_that_hold_no_table_are_named(tmp_path):
    with pytest.raises(zoo.ZooError, match="no such file"):
        table(tmp_path / "none.csv")
    with pytest.raises(zoo.ZooError, match="3 rows, too few"):
        table(write(tmp_path / "a.csv", {"a": ["1", "2", "3"]}))
    with pytest.raises(zoo.ZooError, match="all values of column a are missing"):
        table(write(tmp_path / "a.csv", {"a": ["NA"] * 20, "b": ["x", "y"] * 10}))


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1.5", "2", "?"], "number"),
        ([str(i) for i in range(20)], "number"),
        (["0", "1", "0"], "category"),
        (["a", "b", "a"], "category"),
        (["a", "b", "c"], "key"),
        (["31.12.2026", "", "01.01.2027"], "date"),
        (["12/31/2026", "01/13/2027"], "date"),
        (["31/12/2026", "13/01/2027"], "date"),
        (["2026-13-01", "2026-13-01"], "category"),
        (["inf", "1", "1"], "category"),
        (["", ""], "category"),
    ],
)
def test_a_type_fits_its_values(texts, kind):
    assert infer_type(texts) == kind


def test_scores_of_training_numbers_are_standard_normal():
    data = zoo.create_data("diabetes")
    data.setup()
    codec = TableCodec(data.spec.x)
    z = data.train[0][:, codec.at]
    assert z.mean(0).abs().max() < 0.15
    assert (z.std(0) - 1).abs().max() < 0.15
    cells = codec.decode(data.train[0])
    standard = (cells - cells.mean(0)) / cells.std(0)
    assert (standard[:, -1].pow(3).mean() - z[:, -1].pow(3).mean()).abs() > 0.3, "the progression is skewed"


def test_the_synthetic_law_sums_to_one_and_is_that_of_the_rows():
    income = torch.cat([torch.arange(-40, 130, 0.1, dtype=torch.float64), torch.tensor([math.nan]).double()])
    day = torch.arange(DAYS, dtype=torch.float64) + FIRST
    for region in (0, 3):
        total = 0.0
        for children in range(MOST + 1):
            grid = torch.cartesian_prod(torch.tensor([region]).double(), torch.tensor([children]).double(), income)
            by_day = log_prob(torch.cat([grid.repeat(DAYS, 1), day.repeat_interleave(len(grid))[:, None]], 1))
            total += by_day.exp().sum().item()
        assert total == pytest.approx([0.4, 0.3, 0.2, 0.1][region], abs=1e-6)
    cells = draw(20_000, torch.Generator().manual_seed(0))
    assert (cells[:, 0] == 0).double().mean().item() == pytest.approx(0.4, abs=0.015)
    silent = cells[cells[:, 0] == 3][:, 2].isnan().double().mean().item()
    assert silent == pytest.approx(0.4, abs=0.05)
    children = cells[cells[:, 0] == 2][:, 1].mean().item()
    assert children == pytest.approx(3, abs=0.1)
    wrong = cells[torch.randperm(len(cells))]
    mixed = torch.cat([cells[:, :1], wrong[:, 1:]], 1)
    assert log_prob(cells).mean() > log_prob(mixed).mean() + 1


def test_cells_of_a_user_may_hold_commas_and_signs(tmp_path):
    columns = {"a": ["x, y", "u=v"] * 10, "a=b": [f"{i}.5" for i in range(20)]}
    data = table(write(tmp_path / "a.csv", columns))
    codec = TableCodec(data.spec.x)
    for where, cells in (('"a=x, y", a=b=3.5', ["x, y", "3.5"]), ("a = u=v,a=b = 2.5", ["u=v", "2.5"])):
        x, hidden = given_rows(codec, where, 2)
        assert texts_of(data.spec.x, x)[1] == [cells] * 2
        assert not hidden.any()
    mistakes = {
        "a=u=v, a=x": "column a has two values",
        "a=x, y": "unknown category",
        "a=u=v, y": "'y' is not a cell.*in quotes",
        "": "'' is not a cell",
        "a=x\na=b": "several lines",
        "c=1": "unknown column",
    }
    for where, told in mistakes.items():
        with pytest.raises(zoo.ZooError, match=told):
            given_rows(codec, where, 1)


@pytest.mark.parametrize("value", ["1.8e20", "-1e300"])
def test_numbers_that_32_bits_do_not_hold_are_refused(tmp_path, value) -> None:
    """Also numbers whose squares they do not hold: losses would not be finite."""
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{i / 7},{i}\n" for i in range(30)) + f"{value},1\n")
    with pytest.raises(zoo.DataError, match=r"in column a is too large for 32-bit floats\. Change its unit"):
        zoo.create_data("mixed_table", path=str(tmp_path / "a.csv")).setup()
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{2**63 + i},{i}\n" for i in range(31)))
    zoo.create_data("mixed_table", path=str(tmp_path / "a.csv")).setup()
