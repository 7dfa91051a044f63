"""Chats as text, for training and for generation.

A chat template of a Hugging Face folder is untrusted. It runs in Jinja's immutable sandbox, with bounds on steps,
ranges and sizes. Models without one read and write

    user:
    1+1?
    assistant:
    2

where the end of text follows an answer. It is a target only: it is not among the tokens that the next turn reads. A run
whose data have a prompt template fills it with each user's message.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from zoo.core.errors import DataError
from zoo.data.text.templates import fill_prompt
from zoo.data.text.tokenizers.base import Tokenizer
from zoo.data.text.tokenizers.pretrained import Pretrained

MAX_OUTPUT = 1_000_000  # characters
MARKS = "\ufdd0", "\ufdd1"  # around answers; Unicode reserves them for uses inside programs
TURN_ENDS = ("\nuser:\n", "\nsystem:\n", "\nassistant:\n")  # stop sequences of the plain form
PLAIN = (  # the plain form in Jinja, for other programs
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
Message = Mapping[str, str]  # role and content


@dataclass(frozen=True)
class ChatTemplate:
    """Conversion of messages to text.

    Args:
        kind: "huggingface", "run" or "plain".
        source: in Jinja, or the prompt template of a run.
        special: names of special tokens and their texts, for Jinja.
    """

    kind: Literal["huggingface", "run", "plain"]
    source: str = ""
    special: Mapping[str, str] = field(default_factory=dict)

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop sequences that end a turn."""
        return TURN_ENDS if self.kind == "plain" else ()

    def render(self, messages: Sequence[Message]) -> str:
        """Write messages as a prompt, after which an answer begins.

        Raises:
            DataError: the template refuses the messages, is damaged, or exceeds its bounds.
        """
        if self.kind == "huggingface":
            return render_jinja(self.source, messages, self.special)
        if self.kind == "plain":
            return "".join(f"{m['role']}:\n{m['content']}\n" for m in messages) + "assistant:\n"
        filled = {"user": self.source}  # other roles are written as they are
        return "".join(fill_prompt(filled.get(m["role"], ""), m["content"]) for m in messages)

    def parts(self, messages: Sequence[Message], scored: Collection[int]) -> list[str]:
        """Cut the text of a chat in parts, of which the second, the fourth ... are scored.

        The text after the last scored part is left out.

        Args:
            messages: the chat.
            scored: numbers of the messages to learn, which are answers of the assistant.

        Raises:
            DataError: the template refuses the messages, or does not show where an answer is.
        """
        if self.kind == "huggingface":
            text, spans = jinja_spans(self.source, messages, self.special)
        else:
            text, spans = plain_spans(messages)
        found, done = list[str](), 0
        for number in sorted(scored):
            begin, end = spans[number]
            found += [text[done:begin], text[begin:end]]
            done = end
        return found


def template_of(tokenizer: Tokenizer | None, prompt: str = "") -> ChatTemplate:
    """The chat template of a model.

    Args:
        tokenizer: of the model.
        prompt: the prompt template of the data of its run, or nothing.
    """
    if prompt or (tokenizer is not None and tokenizer.chat_format == "text"):
        return ChatTemplate("run", prompt)
    source = jinja_source(getattr(tokenizer, "files", {}))
    return ChatTemplate("huggingface", source, getattr(tokenizer, "special", {})) if source else ChatTemplate("plain")


def jinja_source(files: Mapping[str, str]) -> str:
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


def plain_spans(messages: Sequence[Message]) -> tuple[str, dict[int, tuple[int, int]]]:
    """The plain form of a chat, and the begin and end of each content."""
    text, spans = "", {}
    for number, message in enumerate(messages):
        text += f"{message['role']}:\n"
        spans[number] = len(text), len(text) + len(message["content"])
        text += f"{message['content']}\n"
    return text, spans


