"""Interactions from a CSV file."""

import torch
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.interactions.base import InteractionData
from zoo.data.table.csv_file import read_table
from zoo.data.table.infer import to_number


@register("data", "interactions")
class InteractionFile(InteractionData):
    """Your own implicit feedback: data=interactions data.path=FILE.csv, with a user and an item in each line.

    The first line names the columns, unless all its fields are numbers; the columns are then column_1, column_2 ...
    Lines that repeat an interaction count once. MovieLens-100k: data.path=u.data data.rating=column_3
    data.min_rating=4. See `zoo.data.interactions.base.InteractionData` for the splits.

    Args:
        path: file of values that are separated by commas, semicolons, tabs or vertical bars.
        user: column of users; null is the first.
        item: column of items; null is the second.
        rating: column of ratings.
        min_rating: lower ratings do not count as interactions.
        min_items: users of fewer items are left out.
        held_users: users of the validation split, and as many of the test split; null is one in ten.
        batch_size: users per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such file or column, an empty user or item, a rating that is not a number, or too few users.
    """

    def __init__(
        self,
        *,
        path: str,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        min_rating: float = 0.0,
        min_items: PositiveInt = 5,
        held_users: PositiveInt | None = None,
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, held_users)
        self.path, self.columns = user_path(path), {"user": user, "item": item, "rating": rating}
        self.min_rating, self.min_items = min_rating, min_items

    def read(self) -> tuple[Tensor, Tensor, list[str]]:
        """Users and items in the order of their names."""
        if not self.path.is_file():
            raise DataError(f"data.path={self.path}: no such file. Set data.path=FILE.csv.")
        heading, rows = read_table(self.path)
        if len(heading) < 2:
            raise DataError(f"data.path={self.path}: one column. Write a user and an item in each line.")
        for setting, name in self.columns.items():
            if name is not None and name not in heading:
                raise DataError(f"data.{setting}={name}: no such column in {self.path}. It has {', '.join(heading)}.")
        user, item = (heading.index(name) if name else i for i, name in enumerate(list(self.columns.values())[:2]))
        for line, row in rows:
            for setting, i in (("user", user), ("item", item)):
                if not row[i]:
                    raise DataError(
                        f"data.{setting}: no {setting} in line {line} of {self.path}. Write one, or remove the line."
                    )
        if self.columns["rating"] is not None:
            rating = heading.index(self.columns["rating"])
            for line, row in rows:
                if not to_number(row[rating]) > -float("inf"):
                    raise DataError(
                        f"data.rating: {row[rating]!r} in line {line} of {self.path} is not a number. "
                        "Write one, or remove the line."
                    )
            rows = [(line, row) for line, row in rows if float(row[rating]) >= self.min_rating]
        pairs = sorted({(row[user], row[item]) for _, row in rows})
        counts: dict[str, int] = {}
        for one, _ in pairs:
            counts[one] = counts.get(one, 0) + 1
        pairs = [pair for pair in pairs if counts[pair[0]] >= self.min_items]
        if counts and not pairs:
            most = max(counts.values())
            raise DataError(
                f"data.min_items={self.min_items}: no user has so many items. Set data.min_items={most} or less."
            )
        users, items = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
        numbers = [{name: i for i, name in enumerate(names)} for names in (users, items)]
        found = torch.tensor([[numbers[0][u], numbers[1][i]] for u, i in pairs], dtype=torch.int64).view(-1, 2)
        return found[:, 0], found[:, 1], items
