"""Users and their items, split by users for strong generalisation."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.spaces import Interactions
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import make_generator

HELD_SHARE = 0.2  # of the items of a held-out user


@dataclass(frozen=True)
class ItemLists:
    """Lists of items of N users, one after another.

    Args:
        items: of all users, int64 (M,).
        starts: where the list of each user begins, and the end, int64 (N + 1,).
    """

    items: Tensor
    starts: Tensor

    @classmethod
    def of(cls, users: Tensor, items: Tensor, n_users: int) -> "ItemLists":
        """Sort interactions, given as users (M,) from 0 and items (M,)."""
        order = torch.argsort(users, stable=True)
        counts = torch.bincount(users, minlength=n_users)
        return cls(items[order], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))

    def dense(self, rows: Tensor, n_items: int) -> Tensor:
        """Interactions of users (B,): zeros and ones (B, n_items)."""
        begin = self.starts[rows]
        sizes = self.starts[rows + 1] - begin
        row = torch.repeat_interleave(torch.arange(len(rows)), sizes)
        first = torch.repeat_interleave(begin - (sizes.cumsum(0) - sizes), sizes)
        x = torch.zeros(len(rows), n_items)
        x[row, self.items[first + torch.arange(len(row))]] = 1
        return x


class InteractionData(DataModule):
    """Implicit feedback, split by users (strong generalisation; Marlin 2004, Liang et al. 2018, arXiv:1802.05814).

    All items of the training users are known. Of a held-out user, x has 80 % of the items, drawn at random, and y the
    others, at least one. A model sees x, and its ranking is compared with y. Items that no training user has are left
    out. The splits do not depend on `seed`.

    A subclass writes `read`.

    Args:
        batch_size: users per batch.
        seed: seed of the training order.
        held_users: users of the validation split, and as many of the test split; None is one in ten.

    Raises:
        DataError: too few users.
    """

    def __init__(self, batch_size: int, seed: int, held_users: int | None = None) -> None:
        super().__init__(batch_size, seed)
        self.held_users = held_users

    def read(self) -> tuple[Tensor, Tensor, list[str]]:
        """Users from 0 (M,) and items from 0 (M,) of distinct interactions, and the names of the items."""
        raise NotImplementedError

    @cached_property
    def content(self) -> tuple[ItemLists, ItemLists, list[Tensor], list[str]]:
        """Items that are given and items that are held out of every user, users of the splits, names of the items."""
        users, items, names = self.read()
        n = int(users.max()) + 1 if len(users) else 0
        held = n // 10 if self.held_users is None else self.held_users
        if held < 2 or n - 2 * held < 2:
            raise DataError(
                f"data={self.registered_name}: {counted(n, 'user')}, too few to hold out {held} twice. "
                "Give more users, or set data.held_users."
            )
        order = torch.randperm(n, generator=make_generator(0))
        place = torch.empty_like(order)  # 0 for a training user
        place[order] = (torch.arange(n) >= n - 2 * held).long()
        known = torch.zeros(len(names), dtype=torch.bool)
        known[items[place[users] == 0]] = True
        kept = known[items]
        number = known.cumsum(0) - 1
        users, items = users[kept], number[items[kept]]
        rank, size = ranks(users, n)
        n_held = (HELD_SHARE * size).long().clamp(min=1)  # of each user
        away = (place[users] == 1) & (rank < n_held[users])
        given, held_out = (ItemLists.of(users[part], items[part], n) for part in (~away, away))
        splits = list(order.split([n - 2 * held, held, held]))
        for i in (1, 2):
            splits[i] = splits[i][size[splits[i]] > 1]  # one item to read, and one to predict
            if len(splits[i]) < 2:
                raise DataError(
                    f"data={self.registered_name}: too few held-out users with known items. Give more data."
                )
        return given, held_out, splits, [name for name, yes in zip(names, known.tolist(), strict=True) if yes]

    @property
    def spec(self) -> DataSpec:
        """Interactions with the items of the training users."""
        names = self.content[3]
        return DataSpec(Interactions(len(names), tuple(names)), name=self.registered_name)

    def load(self) -> None:
        """Split the users."""
        splits: list[Split] = [(rows, rows) for rows in self.content[2]]  # numbers of users (N,)
        self.train, self.val, self.test = splits

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Items to read and items to predict, zeros and ones (B, I); both are all items of a training user."""
        rows, n_items = split[0][indices], len(self.content[3])
        x = self.content[0].dense(rows, n_items)
        return x, x if split is self.train else self.content[1].dense(rows, n_items)


def ranks(users: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """A random place, from 0, of each interaction among those of its user (M,), and interactions of each user (n,)."""
    order = torch.randperm(len(users), generator=make_generator(1))
    order = order[torch.argsort(users[order], stable=True)]
    size = torch.bincount(users, minlength=n)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(users)) - torch.repeat_interleave(size.cumsum(0) - size, size)
    return rank, size
