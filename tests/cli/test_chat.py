"""`zoo chat`: history, commands, seeds and interruptions, and what it sends to the model."""

import io
import os
import subprocess
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.serve.servers import SMALL, language_model, picture_model
from tests.serve.test_command import saved
from zoo.cli.chat import fitted, write
from zoo.cli.main import main
from zoo.core.errors import printable
from zoo.core.spaces import Tokens
from zoo.data.text.chat import template_of
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte
from zoo.models.autoregressive.language_model_base import LanguageModelBase


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of chats with random weights."""
    tokenizer = Byte()
    tokenizer.chat_format = "chat"
    spec = zoo.DataSpec(Tokens(512, tokenizer.vocab_size, dumps(tokenizer)), name="letters")
    torch.manual_seed(0)
    model = zoo.create_model("language_model", data=spec, backbone={"name": "transformer", **SMALL})
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.4) if p.ndim == 2 else None
    return saved(model, tmp_path_factory.mktemp("runs") / "chat")


def expected(model: Any, *asked: str, system: str = "", seed: int = 0) -> tuple[str, list[dict[str, str]]]:
    """Printed answers to messages, from `generate` and prompts that are written by hand."""
    history = [{"role": "system", "content": system}] if system else []
    shown = ""
    for turn, text in enumerate(asked):
        history.append({"role": "user", "content": text})
        prompt = "".join(f"{m['role']}:\n{m['content']}\n" for m in history) + "assistant:\n"
        (done,) = model.generate(
            prompt, seed=seed + turn, max_new_tokens=6, stop=["\nuser:\n", "\nsystem:\n", "\nassistant:\n"]
        )
        history.append({"role": "assistant", "content": done.text})
        shown += printable(done.text, keep="\n\t") + "\n"
    return shown, history


def test_piped_messages_are_answered_with_their_history(run: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'zoo'; from zoo.cli.main import main; main()"
    words = ["chat", str(run), "max_new_tokens=6", "--seed", "5", "--system", "be brief"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], input="one\n\ntwo\n/reset\none\n/quit\nnever\n", capture_output=True,
        encoding="utf-8", cwd=tmp_path, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(zoo.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    shown, _ = expected(zoo.load(run), "one", "two", system="be brief", seed=5)
    first, _ = expected(zoo.load(run), "one", system="be brief", seed=5)
    assert done.stdout == shown + first
    alone, _ = expected(zoo.load(run), "two", system="be brief", seed=6)
    assert not shown.endswith(alone), "the control: without the first message the second answer is another"


def chat(cli: Any, monkeypatch: pytest.MonkeyPatch, text: str, *words: str) -> Any:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return cli("chat", *words, entry=main)


def test_an_interruption_ends_the_answer_and_not_the_program(
    run: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, stream = [], LanguageModelBase.stream

    @wraps(stream)
    def interrupted(self: Any, prompt: str, **options: Any) -> Any:
        prompts.append(prompt)
        pieces = stream(self, prompt, **options)
        if len(prompts) > 1:
            return pieces

        def first() -> Any:
            yield "so"
            raise KeyboardInterrupt

        return first()

    monkeypatch.setattr(LanguageModelBase, "stream", interrupted)
    done = chat(cli, monkeypatch, "one\ntwo\n", str(run), "max_new_tokens=6")
    assert done.code == 0
    assert done.out.startswith("so ...\n")
    assert len(done.out.splitlines()) > 1
    assert prompts[1] == "user:\none\nassistant:\nso\nuser:\ntwo\nassistant:\n"


def test_an_answer_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def pieces() -> Any:
        for piece in ("a", "\x1b[0m", "b"):
            yield piece
            seen.append(capsys.readouterr().out)

    assert write(pieces()) == "a\x1b[0mb"
    assert seen == ["a", "\\x1b[0m", "b"], "control sequences are shown"


def test_the_oldest_turns_are_left_out_of_a_long_chat() -> None:
    model: Any = language_model()  # its context has 64 tokens
    turns = [{"role": role, "content": f"{n}" * 3} for n in range(3) for role in ("user", "assistant")]
    history = [{"role": "system", "content": "s"}, *turns[:-1]]
    template = template_of(Byte())
    kept = fitted(model, template, history, 1)
    assert kept == [history[0], history[-1]]
    assert len(model.prompt_ids(template.render(kept))) <= 48
    longer = fitted(zoo_of(512), template, history, 1)
    assert longer == history


def zoo_of(context: int) -> Any:
    """Something with a context, and the byte tokenizer."""
    spec = type("Spec", (), {"size": context})
    return type("Model", (), {"spec": spec, "prompt_ids": staticmethod(Byte().encode_prompt)})


def test_a_message_that_does_not_fit_is_refused_and_the_chat_goes_on(
    run: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = chat(cli, monkeypatch, f"{'x' * 600}\none\n", str(run), "temperature=0")
    assert done.code == 0
    assert "fills the context of 512" in done.err
    assert done.out


def test_other_models_and_options_are_refused(
    run: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = saved(picture_model(), tmp_path / "digits")
    for words, said in (
        ([str(pictures)], "model=vae: it does not continue text. Give the run of a language model."),
        ([str(run), "temprature=1"], "did you mean 'temperature'"),
        ([str(tmp_path / "none")], "no run or checkpoint"),
    ):
        done = chat(cli, monkeypatch, "one\n", *words)
        assert done.code == 1
        assert said in done.err
        assert "Traceback" not in done.err
