"""Questions about held-out pictures with answers, as text."""

from typing import Any

from zoo.core.registry import register
from zoo.core.spaces import Questions
from zoo.data.base import DataModule
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsQuestionAnswering
from zoo.viz.render import Shown, View, held_out

PICTURES = 4


@register("view", "answers")
class AnswerView(View):
    """Questions about held-out pictures, with the true answers and the model's; an asterisk marks right ones."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that answer."""
        return supports(model, SupportsQuestionAnswering) and isinstance(data.spec.condition, Questions)

    def show(self, model: Any, data: DataModule) -> dict[str, Shown]:
        """All questions about four pictures."""
        batch = held_out(data, PICTURES).to(model.device)
        found = model.answer_tokens(batch.x, batch.y[..., :-1])
        pages = []
        for rows, answers in zip(batch.y.tolist(), found.tolist(), strict=True):
            lines = []
            for (*question, truth), answer in zip(rows, answers, strict=True):
                asked = model.tokenizer.decode([token for token in question if token >= 0])
                true, given = (model.tokenizer.decode([token]).strip() for token in (truth, answer))
                lines.append(f"{asked} {true}, answered {given}{' *' if given == true else ''}")
            pages.append("\n".join(lines))
        return {"samples": "\n\n".join(pages)}
