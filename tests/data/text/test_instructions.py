"""Prompts with answers: scored tokens, truncation, files, errors, and packing that changes nothing."""

import json
import re
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import Preference, Tokens
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.text.prompts import PromptResponseData, Row, pack
from zoo.data.text.templates import fill_prompt, render_template
from zoo.nn.samplers.rollout import prompt_examples

SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2}
ROWS = [(f"{'ab' * (n % 5)}{n}?", f"{'x' * (n % 7)}{n}!") for n in range(200)]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", [{"prompt": p, "response": r, "n": i} for i, (p, r) in enumerate(ROWS)])


def instructions(file: Path, name: str = "instructions", **settings: Any) -> Any:
    data: Any = zoo.create_data(
        name, path=str(file), **{"batch_size": 4, "tokenizer": "char", "context": 32, **settings}
    )
    data.setup()
    return data


def everything(data: Any, split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    held = getattr(data, split)
    return data.fetch(held, torch.arange(len(held[0])), make_generator(0), train=False)


def read(data: Any, split: str = "train") -> list[tuple[str, str]]:
    """Read prompts and answers from the batches."""
    end = data.tokenizer.end
    found = prompt_examples(*everything(data, split), end, end)
    assert all(q.prompt[0] == q.answer[-1] == end for q in found)
    return [(data.tokenizer.decode(q.prompt), data.tokenizer.decode(q.answer)) for q in found]


def test_batches_hold_the_written_rows(file: Path) -> None:
    data = instructions(file)
    splits = [read(data, split) for split in ("train", "val", "test")]
    assert sorted(chain(*splits)) == sorted(ROWS)
    assert all(len(split) > 3 for split in splits)
    prompts = [{p for p, _ in split} for split in splits]
    assert len(set().union(*prompts)) == sum(map(len, prompts)), "no prompt is in two splits"
    x, y = everything(data)
    assert (y >= 0).any(1).all(), "every row has something to learn"
    assert x.dtype == y.dtype == torch.int64
    assert 0 <= x.min() <= x.max() < data.spec.tokens.vocab_size


def test_batches_are_as_long_as_their_longest_row(file: Path) -> None:
    data = instructions(file)
    longest = [1 + len(p) + len(r) for p, r in read(data)]
    x, y = data.fetch(data.train, torch.tensor([0, 1]), make_generator(0), train=True)
    assert x.shape == y.shape == (2, max(longest[:2]))
    one, scored = data.fetch(data.train, torch.tensor([1]), make_generator(0), train=True)
    assert torch.equal(one[0], x[1, : one.shape[1]])
    assert torch.equal(scored[0], y[1, : one.shape[1]])
    assert (y[1, one.shape[1] :] == -100).all()


def test_little_is_padded(file: Path) -> None:
    """Rows of a batch have similar lengths, and each occurs once per epoch."""
    data = instructions(file, batch_size=8)
    sizes = [(int((y >= 0).any(1).sum()), x.shape[1], x) for x, y in data.train_dataloader()]
    assert sum(n for n, _, _ in sizes) == len(data.train[0]) // 8 * 8
    rows = len(sizes) * 8
    real = sum(int(length) for length in data.train[0][:, 0, 1])
    assert sum(8 * width for _, width, _ in sizes) < 1.15 * real * rows / len(data.train[0])
    shuffled = torch.randperm(len(data.train[0]), generator=make_generator(1))[:rows].view(-1, 8)
    plain = sum(8 * data.fetch(data.train, i, make_generator(0), train=True)[0].shape[1] for i in shuffled)
    assert plain > 1.2 * real * rows / len(data.train[0]), "the test could not tell"


def test_padding_changes_nothing(file: Path) -> None:
    """The loss of a row is the same alone and next to a longer one."""
    data = instructions(file)
    torch.manual_seed(0)
    model = zoo.create_model("gpt", data=data.spec, backbone=SMALL).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, y = everything(data)
    together = model.token_nll(Batch(x, y))[0].sum(1)
    for row in (0, 3, 50):
        alone = model.token_nll(data.fetch(data.train, torch.tensor([row]), make_generator(0), train=True))[0].sum()
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_packed_rows_are_learned_as_if_alone(file: Path, positions: str) -> None:
    """With a document mask loss and gradients are the same; without it they differ."""
    alone, packed = instructions(file), instructions(file, packing=True)
    assert sorted(read(packed)) == sorted(read(alone))
    x, y = everything(packed)
    assert len(x) < len(everything(alone)[0]) / 2
    results = []
    for document_mask in (True, False):
        torch.manual_seed(0)
        backbone = {**SMALL, "position_encoding": positions}
        model = zoo.create_model("gpt", data=alone.spec, backbone=backbone, document_mask=document_mask).eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.3)
        for batch in ((x, y), everything(alone)):
            loss = model.loss(batch)["loss"]
            grads = torch.autograd.grad(loss, list(model.parameters()))
            results.append((loss.item(), torch.cat([g.flatten() for g in grads])))
    (one, g1), (two, g2), (other, _), _ = results
    assert one == pytest.approx(two, abs=1e-5)
    torch.testing.assert_close(g1, g2, atol=1e-5, rtol=1e-4)
    assert abs(other - two) > 1e-3, "the test could not tell"


