"""Synthetic implicit feedback with known probabilities."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.interactions.base import InteractionData
from zoo.data.loader import make_generator

GENRES = ("ballad", "blues", "choir", "folk", "jazz", "opera", "punk", "rock", "soul", "techno")
PER_GENRE = 30
MIXED = 0.1  # share of choices by popularity alone
CONCENTRATION = 0.2  # of the Dirichlet distribution over genres: most users like one to three
LEAST, MOST = 8, 30  # items of a user


@register("data", "synthetic_interactions")
class SyntheticInteractions(InteractionData):
    """Synthetic implicit feedback: 2,000 users of 300 songs in ten genres, with known probabilities.

    A user has a taste, a Dirichlet-distributed mixture of genres, and chooses 8 to 30 different songs. One choice in
    ten ignores the taste. Within a genre, the popularity of songs follows Zipf's law; genres differ in popularity too.
    See `zoo.data.interactions.base.InteractionData` for the splits.

    Args:
        n_users: number of users.
        batch_size: users per batch.
        seed: seed of the training order; the data do not depend on it.
    """

    licence = "generated"

    def __init__(self, *, n_users: PositiveInt = 2000, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.n_users = n_users

    def tastes(self) -> Tensor:
        """Probability of each song for each user (N, 300), which every choice follows."""
        draw = torch.distributions.Dirichlet(torch.full((len(GENRES),), CONCENTRATION))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            mixture = draw.sample((self.n_users,))  # (N, genres)
        within = 1 / torch.arange(1, PER_GENRE + 1)
        songs = torch.block_diag(*[within / within.sum()] * len(GENRES))  # (genres, 300)
        share = 1 / torch.arange(1, len(GENRES) + 1)
        popular = (share / share.sum()) @ songs
        return (1 - MIXED) * mixture @ songs + MIXED * popular

    def read(self) -> tuple[Tensor, Tensor, list[str]]:
        """Draw the songs of all users without replacement, by adding Gumbel noise to the log-probabilities."""
        generator = make_generator(2)
        tastes = self.tastes()
        sizes = torch.randint(LEAST, MOST + 1, (self.n_users,), generator=generator)
        noise = -torch.empty_like(tastes).exponential_(generator=generator).log()
        order = (tastes.log() + noise).argsort(1, descending=True)
        chosen = torch.arange(order.shape[1]) < sizes[:, None]
        users = chosen.nonzero()[:, 0]
        return users, order[chosen], [f"{genre}_{i + 1}" for genre in GENRES for i in range(PER_GENRE)]
