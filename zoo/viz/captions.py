"""Captions of held-out pictures, as text."""

from typing import Any

from zoo.core.registry import register
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsCaptioning
from zoo.viz.render import Shown, View, held_out

PICTURES = 8


@register("view", "captions")
class CaptionView(View):
    """Captions of held-out pictures, and the model's; an asterisk marks those that are equal."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that caption."""
        return supports(model, SupportsCaptioning) and isinstance(data.spec.condition, Tokens)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """Eight captions."""
        batch = held_out(data, PICTURES).to(model.device)
        lines = []
        for row, found in zip(batch.y.tolist(), model.caption(batch.x), strict=True):
            truth = model.tokenizer.decode([token for token in row if token >= 0])
            lines.append(f"caption    {truth}\ngenerated  {found}{' *' if found == truth else ''}")
        return {"samples": "\n\n".join(lines)}
