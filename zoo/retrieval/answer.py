"""Answers of a text model to questions, from passages that an index finds (Lewis et al. 2020, arXiv:2005.11401)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.core.errors import ConfigError
from zoo.models.abilities import SupportsTextGeneration, require_tokenizer
from zoo.models.ability import supports
from zoo.retrieval.index import Hit

TEMPLATE = "{passages}\n\nQuestion: {question}\nAnswer:"
PASSAGE = "[{number}] {text}"


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Args:
        text: of the model.
        sources: passages in its prompt, in the order of their numbers.
        prompt: of the model.
        left_out: number of passages that the context has no room for.
    """

    text: str
    sources: tuple[Hit, ...]
    prompt: str
    left_out: int


def fill(template: str, question: str, passages: Sequence[Hit]) -> str:
    """The prompt: numbered passages, and the question.

    Raises:
        ConfigError: a template without one of the two places.
    """
    if "{passages}" not in template or "{question}" not in template:
        raise ConfigError(f"template={template!r}: needs {{passages}} and {{question}}. Add them.")
    texts = [PASSAGE.replace("{number}", str(i)).replace("{text}", hit.text) for i, hit in enumerate(passages, 1)]
    before, _, after = template.partition("{passages}")
    return "\n\n".join(texts).join([part.replace("{question}", question) for part in (before, after)])


def answer(
    model: Any,
    question: str,
    passages: Sequence[Hit],
    *,
    max_new_tokens: int = 64,
    template: str = TEMPLATE,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """Generate an answer from passages, best first; the last ones are left out until the prompt fits the context.

    Args:
        model: of text.
        question: of the user.
        passages: that a search found.
        max_new_tokens: of the answer; room for them is kept.
        template: with the places {passages} and {question}.
        seed: of the sampling.
        **options: of the model's `generate`.

    Raises:
        ConfigError: the model does not generate text, or its context has no room for the question.
    """
    if not supports(model, SupportsTextGeneration):
        raise ConfigError(f"model={model.registered_name}: does not generate text. Use a language model.")
    tokenizer, room = require_tokenizer(model), model.spec.tokens.length - max_new_tokens
    for number in range(len(passages), -1, -1):
        prompt = fill(template, question, passages[:number])
        if len(tokenizer.encode_prompt(prompt)) <= room:
            break
    else:
        raise ConfigError(
            f"question={question!r}: with an answer of {max_new_tokens} tokens, longer than the context of "
            f"{model.spec.tokens.length}. Shorten it, or lower max_new_tokens."
        )
    (done,) = model.generate([prompt], max_new_tokens=max_new_tokens, seed=seed, **options)
    return Answer(done.text.strip(), tuple(passages[:number]), prompt, len(passages) - number)