def test_windows_hold_whole_rows_and_few_are_needed() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 33, (300,)).tolist()
    pieces = [(torch.full((n,), i), torch.full((n,), i)) for i, n in enumerate(lengths)]
    windows = [x.tolist() for x, _ in pack(pieces, 32)]
    assert sorted(chain(*windows)) == sorted(i for i, n in enumerate(lengths) for _ in range(n))
    assert max(map(len, windows)) <= 32
    for window in windows:
        assert len(window) == sum(lengths[i] for i in set(window)), "no row is cut"
    assert len(windows) <= 11 / 9 * -(-sum(lengths) // 32) + 1
    assert [x.tolist() for x, _ in pack(pieces, 32)] == windows


def test_templates_make_prompts_of_fields(tmp_path: Path) -> None:
    rows = [{"de": f"Satz {n}", "en": f"sentence {n}", "by": 7} for n in range(60)]
    file = written(tmp_path / "t.jsonl", rows)
    data = instructions(file, prompt="Translate ({by}): {de}\n", response="en", context=64)
    assert sorted(chain(*(read(data, s) for s in ("train", "val", "test")))) == sorted(
        (f"Translate (7): {row['de']}\n", str(row["en"])) for row in rows
    )


ROW = {"user-text": "u", "a b": "s", "x.y": "dot", "n": None, "messages": [{"role": "user", "content": "hi"}],
       "deep": {"er": {"7": "seven"}}, "empty": "", "Is it?": "yes", "f": 1.5, "t": True, "{": "brace"}  # fmt: skip
TEMPLATES = {
    "{user-text}|{a b}|{x.y}": "u|s|dot",  # any key
    "{messages[0][content]} {messages.0.role}": "hi user",
    "{deep[er][7]} {deep.er.7}": "seven seven",
    "{Is it?}": "yes",
    "{none?}[{n?}][{empty?x}]{n?no input}": "[][]no input",
    "{{user-text}} {{{f}}} }": "{user-text} {1.5} }",
    "a\\n{f}\\t\\\\n": "a\n1.5\t\\n",  # as typed on a command line
    "a b": "s",
    "messages[0][content]": "hi",
    "none?": "",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates(template: str) -> None:
    assert render_template("prompt", template, "line 1", ROW) == TEMPLATES[template]


PROBLEMS = {
    "{usertext}": "field 'usertext' is missing", "{n}": "field 'n' is null", "{t}": "field 't' is not text",
    "{messages}": "field 'messages' is not text", "{messages[1][content]}": "is missing", "{}": "field '' is missing",
    "{messages[0][text]}": "is missing", "{deep.er}": "is not text", "n": "is null",
}  # fmt: skip


@pytest.mark.parametrize("template", PROBLEMS)
def test_a_field_that_is_not_there_is_never_trained_on_literally(template: str) -> None:
    with pytest.raises(zoo.ZooError, match=re.escape(PROBLEMS[template])) as told:
        render_template("prompt", template, "line 1", ROW)
    assert ("if it is optional" in str(told.value)) == ("{" in template and "not text" not in PROBLEMS[template])


def test_numbers_that_are_not_json_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": NaN, "response": "b", "score": NaN}\n')
    with pytest.raises(zoo.ZooError, match="field 'prompt' is null in line 1"):
        instructions(tmp_path / "a.jsonl")


def test_a_prompt_is_put_into_the_template_of_training() -> None:
    assert fill_prompt("Translate: {de}\\n", "Hallo") == "Translate: Hallo\n"
    assert fill_prompt("Translate: {de}\\n", "Translate: Hallo\n") == "Translate: Hallo\n", "already complete"
    assert fill_prompt("{messages[0][content]?}:", "Hallo") == "Hallo:"
    assert fill_prompt("prompt", "Hallo") == fill_prompt("", "Hallo") == "Hallo"
    assert fill_prompt("{a}: {b?}.", '{"a": "x"}') == "x: ."
    with pytest.raises(zoo.ZooError, match=r'has several fields\. Give \{"a": "\.\.\.", "b": "\.\.\."\}'):
        fill_prompt("{a}: {b?}.", "x")


def test_halves_of_characters_are_tokenized(tmp_path: Path) -> None:
    text = "".join(f'{{"prompt": "{n} \\ud83d", "response": "{n}\\udc00!"}}\n' for n in range(60))
    (tmp_path / "a.jsonl").write_text(text)
    for tokenizer in ("byte", "char", "word", "bpe"):
        data = instructions(tmp_path / "a.jsonl", tokenizer=tokenizer, batch_size=1)
        assert all(prompt.endswith(" \ufffd") for prompt, _ in read(data))


def test_few_prompts_are_in_every_split(tmp_path: Path) -> None:
    for n in range(12):
        file = written(tmp_path / "a.jsonl", [{"prompt": f"{n} {i}", "response": "x"} for i in (0, 0, 1, 2)])
        data = instructions(file, batch_size=1)
        parts = [{prompt for prompt, _ in data.pairs(split)} for split in ("train", "val", "test")]
        assert [len(part) for part in parts] == [1, 1, 1]


def test_long_rows_are_named_by_the_line_of_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "response": "x"} for n in range(200)]
    rows[137]["response"] = "x" * 99
    file = written(tmp_path / "a.jsonl", rows)
    with pytest.raises(zoo.ZooError, match=r"data.context=32: line 138 of .*a\.jsonl has 103 tokens"):
        instructions(file)


