"""Chat templates: messages to one prompt.

A Hugging Face folder may bring a Jinja template, which is untrusted. It runs in Jinja's immutable sandbox, with bounds
on steps, ranges and sizes. A run whose data has a prompt template fills it with each user's message. Other models read
lines `role: content`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.data.text.templates import fill_prompt
from zoo.serve.errors import invalid

MAX_OUTPUT = 1_000_000  # characters
TURN_ENDS = ("\nuser:", "\nsystem:", "\nassistant:")  # stop sequences of the plain format


@dataclass(frozen=True)
class ChatTemplate:
    """Conversion of messages to a prompt.

    Args:
        kind: "huggingface", "run" or "plain".
        render: messages -> prompt.
        stop: stop sequences that end a turn.
    """

    kind: str
    render: Callable[[Sequence[dict[str, str]]], str]
    stop: tuple[str, ...] = ()


def template_of(model: Any, prompt: str) -> ChatTemplate:
    """The chat template of a model.

    Args:
        model: loaded.
        prompt: the prompt template of the data of its run, or nothing.
    """
    tokenizer = getattr(model, "tokenizer", None)
    files = getattr(tokenizer, "files", {})
    source = jinja_source(files)
    if source:
        special = getattr(tokenizer, "special", {})
        return ChatTemplate("huggingface", lambda messages: render_jinja(source, messages, special))
    if prompt:
        return ChatTemplate("run", lambda messages: render_run(prompt, messages))
    return ChatTemplate("plain", render_plain, TURN_ENDS)


def jinja_source(files: dict[str, str]) -> str:
    """The chat template among the files beside a tokenizer; nothing where there is none."""
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"]
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            found = json.loads(files.get(name, "{}")).get("chat_template")
        except (ValueError, AttributeError):
            continue
        if isinstance(found, list):  # several, by name
            named = {str(t.get("name")): t.get("template") for t in found if isinstance(t, dict)}
            found = named.get("default")
        if isinstance(found, str):
            return found
    return ""


def render_plain(messages: Sequence[dict[str, str]]) -> str:
    """Lines `role: content`, ending with `assistant:`."""
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"


def render_run(prompt: str, messages: Sequence[dict[str, str]]) -> str:
    """Messages in the prompt template of training; answers follow their prompts directly."""
    return "".join(fill_prompt(prompt, m["content"]) if m["role"] == "user" else m["content"] for m in messages)


def render_jinja(source: str, messages: Sequence[dict[str, str]], special: dict[str, str]) -> str:
    """Render an untrusted template.

    Raises:
        APIError: the template refuses the messages, is damaged, or exceeds its bounds.
    """
    from jinja2 import TemplateError

    from zoo.serve.jinja_sandbox import Sandbox

    try:
        text = Sandbox().from_string(source).render(messages=list(messages), add_generation_prompt=True, **special)
    except (
        TemplateError,
        ArithmeticError,
        RecursionError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:
        raise invalid(
            f"messages: the model's chat template refuses them ({error}). Change them.", "messages"
        ) from error
    if len(text) > MAX_OUTPUT:
        raise invalid("messages: the prompt is too long. Shorten them.", "messages")
    return text
