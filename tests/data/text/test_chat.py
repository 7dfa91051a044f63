"""Chats as text and as tokens: the plain form by hand, chat templates against `transformers`, untrusted templates."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import zoo
from tests.data.text.tokenizers.test_pretrained import write
from zoo.core.errors import DataError
from zoo.data.loader import make_generator
from zoo.data.text.chat import PLAIN, ChatTemplate, render_jinja, template_of
from zoo.data.text.instructions import Instructions
from zoo.data.text.prompts import targets
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.byte import Byte
from zoo.nn.samplers.rollout import prompt_examples

CHAT = [{"role": "user", "content": "hello"}]
TALK = [
    {"role": "system", "content": "be"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"},
]
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + '] ' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
WITHOUT_END = MARKED.replace(" + eos_token", "")


def data_of(path: Path, rows: list[dict[str, Any]], tokenizer: Any = None, **settings: Any):
    """Data whose three splits are these rows."""
    for split in ("train", "val"):
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: Any = Instructions(path=str(path), **{"tokenizer": "byte", "batch_size": 1, "context": 256, **settings})
    if tokenizer is not None:
        data.tokenizer, data.tokenizer_from_model = tokenizer, True
    data.setup()
    return data


def batch_of(data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return data.fetch(data.val, torch.arange(len(data.val[0])), make_generator(0), train=False)


# -- the plain form ------------------------------------------------------------------------------------------


def test_answers_alone_are_scored_each_with_its_end(tmp_path: Path) -> None:
    """By hand: ends are not among the inputs, as in the history that a server sends."""
    data = data_of(tmp_path, [{"messages": TALK}])
    x, y = batch_of(data)
    first, second = b"system:\nbe\nuser:\nhi\nassistant:\n", b"\nuser:\n1+1?\nassistant:\n"
    end = 256
    assert x[0].tolist() == [end, *first, *b"yo", *second, *b"2"]
    hidden = [-100]
    assert y[0].tolist() == (hidden * len(first) + [*b"yo", end] + hidden * (len(second) - 1) + [*b"2", end])
    questions = prompt_examples(x, y, end, end, packed=False)
    assert [bytes(q.prompt[1:]) for q in questions] == [first, first + b"yo" + second]
    assert [q.answer for q in questions] == [[*b"yo", end], [*b"2", end]]
    assert data.pairs("val") == [(first.decode(), "yo"), ((first + b"yo" + second).decode(), "2")]
    assert data.details["format"] == "OpenAI messages, by the plain chat template"
    assert (
        data.details["rows"] == f"1 for training, {len(x[0])} tokens, longest {len(x[0])}, {5 / len(x[0]):.1%} scored"
    )


def test_the_prompts_of_training_are_those_of_serving(tmp_path: Path) -> None:
    data = data_of(tmp_path, [{"messages": TALK}])
    restored = loads(data.spec.tokens.tokenizer)
    template = template_of(restored)
    assert template.kind == "plain"
    assert [prompt for prompt, _ in data.pairs("val")] == [template.render(TALK[:2]), template.render(TALK[:4])]
    assert restored.encode_prompt(template.render(TALK[:4])) == batch_of(data)[0][0].tolist()[:-1]


def test_a_chat_of_one_turn_is_the_prompt_and_the_answer_that_it_stands_for(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]} for n in "ab"
    ]
    texts = [{"prompt": f"user:\n{n}?\nassistant:\n", "response": f"{n}!"} for n in "ab"]
    (tmp_path / "chat").mkdir()
    (tmp_path / "text").mkdir()
    chat, text = data_of(tmp_path / "chat", rows), data_of(tmp_path / "text", texts)
    for one, two in zip(batch_of(chat), batch_of(text), strict=True):
        assert torch.equal(one, two)
    assert [template_of(loads(d.spec.tokens.tokenizer)).kind for d in (chat, text)] == ["plain", "run"]
    assert template_of(loads(text.spec.tokens.tokenizer)).render(CHAT) == "hello", "as they are, in training and after"


def test_jinja_writes_the_plain_form_too() -> None:
    assert render_jinja(PLAIN, TALK[:4], {}) == template_of(Byte()).render(TALK[:4])


def test_turns_of_packed_rows_see_each_other_and_not_other_rows(tmp_path: Path) -> None:
    """The loss of packed chats is that of single ones; with the turns of a chat apart it would be another."""
    rows = [{"messages": [*TALK[1:], {"role": "user", "content": n}, TALK[2]]} for n in "abc"]
    alone, packed = (data_of(tmp_path, rows, packing=packing) for packing in (False, True))
    torch.manual_seed(0)
    size = {"d_model": 16, "n_layers": 2, "n_heads": 2}
    model: Any = zoo.create_model("gpt", data=alone.spec, backbone=size, document_mask=True).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    packed.check_model(model)
    whole = packed.fetch(packed.train, torch.arange(1), make_generator(0), train=False)
    assert len(packed.train[0]) == 1
    loss = model.loss(batch_of(alone))["loss"]
    torch.testing.assert_close(model.loss(whole)["loss"], loss, atol=1e-5, rtol=1e-5)
    x, y = (part.clone() for part in whole)
    x[0, (y[0] == 256).nonzero().flatten()] = 256  # ends among the inputs would hide the turns before
    assert abs(model.loss((x, y))["loss"] - loss) > 1e-3, "the test could not tell"


def test_the_oldest_turns_are_left_out_then_the_beginning_of_the_prompt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.context=40: line 1 of .*data.truncate=true"):
        data_of(tmp_path, [{"messages": TALK}], context=40)
    x, y = batch_of(data_of(tmp_path, [{"messages": TALK}], context=40, truncate=True))
    assert x[0].tolist() == [256, *b"\nuser:\n1+1?\nassistant:\n2"]
    assert y[0, -2:].tolist() == [*b"2", 256]
    data = data_of(tmp_path, [{"messages": TALK}], context=14, truncate=True)
    assert batch_of(data)[0][0].tolist() == [256, *b"\nassistant:\n2"]
    assert "1 cut" in data.details["rows"]


def test_chats_that_begin_alike_are_not_all_in_one_split(tmp_path: Path) -> None:
    """Many begin with the same greeting of the assistant."""
    chats = [[TALK[2], {"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "ok"}] for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats * 2))
    data = Instructions(path=str(tmp_path / "a.jsonl"), tokenizer="byte", batch_size=1)
    data.setup()
    splits = [[pair for pair in data.pairs(split) if pair[1] == "ok"] for split in ("train", "val", "test")]
    assert all(splits)
    assert sum(len(set(split)) for split in splits) == 30, "equal chats are in one split"


def test_parts_without_a_token() -> None:
    assert targets([[1], [2], [], [3]], 9, [9]) == ([1, 2, 3], [2, 3, 9]), "an answer directly after another"
    assert targets([[1], [2, 9], [4], [3]], 9, [9]) == ([1, 2, 9, 4, 3], [2, 9, -100, 3, 9]), "an end that is there"
    assert targets([[1], [], [4], [3]], 9, [9]) == ([1, 4, 3], [9, 3, 9]), "an empty answer"


# -- chat templates of pretrained tokenizers -----------------------------------------------------------------


def pretrained(path: Path, template: str, kind: str = "llama3"):
    """A tokenizer with a chat template, ours and that of `transformers`."""
    special = {"bos_token": "<|begin|>", "eos_token": "<|end|>"} if kind == "llama3" else {"eos_token": "<|end|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special, "chat_template": template}
    ours = write(path, kind, **{"tokenizer_config.json": config})
    return ours, transformers.AutoTokenizer.from_pretrained(path)


def theirs_of(theirs: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    found = theirs.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return found["input_ids"], found["assistant_masks"]


@pytest.mark.parametrize("template", [MARKED, UNMARKED, WITHOUT_END], ids=["marked", "unmarked", "without end"])
def test_ids_and_scored_tokens_are_those_of_transformers(template: str, tmp_path: Path) -> None:
    ours, theirs = pretrained(tmp_path, template)
    marks = pretrained(tmp_path, MARKED)[1] if template == UNMARKED else theirs  # they need marks
    data = data_of(tmp_path, [{"messages": TALK}], ours)
    x, y = (part[0].tolist() for part in batch_of(data))
    ids, mask = theirs_of(marks, TALK)
    last = max(i for i, scored in enumerate(mask) if scored)
    assert x == (ids[: last + 1] if template != UNMARKED else ids)
    shifted = [i if scored else -100 for i, scored in zip(ids[1:], mask[1:], strict=True)]
    if template == MARKED:
        assert y == [*shifted[:last], -100], "the end is the template's"
    elif template == WITHOUT_END:
        ends = [i for i in range(len(mask)) if mask[i] and not (mask[i + 1 :] or [0])[0]]
        assert y == [ours.end if i in ends else token for i, token in enumerate([*shifted[:last], -100])]
    else:  # the line feed after an answer belongs to what its message adds
        wanted = [*shifted, -100]
        for i, (one, two) in enumerate(zip(wanted, y, strict=True)):
            assert one == two or (one == -100 and ids[i + 1] == ours.encode("\n")[0] and ids[i] == ours.end)
    prompt = theirs.apply_chat_template(TALK[:4], add_generation_prompt=True, return_dict=True)["input_ids"]
    restored = loads(dumps(data.tokenizer))
    assert restored.encode_prompt(template_of(restored).render(TALK[:4])) == prompt == x[: len(prompt)]


def test_a_template_that_drops_a_turn_has_other_ids_or_is_refused(tmp_path: Path) -> None:
    ours, _ = pretrained(tmp_path, MARKED.replace("in messages %}", "in messages[1:] %}", 1))
    _, theirs = pretrained(tmp_path, MARKED)
    data = data_of(tmp_path, [{"messages": TALK}], ours)
    assert batch_of(data)[0][0].tolist() != theirs_of(theirs, TALK)[0][: len(batch_of(data)[0][0])]
    last_only = "in messages if m.content != 'yo' or messages | length < 5 %}"
    for template, said in ((MARKED, "marks 1 of 2 answers"), (UNMARKED, "does not continue a chat by adding text")):
        ours, _ = pretrained(tmp_path, template.replace("in messages %}", last_only, 1))
        with pytest.raises(DataError, match=rf"line 1 of .*train.jsonl: .*{said}"):
            data_of(tmp_path, [{"messages": TALK}], ours)


def test_turns_that_the_mask_of_documents_would_separate_are_refused(tmp_path: Path) -> None:
    """The end of a turn also begins a text here."""
    ours, _ = pretrained(tmp_path, MARKED, "gpt2")
    data = data_of(tmp_path, [{"messages": TALK}], ours)
    assert data.tokenizer.begin == data.tokenizer.end

    class Masks:
        registered_name, masks_documents = "masks", True

    with pytest.raises(DataError, match="the chat template writes the token that separates rows between turns"):
        data.check_model(Masks())
    Masks.masks_documents = False
    data.check_model(Masks())
    x, y = batch_of(data)
    whole, cut = (prompt_examples(x, y, ours.begin, ours.end, packed=packed)[1].prompt for packed in (False, True))
    assert ours.decode(whole).startswith("[system] be")
    assert len(cut) < len(whole), "the control: as a packed row, the history would be lost"


# -- untrusted templates -------------------------------------------------------------------------------------
class Folder:
    """A tokenizer of an untrusted folder."""

    special = {"bos_token": "<s>"}  # noqa: RUF012
    chat_format = ""

    def __init__(self, template: str) -> None:
        self.files = {"tokenizer_config.json": json.dumps({"chat_template": template})}


def template(text: str) -> ChatTemplate:
    return template_of(Folder(text))  # type: ignore[arg-type]


ATTACKS = [
    "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__.__base__ }}",
    "{% for x in range(99999999) %}{% endfor %}",
    "{% set r = range(90000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'a' * 100000000 }}",
    "{{ 9 ** 99999999 }}",
    "{{ '%99999999d' % 1 }}",
    "{{ 'a'.center(99999999) }}",
    "{{ '{:99999999}'.format('a') }}",
    "{{ '%*d' % (99999999, 1) }}",
    "{{ '{:{}}'.format('a', 99999999) }}",
    "{% include '/etc/passwd' %}",
    "{{ messages.append(1) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ raise_exception('no') }}",
    "{{ unclosed",
]


HARMLESS = ["{{ '{0.__class__}'.format(messages) }}", "{{ self._TemplateReference__context }}"]


@pytest.mark.parametrize("text", HARMLESS)
def test_a_chat_template_cannot_see_code(text):
    assert template(text).render(CHAT) == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ATTACKS)
def test_a_chat_template_cannot_run_code(text):
    with pytest.raises(DataError, match="chat template refuses"):
        template(text).render(CHAT)


def test_a_usual_chat_template_is_rendered():
    text = (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert template(text).render(CHAT) == "<s><|user|>hello\n<|assistant|>"
    assert template(text).kind == "huggingface"