def jinja_spans(
    source: str, messages: Sequence[Message], special: Mapping[str, str]
) -> tuple[str, dict[int, tuple[int, int]]]:
    """A chat by a Jinja template, and the begin and end of each answer of the assistant.

    `{% generation %}` of the template marks answers. Without it, an answer is what its message adds to the prompt.

    Raises:
        DataError: the template refuses the messages, or writes the beginning of a chat in another way than the whole.
    """
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if any(mark in message["content"] for message in messages for mark in MARKS):
        raise DataError("messages: contain U+FDD0 or U+FDD1, which are not characters. Remove them.")
    marked = render_jinja(source, messages, special, prompt=False, marks=True)
    pieces = marked.replace(MARKS[1], MARKS[0]).split(MARKS[0])
    text = "".join(pieces)
    if len(pieces) > 1:
        if len(pieces) // 2 != len(answers):
            raise DataError(
                f"messages: the model's chat template marks {len(pieces) // 2} of {len(answers)} answers. "
                "Set data.prompt and data.response, or repair the template."
            )
        ends = [sum(map(len, pieces[:n])) for n in range(1, len(pieces))]
        return text, dict(zip(answers, zip(ends[::2], ends[1::2], strict=True), strict=True))
    spans = {}
    for number in answers:
        before = render_jinja(source, messages[:number], special)
        after = render_jinja(source, messages[: number + 1], special, prompt=False)
        if not (after.startswith(before) and text.startswith(after)):
            raise DataError(
                "messages: the model's chat template does not continue a chat by adding text, so answers cannot be "
                "found. Mark them by {% generation %} in the template."
            )
        spans[number] = len(before), len(after)
    return text, spans


def render_jinja(
    source: str, messages: Sequence[Message], special: Mapping[str, str], *, prompt: bool = True, marks: bool = False
) -> str:
    """Render an untrusted template.

    Args:
        source: of the template.
        messages: the chat.
        special: names of special tokens and their texts.
        prompt: end with the beginning of an answer.
        marks: put marks around the answers that the template encloses in `{% generation %}`.

    Raises:
        DataError: the template refuses the messages, is damaged, or exceeds its bounds.
    """
    from jinja2 import TemplateError

    try:
        template = compiled(source, marks)
        template.environment.steps = 0
        text: str = template.render(messages=list(messages), add_generation_prompt=prompt, **special)
    except (
        TemplateError,
        ArithmeticError,
        RecursionError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:
        raise DataError(f"messages: the model's chat template refuses them ({error}). Change them.") from None
    if len(text) > MAX_OUTPUT:
        raise DataError("messages: the prompt is too long. Shorten them.")
    return text


@lru_cache(8)
def compiled(source: str, marks: bool) -> Any:
    """An untrusted template in its sandbox."""
    from zoo.data.text.jinja_sandbox import Sandbox

    return Sandbox(MARKS if marks else ("", "")).from_string(source)


def encode_parts(tokenizer: Tokenizer, parts: Sequence[str]) -> list[list[int]]:
    """Encode a prompt and the parts after it, for training.

    Parts are encoded one by one, so that generation starts at a token boundary. A chat by the template of a pretrained
    tokenizer is encoded as a whole, as `transformers` does. There, a token on a boundary belongs to the scored part.
    """
    if not (isinstance(tokenizer, Pretrained) and tokenizer.chat_format == "chat" and jinja_source(tokenizer.files)):
        first, *others = parts
        return [tokenizer.encode_prompt(first), *(tokenizer.encode_continuation(part) for part in others)]
    ids, places = tokenizer.encode_with_places("".join(parts))
    before = tokenizer.affixes[0] if ids[:1] != tokenizer.affixes[0][:1] else []
    found, done, begin = [], 0, 0
    for number, part in enumerate(parts):
        end = begin + len(part)
        if number % 2:  # scored: up to the token with its last character
            stop = next((i for i in range(done, len(ids)) if places[i][0] >= end), len(ids))
        else:  # up to the token with the first character of the next part
            stop = next((i for i in range(done, len(ids)) if places[i][1] > end), len(ids))
        found.append(ids[done:stop])
        done, begin = stop, end
    return [[*before, *found[0]], *found[1:]]