def test_prompts_of_the_training_file_in_the_validation_file_are_counted(tmp_path: Path, caplog: Any) -> None:
    for name, rows in (("Train.JSONL", ROWS[:50]), ("val.jsonl", ROWS[48:60]), (".val.jsonl", []), ("b.jsonl", [])):
        written(tmp_path / name, [{"prompt": p, "response": r} for p, r in rows])
    data = instructions(tmp_path)
    assert read(data) == ROWS[:50]
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith("left out 1 file: b.jsonl.")
    assert told[1].startswith("data=instructions: 2 of 12 validation prompts are also in the training split.")
    assert len(told) == 2


def test_a_folder_has_its_own_splits(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:50]), ("val", ROWS[50:60])):
        written(tmp_path / f"{name}.jsonl", [{"prompt": p, "response": r} for p, r in rows])
    data = instructions(tmp_path)
    assert read(data) == ROWS[:50]
    assert read(data, "val") == read(data, "test") == ROWS[50:60]


def test_preferences_come_in_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": f"good {n}", "rejected": f"{n} is bad"} for n in range(80)]
    data = instructions(written(tmp_path / "p.jsonl", rows), "preferences")
    assert isinstance(data.spec.x, Preference)
    x, y = everything(data)
    assert x.shape[:2] == y.shape[:2] == (len(data.train[0]), 2)
    end, text = data.tokenizer.end, data.tokenizer.decode
    for pair in zip(x, y, strict=True):
        one, two = prompt_examples(*pair, end, end)
        assert one.prompt == two.prompt
        n = text(one.prompt)[:-1]
        assert (text(one.answer), text(two.answer)) == (f"good {n}", f"{n} is bad")


