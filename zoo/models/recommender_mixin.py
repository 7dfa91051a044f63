"""Recommendation by names of items."""

import difflib

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.spaces import Interactions
from zoo.core.spec import DataSpec


class RecommenderMixin(L.LightningModule):
    """Adds `recommend` to a model that writes `score_items`."""

    spec: DataSpec

    def score_items(self, x: Tensor) -> Tensor:
        """Interactions (B, I) -> scores of all items (B, I), higher is better."""
        raise NotImplementedError

    @property
    def item_names(self) -> tuple[str, ...]:
        """Names of all items; their numbers if the space has no names."""
        space = self.spec.x
        assert isinstance(space, Interactions)
        return space.names or tuple(map(str, range(space.n_items)))

    @torch.no_grad()
    def recommend(self, items: list[str], k: int = 10) -> list[tuple[str, float]]:
        """The k best other items for a user of these items, each with its score, best first.

        Raises:
            ConfigError: an unknown item.
        """
        names = self.item_names
        number = {name: i for i, name in enumerate(names)}
        x = torch.zeros(1, len(names), device=self.device)
        for item in items:
            if item not in number:
                close = difflib.get_close_matches(item, names, n=3)
                hint = f", did you mean {' or '.join(map(repr, close))}?" if close else "."
                raise ConfigError(f"items={item}: unknown item{hint} Use items of the training data.")
            x[0, number[item]] = 1
        scores = self.score_items(x)[0].float().masked_fill(x[0] > 0, -torch.inf)
        best = scores.topk(min(k, len(names) - len(set(items))))
        return [(names[i], score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
