"""Constraints of tables: read, found, checked against the data, and obeyed by samples of every model."""

import random
from itertools import product

import pytest
import torch

import zoo
from zoo.cli.edit_rows import fill
from zoo.core.columns import Column, write_columns
from zoo.core.constraints import Constraint, read_constraints, write_constraints
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.data.table.constraints import breaks, broken, constrained, find_rules, text_of
from zoo.data.table.rows import texts_of
from zoo.nn.blocks.table_codec import TableCodec

R = random.Random(1)
N = 200
CITIES = {"Rome": "IT", "Milan": "IT", "Paris": "FR", "Lyon": "FR", "Bern": "CH"}
RULES = ["18<=age<=65", "start<=end", "fixed(city,country)", "unique(age,start,end)"]


def write(path):
    """Rows that obey RULES; a third of the ends are missing."""
    lines = ["age,start,end,city,country,pay"]
    seen = set()
    while len(lines) <= N:
        age, start, long, city = R.randint(18, 65), R.randint(1, 20), R.randint(0, 8), R.choice(list(CITIES))
        if (age, start, long) not in seen:
            seen.add((age, start, long))
            end = "" if R.random() < 0.3 else f"2026-03-{start + long:02}"
            lines.append(f"{age},2026-03-{start:02},{end},{city},{CITIES[city]},{R.gauss(50, 9):.2f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def table(path, *rules, **settings):
    data = zoo.create_data("mixed_table", path=str(path), batch_size=16, constraints=list(rules) or None, **settings)
    data.setup()
    return data


def random_rows(space: Table, n: int, seed: int) -> torch.Tensor:
    """Encoded rows whose columns are independent and uniform, so that most break a rule."""
    codec = TableCodec(space)
    u = torch.rand(n, len(codec.columns), generator=make_generator(seed), dtype=torch.float64)
    parts = []
    for values, column in zip(u.unbind(1), codec.columns, strict=True):
        size = column.high - column.low if column.numeric else len(column.categories)
        parts.append(column.low + values * size if column.numeric else (values * size).floor())
    return codec.encode(torch.stack(parts, 1))


def obeys(fields: list[dict[str, str]]) -> list[bool]:
    """RULES but the first, by plain Python on the written rows."""
    seen, good = set(), []
    for row in fields:
        key = (row["age"], row["start"], row["end"])
        order = not row["end"] or row["start"] <= row["end"]
        new = not row["end"] or key not in seen
        seen.add(key)
        good.append(order and new and CITIES[row["city"]] == row["country"])
    return good


def written(space: Table, x: torch.Tensor) -> list[dict[str, str]]:
    heading, rows = texts_of(space, x)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_breaks_agree_with_plain_python(tmp_path) -> None:
    """A sampler without the rules is caught: this is the negative control."""
    data = table(write(tmp_path / "a.csv"), *RULES)
    x = random_rows(data.spec.x, 2_000, 0)
    x = torch.cat([x, x[:50]])
    wrong = broken(data.spec.x, x)
    assert wrong.tolist() == [not good for good in obeys(written(data.spec.x, x))]
    assert 0.5 < float(wrong.double().mean()) < 1
    assert not broken(data.spec.x, torch.cat([data.train[0], data.val[0], data.test[0]])).any()
    assert data.details["constraints"] == "18<=age, age<=65, start<=end, fixed(city,country), unique(age,start,end)"


def test_rejection_draws_the_conditional_distribution() -> None:
    """Of two independent dice, given that the first is smaller: each of 15 pairs has a probability of 1/15."""
    codes = tuple(map(str, range(1, 7)))
    scale = {"low": 1.0, "high": 6.0, "step": 1.0, "knots": (-0.5, 2.5, 5.5), "scores": (-2.0, 0.0, 2.0)}
    columns = [Column(name, "number", **scale) for name in ("a", "b")]
    rule = Constraint("order", ("a", "b"), strict=True)
    space = Table(write_columns(tuple(columns)), write_constraints([rule]))
    codec = TableCodec(space)

    class Dice:
        spec = zoo.DataSpec(space, name="dice")

        def sample(self, n, *, generator=None):
            return codec.encode(torch.randint(1, 7, (n, 2), generator=generator).double())

    n = 6_000
    drawn = codec.decode(constrained(Dice.sample)(Dice(), n, generator=make_generator(3))).int()
    pairs, counts = drawn.unique(dim=0, return_counts=True)
    assert [tuple(map(str, p)) for p in pairs.tolist()] == [p for p in product(codes, codes) if p[0] < p[1]]
    expected = n / 15
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert chi2 < 36.1, "the 0.1 % quantile of 14 degrees of freedom"
    free = codec.decode(Dice().sample(n, generator=make_generator(3))).int()
    assert len(free.unique(dim=0)) == 36, "control: without the rule there are other pairs"
    one = constrained(Dice.sample)(Dice(), 40, generator=make_generator(5))
    assert torch.equal(one, constrained(Dice.sample)(Dice(), 40, generator=make_generator(5)))

    class Stubborn(Dice):
        def sample(self, n, *, generator=None):
            return codec.encode(torch.tensor([[4.0, 2.0]]).expand(n, 2))

    with pytest.raises(zoo.ZooError, match=r"data.constraints=a<b: of .* only 0 obey"):
        constrained(Stubborn.sample)(Stubborn(), 5)


MODELS = [
    ("tvae", {}),
    ("ctgan", {}),
    ("tabddpm", {}),
    ("gaussian_copula", {"sweeps": 2}),
    ("chow_liu", {}),
    ("table_autoregressive", {}),
]


@pytest.mark.parametrize(("name", "settings"), MODELS)
def test_samples_of_every_model_obey(tmp_path, name, settings) -> None:
    """Also of an untrained one, and from the plain values of a checkpoint; without rules its samples break them."""
    path = write(tmp_path / "a.csv")
    rules = ["start<=end", "fixed(city,country)"]
    ruled, free = table(path, *rules), table(path)
    spec = zoo.DataSpec.from_dict(ruled.spec.to_dict())
    assert spec.x == ruled.spec.x
    for data, of in ((ruled, spec), (free, free.spec)):
        torch.manual_seed(0)
        model = zoo.create_model(name, data=of, **settings)
        model.fit_to_data(data)
        x = model.eval().sample(60, seed=1)
        assert len(x) == 60
        assert broken(ruled.spec.x, x).any() == (data is free)


def test_rules_are_found(tmp_path) -> None:
    data = table(write(tmp_path / "a.csv"), "auto")
    columns = TableCodec(data.spec.x).columns
    assert [text_of(rule, columns) for rule in data.spec.x.constraints] == ["start<=end", "fixed(city,country)"]
    assert len(data.spec.x.constraints[1].allowed) == len(CITIES)
    assert not table(tmp_path / "a.csv").spec.x.constraints, "they are not a default"
    lines = (tmp_path / "a.csv").read_text().splitlines()
    free = [lines[0]] + [line.replace("IT", R.choice(["IT", "FR"])) for line in lines[1:]]
    (tmp_path / "b.csv").write_text("\n".join(free) + "\n")
    found = table(tmp_path / "b.csv", "auto").spec.x.constraints
    assert [rule.kind for rule in found] == ["order"], "control: a city in two countries"
    columns, cells = TableCodec(data.spec.x).columns, data.content[1]
    assert not find_rules(columns, cells[:8]), "eight rows may obey by accident"


def test_filled_cells_obey(tmp_path) -> None:
    """Of a model that fills cells at random; without the rule, some ends are before their starts."""
    data = table(write(tmp_path / "a.csv"), "start<=end")
    codec, cells = TableCodec(data.spec.x), data.content[1][:40].clone()
    empty = torch.zeros(cells.shape, dtype=torch.bool)
    empty[:, [1, 2]] = True

    class Random:
        device, spec = torch.device("cpu"), data.spec

        def inpaint(self, x, mask, *, generator):
            return random_rows(self.spec.x, len(x), int(torch.randint(10_000, (1,), generator=generator)))

    filled, _ = fill(Random(), codec, cells, empty, make_generator(0))
    rule = data.spec.x.constraints[0]
    assert not breaks(rule, codec.columns, filled).any()
    assert torch.equal(filled[:, [0, 3, 4, 5]], cells[:, [0, 3, 4, 5]])
    Random.spec = table(tmp_path / "a.csv").spec
    assert breaks(rule, codec.columns, fill(Random(), codec, cells, empty, make_generator(0))[0]).any()


MISTAKES = [
    ("age", "not a constraint"),
    ("ages<=3", "did you mean 'age'"),
    ("age<=pay<=3<=4", "not a constraint"),
    ("age<=young", "'young' is not a column, and not a number"),
    ("start<=2026", "'2026' is not a column, and not a date"),
    ("city<=3", "city has categories"),
    ("age<=start", "a number with a date"),
    ("fixed(city)", "two or more categories"),
    ("fixed(city,age)", "two or more categories"),
    ("unique(age,age)", "named twice"),
    ("30<=age", "rows? of the data breaks? it, the first is row"),
    ("unique(city)", "rows? of the data breaks? it, the first is row"),
    ("end<start", "rows? of the data breaks? it, the first is row"),
    ("2026-03-05<=start", "rows? of the data breaks? it, the first is row"),
]


@pytest.mark.parametrize(("rule", "told"), MISTAKES)
def test_mistakes_are_named(tmp_path, rule, told) -> None:
    with pytest.raises(zoo.ZooError, match=told):
        _ = table(write(tmp_path / "a.csv"), rule).spec


def test_missing_cells_and_decimals() -> None:
    """A comparison with a missing cell holds, a missing category is a value, and numbers count as they are written."""
    columns = (
        Column("a", "number", missing=True, high=1.0, decimals=1, knots=(0, 1), scores=(-1, 1)),
        Column("b", "number", missing=True, high=1.0, decimals=1, knots=(0, 1), scores=(-1, 1)),
        Column("c", "category", ("x", "y"), missing=True),
        Column("d", "category", ("u", "v")),
    )
    nan = torch.nan
    cells = torch.tensor([[0.31, 0.29, 0, 0], [nan, 0.1, nan, 0], [0.5, nan, nan, 1], [0.5, 0.3, 1, 1]]).double()
    assert breaks(Constraint("order", ("a", "b")), columns, cells).tolist() == [False, False, False, True]
    assert breaks(Constraint("order", ("a", "b"), True), columns, cells).tolist() == [True, False, False, True]
    rule = Constraint("fixed", ("c", "d"), allowed=((0, 0), (-1, 1)))
    assert breaks(rule, columns, cells).tolist() == [False, True, False, True]
    assert breaks(Constraint("unique", ("a",)), columns, cells).tolist() == [False, False, False, True]
    assert breaks(Constraint("unique", ("c",)), columns, cells).tolist() == [False] * 4
    assert breaks(Constraint("at_least", ("a",), True, 0.3), columns, cells).tolist() == [True, False, False, False]
    again = read_constraints(write_constraints([rule]), columns)
    assert again == (rule,)


DAMAGED = [
    ("{}", "a list"),
    ("[1]", "a list"),
    ('[{"kind": "order", "columns": ["a"]}]', "not valid"),
    ('[{"kind": "fixed", "columns": ["c", "c"]}]', "not valid"),
    ('[{"kind": "at_most", "columns": ["z"]}]', "no such columns"),
    ('[{"kind": "order", "columns": ["c", "c"]}]', "another kind"),
    ('[{"kind": "unique"}]', "columns"),
    ('[{"kind": "unique", "columns": 3}]', "iterable"),
    ("[" * 10_000, "a list"),
]


@pytest.mark.parametrize(("text", "told"), DAMAGED)
def test_damaged_rules_of_a_file_are_refused(text, told) -> None:
    columns = (Column("c", "category", ("x", "y")),)
    with pytest.raises(ValueError, match=told):
        read_constraints(text, columns)
