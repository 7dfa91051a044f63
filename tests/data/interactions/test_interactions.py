"""Splits by users, files of interactions, and synthetic data that follow their probabilities."""

import random

import pytest
import torch

import zoo
from zoo.data.interactions.base import ItemLists, ranks
from zoo.data.interactions.synthetic import GENRES, PER_GENRE

ROWS = sorted({(f"u{u}", f"i{random.Random(31 * u + j).randrange(20)}") for u in range(60) for j in range(9)})


def loaded(path, **given):
    data = zoo.create_data("interactions", path=str(path), batch_size=4, **given)
    data.setup()
    return data


def read(data, name: str):
    split = getattr(data, name)
    return data.fetch(split, torch.arange(len(split[0])), torch.Generator(), train=False)


def test_every_interaction_is_in_one_place(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in ROWS * 2))
    data = loaded(tmp_path / "a.csv")
    x, y = read(data, "train")
    assert torch.equal(x, y)
    names, seen = data.spec.x.names, []
    assert set(names) <= {i for _, i in ROWS}
    assert bool(x.any(0).all()), "all items are known from training"
    for name in ("train", "val", "test"):
        given, wanted = read(data, name)
        if name != "train":
            assert float((given * wanted).sum()) == 0, "nothing that is predicted is given"
            both = (given + wanted).sum(1)
            assert torch.equal(wanted.sum(1), (0.2 * both).long().clamp(min=1).float())
        else:
            wanted = torch.zeros_like(wanted)
        users = sorted({u for u, _ in ROWS})
        rows = [users[i] for i in getattr(data, name)[0].tolist()]
        seen += [(rows[u], names[i]) for u, i in (given + wanted).nonzero().tolist()]
    assert sorted(seen) == [pair for pair in ROWS if pair[1] in names]


def test_users_and_not_interactions_are_split(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in ROWS))
    data = loaded(tmp_path / "a.csv", held_users=10)
    parts = [set(getattr(data, name)[0].tolist()) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [40, 10, 10]
    assert len(set.union(*parts)) == 60
    again = loaded(tmp_path / "a.csv", held_users=10, seed=1)
    assert torch.equal(data.test[0], again.test[0]), "the split does not depend on the seed"


def test_ratings_below_the_least_do_not_count(tmp_path) -> None:
    """The columns and the form of MovieLens-100k: user, item, rating, time, without names."""
    lines = [f"{u[1:]}\t{i[1:]}\t{1 + (n % 5)}\t88125\n" for n, (u, i) in enumerate(ROWS)]
    (tmp_path / "u.data").write_text("".join(lines))
    data = loaded(tmp_path / "u.data", rating="column_3", min_rating=4, min_items=2)
    kept = [(u, i) for n, (u, i) in enumerate(ROWS) if 1 + (n % 5) >= 4]
    counts = {u: sum(u == v for v, _ in kept) for u, _ in kept}
    assert len(data.content[0].starts) - 1 == sum(count >= 2 for count in counts.values())


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("a,b\n1,2\n", {"item": "c"}, "data.item=c: no such column"),
        ("a,b\n1,2\n", {"rating": "c"}, "data.rating=c: no such column"),
        ("a,b,c\n1,2,x\n", {"rating": "c"}, "data.rating: 'x' in line 2"),
        ("a\n1\n", {}, "one column"),
        ("a,b\n1,2\n", {}, "data.min_items=5: no user has so many items. Set data.min_items=1"),
        ("a,b\n1,2\n", {"min_items": 1}, "1 user, too few to hold out 0 twice"),
        ("a,b\n1,2\n1,\n", {}, "data.item: no item in line 3"),
        ("a,b\n,2\n", {}, "data.user: no user in line 2"),
    ],
)
def test_mistakes_are_named(tmp_path, text: str, given: dict, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(zoo.DataError, match=message):
        loaded(tmp_path / "a.csv", **given)
    with pytest.raises(zoo.DataError, match="no such file"):
        loaded(tmp_path / "b.csv")


def test_lists_and_ranks() -> None:
    users, items = torch.tensor([2, 0, 2, 0, 2]), torch.tensor([1, 4, 0, 2, 3])
    lists = ItemLists.of(users, items, 4)
    wanted = torch.zeros(4, 5).index_put((users, items), torch.ones(5))
    for rows in ([0, 1, 2, 3], [3, 2, 2], []):
        assert torch.equal(lists.dense(torch.tensor(rows, dtype=torch.int64), 5), wanted[rows])
    rank, size = ranks(users, 4)
    assert size.tolist() == [2, 0, 3, 0]
    assert sorted(zip(users.tolist(), rank.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


def test_synthetic_choices_follow_their_probabilities() -> None:
    """The first choice of a user without replacement has the probabilities; those of the next song do not fit."""
    data = zoo.create_data("synthetic_interactions", n_users=2000)
    tastes = data.tastes()
    torch.testing.assert_close(tastes.sum(1), torch.ones(2000))
    users, items, names = data.read()
    assert len(names) == len(GENRES) * PER_GENRE
    assert len(set(zip(users.tolist(), items.tolist(), strict=True))) == len(users)
    first = items[torch.cat([torch.tensor([True]), users[1:] != users[:-1]])]  # the largest of each user
    mean, count = tastes.mean(0), torch.bincount(first, minlength=len(names))
    error = (mean * (1 - mean) / 2000).sqrt()
    off = ((count / 2000 - mean) / error).square().mean()
    assert float(off) < 1.5
    assert float(((count / 2000 - mean.roll(1)) / error).square().mean()) > 1.5
