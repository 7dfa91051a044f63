"""Recommendations for held-out users, as text."""

from typing import Any

import torch

from zoo.core.registry import register
from zoo.core.spaces import Interactions
from zoo.data.base import DataModule
from zoo.models.abilities import SupportsRecommendation
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.viz.render import Shown, View, held_out

USERS, ITEMS = 6, 10


@register("view", "recommendations")
class RecommendationView(View):
    """Items of held-out users, and the items that the model ranks first; an asterisk marks those that they chose."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that recommend."""
        return supports(model, SupportsRecommendation) and isinstance(data.spec.x, Interactions)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Six users."""
        batch = held_out(data, USERS).to(model.device)
        names = model.item_names
        best = model.score_items(batch.x).float().masked_fill(batch.x > 0, -torch.inf).topk(min(ITEMS, len(names)))
        lines = []
        for given, wanted, items in zip(batch.x, batch.y, best.indices.tolist(), strict=True):
            known = [names[i] for i in given.nonzero()[:ITEMS, 0].tolist()]
            ranked = [names[i] + "*" * int(wanted[i]) for i in items]
            lines.append(f"items   {', '.join(known)}\nranked  {', '.join(ranked)}")
        return {"samples": "\n\n".join(lines)}
