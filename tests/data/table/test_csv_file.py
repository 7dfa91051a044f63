"""Tables of numbers: columns, classes, forms of files, and errors."""

import random

import pytest
import torch

import zoo
from zoo.core.spaces import Vector
from zoo.data.table.csv_file import read_table

ROWS = [(random.Random(i).gauss(1000, 100), i / 7, "cat" if i % 3 else "dog") for i in range(50)]


def table(path, **settings):
    data = zoo.create_data("table", path=str(path), **{"batch_size": 4, **settings})
    data.setup()
    return data


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_numbers_and_classes(tmp_path, delimiter, end, caplog):
    lines = [delimiter.join(map(str, row)) for row in [("height", '"width, cm"' if delimiter == "," else "width, cm",
                                                        "kind"), *ROWS]]  # fmt: skip
    (tmp_path / "A.CSV").write_bytes(b"\xef\xbb\xbf" + (end.join(lines) + end + end).encode())
    data = table(tmp_path / "A.CSV", label="kind")
    assert data.spec.x == Vector(2, ("height", "width, cm"))
    assert data.spec.n_classes == 2
    assert [len(part[0]) for part in (data.train, data.val, data.test)] == [40, 5, 5]
    x, y = (torch.cat([getattr(data, name)[i] for name in ("train", "val", "test")]) for i in (0, 1))
    found = sorted(zip(x.tolist(), y.tolist(), strict=True))
    wanted = sorted((torch.tensor(row[:2]).tolist(), ["cat", "dog"].index(row[2])) for row in ROWS)
    assert found == wanted
    assert not caplog.records


def test_columns_are_chosen_and_others_named(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("a,b,name\n" + "".join(f"{a},{b},x{i}\n" for i, (a, b, _) in enumerate(ROWS)))
    assert table(tmp_path / "a.csv").spec.x == Vector(2, ("a", "b"))
    assert caplog.records[0].getMessage().endswith("left out the columns name.")
    assert table(tmp_path / "a.csv", columns=["b"]).spec.x == Vector(1, ("b",))
    (tmp_path / "b.csv").write_text("".join(f"{a},{b}\n" for a, b, _ in ROWS))  # without names
    data = table(tmp_path / "b.csv")
    assert data.spec.x == Vector(2, ("column_1", "column_2"))
    assert len(data.content[1]) == 50


def test_rows_of_empty_fields_are_counted_and_blank_lines_are_not(tmp_path, caplog):
    rows = "".join(f"{i},{i}\n" for i in range(20))
    (tmp_path / "a.csv").write_text("a,b\n,\n\n" + rows + ",\n")
    assert len(table(tmp_path / "a.csv").content[1]) == 20
    assert caplog.messages == [f"data.path={tmp_path / 'a.csv'}: left out 2 rows of empty fields, the first in line 2."]
    caplog.clear()
    (tmp_path / "b.csv").write_text("a,b\n\n" + rows + "\n")
    assert len(table(tmp_path / "b.csv").content[1]) == 20
    assert not caplog.messages


def test_copies_across_splits_are_counted(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 30)
    table(tmp_path / "a.csv")
    assert "3 of 3 validation rows are also in the training split" in caplog.text


MISTAKES = {
    "a,b\n": "0 rows, too few to split. Give at least 10.",
    "": "data.path={path}: empty. Add rows",
    "a,b\n1,2\n" + "3\n" * 9: "data.path={path}: line 3 has 1 field, and the first has 2",
    "a,b\n" + "1,2\n" * 9 + "1,\n": "'' in column b, line 11 of {path}, is not a finite number. Write a number such as "
    "1.5, remove the row, leave the column out, or choose data=mixed_table",
    "a,b\n" + "1,2\n" * 9 + "1,inf\n": "'inf' in column b, line 11",
    "a,b\n" + "1,2\n" * 9 + "1,-4e38\n": "data.path={path}: -4e+38 in column b is too large for 32-bit floats. Change",
    "a,a\n" + "1,2\n" * 9: "two columns are named 'a'",
    "a,b\n" + "x,y\n" * 10: "no column of numbers",
}


@pytest.mark.parametrize("content", MISTAKES, ids=MISTAKES.values())
def test_mistakes_are_named(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(zoo.ZooError) as told:
        table(path)
    assert MISTAKES[content].replace("{path}", str(path)) in str(told.value)
    assert "\n" not in str(told.value)


def test_settings_are_checked(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 10)
    for settings, told in (({"label": "c"}, "data.label=c: no such column"), ({"columns": ["c"]}, "data.columns=c")):
        with pytest.raises(zoo.ZooError, match=told):
            table(tmp_path / "a.csv", **settings)
    with pytest.raises(zoo.ZooError, match="no such file"):
        table(tmp_path / "none.csv")


def test_a_vae_learns_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b, _ in ROWS))
    data = table(tmp_path / "a.csv")
    model = zoo.create_model("vae", data=data.spec)
    assert model.loss(next(iter(data.train_dataloader())))["loss"].isfinite()


def test_quotes_hold_line_ends_and_separators(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"a, b, c";"a\nnote"\n' + '1;"one\ntwo; three"\n' * 12)
    heading, rows = read_table(path)
    assert heading == ["a, b, c", "a\nnote"]
    assert rows[1] == (6, ["1", "one\ntwo; three"])
    path.write_text("a,b\n1,one\rtwo\n")
    with pytest.raises(zoo.ZooError, match=r"data\.path=.*: line 2 is not CSV"):
        read_table(path)