def test_answers_with_labels_are_the_first_or_the_second(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": "good" if i % 3 else "b", "label": bool(i % 3)} for i in range(60)]
    data = instructions(written(tmp_path / "rows.jsonl", rows), "preferences")
    spans, streams = data.train
    assert isinstance(data.spec.x, Preference)
    for row in spans:
        found = []
        for begin, length in row.tolist():
            y = streams[1, begin : begin + length]
            found.append(data.tokenizer.decode(y[(y >= 0) & (y != data.tokenizer.end)].tolist()))
        assert found in (["good", ""], ["", "b"])
    assert "answers with labels" in data.details["format"]
    assert f"{len(spans)} for training" in data.details["rows"]
    assert all(answer == "good" for _, answer in data.pairs("train")), "bad answers are not to be given"
    data.check_model(SimpleNamespace(registered_name="kto", learns_from_labels=True))
    with pytest.raises(zoo.ZooError, match="answers with labels, and model=dpo compares two answers"):
        data.check_model(SimpleNamespace(registered_name="dpo"))


def test_long_prompts_are_an_error_or_cut_and_long_answers_an_error(file: Path) -> None:
    with pytest.raises(
        zoo.ZooError, match=r"data.context=16: line \d+ of .*rows.jsonl has \d+ tokens\. .*data.truncate=true"
    ):
        instructions(file, context=16)
    data = instructions(file, context=16, truncate=True)
    whole = instructions(file)
    assert everything(data)[0].shape[1] <= 16
    for (prompt, answer), (uncut, same) in zip(read(data), read(whole), strict=True):
        assert answer == same, "answers are whole"
        assert uncut.endswith(prompt)
    with pytest.raises(zoo.ZooError, match="Set a longer context or remove the row") as told:
        instructions(file, context=8, truncate=True)
    assert "truncate" not in str(told.value)


MISTAKES = {
    "no file": (None, {}, "no file. Set data.path=FILE.jsonl"),
    "nothing there": ("none.jsonl", {}, "neither a file nor a folder"),
    "no json": ('{"prompt": "a"\n', {}, "line 1 of {path} is not JSON"),
    "no object": ('{"prompt": "a", "response": "b"}\n[1]\n', {}, "line 2 of {path} is not a JSON object"),
    "no field": (
        '{"prompt": "a", "response": "b"}\n',
        {"response": "answer"},
        "data.response=answer: field 'answer' is missing in line 1 of {path} (fields: prompt",
    ),
    "no text": ('{"prompt": ["a"], "response": "b"}\n', {}, "data.prompt=prompt: field 'prompt' is not text"),
    "too few": ('{"prompt": "a", "response": "b"}\n', {}, "data=instructions: no validation rows"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_errors_name_the_problem_of_a_file(mistake: str, tmp_path: Path) -> None:
    content, settings, said = MISTAKES[mistake]
    path = tmp_path / "rows.jsonl"
    if content and content.startswith("{"):
        path.write_text(content)
    data = zoo.create_data("instructions", **({} if content is None else {"path": str(path)}), **settings)
    with pytest.raises(zoo.ZooError) as told:
        data.setup()
    assert said.replace("{path}", str(path)) in str(told.value)


def test_tokenizer_and_context_of_a_pretrained_model(file: Path) -> None:
    spec = instructions(file, context=40).spec
    data: Any = zoo.create_data("instructions", path=str(file))
    data.use_tokenizer_from(spec)
    data.setup()
    assert data.spec == spec
    asked: Any = zoo.create_data("instructions", path=str(file), context=50)
    asked.use_tokenizer_from(spec)
    asked.setup()
    assert asked.spec.shape == (50,), "a context that was asked for stays"
    with pytest.raises(zoo.ZooError, match="does not have a tokenizer"):
        data.use_tokenizer_from(zoo.DataSpec(Tokens(8, 9), name="numbers"))


def test_begin_and_end_tokens_may_differ() -> None:
    from zoo.data.text.tokenizers.char import Char

    class Begun(Char):
        begin = 0

    class Two(PromptResponseData):
        registered_name = "two"

        def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
            return ([("ab", "c")],) * 3

    data = Two(8, False, "char", 1, 0)
    data.tokenizer = Begun()
    data.setup()
    x, y = everything(data)
    assert x[0].tolist() == [0, *data.tokenizer.encode("abc")]
    assert y[0].tolist() == [-100, -100, *data.tokenizer.encode("c"), data.tokenizer.end]
