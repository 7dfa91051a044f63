"""Options of `zoo sample` are the keyword-only parameters of the model's own methods."""

import pytest
import torch

import zoo
from tests.interop.huggingface.test_load import drawn
from zoo.cli.draw import _generate_text, typed_prompts
from zoo.cli.main import main
from zoo.core.errors import ConfigError, ZooError
from zoo.core.signature import Fraction, PositiveInt
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte
from zoo.data.text.tokenizers.char import Char
from zoo.models.options import parse_options


def sample(n: int, *, condition=None, generator=None, steps: PositiveInt = 10, guidance: float = 1.0) -> None:
    """A sampler.

    Args:
        steps: of the solver.
        guidance: scale.
    """


def generate(prompts: list[str], *, stop: list[str] | tuple[str, ...] = (), share: Fraction = 0.5, **options) -> None:
    """Text."""


@pytest.mark.parametrize("words", [[], ["--prompt", "a"]])
def test_a_folder_without_a_tokenizer_names_the_missing_file(words, cli, tmp_path) -> None:
    drawn("gpt2").save_pretrained(tmp_path / "gpt2")
    refused = cli("sample", str(tmp_path / "gpt2"), *words, entry=main)
    assert refused.code == 1
    assert "gpt2: tokenizer.json is missing" in refused.err.splitlines()[-1]
    assert "Traceback" not in refused.err


def test_no_room_for_the_samples_is_one_sentence(cli, monkeypatch) -> None:
    def full(*_, **options) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    refused = cli("sample", "gmm-digits", "-n", "4", entry=main)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("zoo: no space left on device: the output cannot be written. Make")
    assert "Traceback" not in refused.err


def test_samples_that_do_not_fit_into_memory_are_one_sentence(cli) -> None:
    refused = cli("sample", "gmm-digits", "-n", str(10**15), entry=main)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("zoo: out of memory: the request is too large for this machine.")
    assert "Traceback" not in refused.err


def test_words_become_typed_arguments() -> None:
    assert parse_options(sample, ["steps=50", "guidance=3"], "toy") == {"steps": 50, "guidance": 3.0}
    assert parse_options(sample, [], "toy") == {}, "the method's own defaults stay"


def test_methods_with_further_options_take_those_of_sampling() -> None:
    found = parse_options(generate, ["temperature=0.8", "top_k=3", "stop=END"], "toy")
    assert found == {"temperature": 0.8, "top_k": 3, "stop": ["END"]}
    assert parse_options(generate, ["stop=[a,b]"], "toy") == {"stop": ["a", "b"]}


@pytest.mark.parametrize("word", [r"stop=\n\n", r"stop=[\n\n]", r"stop='\n\n'", 'stop="\\n\\n"', r'stop=["\n\n"]'])
def test_line_feeds_are_typed_as_escapes(word) -> None:
    assert parse_options(generate, [word], "toy") == {"stop": ["\n\n"]}
    assert parse_options(generate, [r"stop=a\\n"], "toy") == {"stop": [r"a\n"]}


def test_prompts_are_put_into_the_template_of_the_run(tmp_path) -> None:
    assert typed_prompts(Byte(), tmp_path / "best.ckpt", [r"a\nb"]) == ["a\nb"], "an export has no run beside it"
    run = r"{model: {name: sft}, trainer: {}, data: {name: instructions, prompt: 'Translate: {de}\n'}}"
    (tmp_path / "config.yaml").write_text(run)
    for place in (tmp_path, tmp_path / "best.ckpt"):
        assert typed_prompts(Byte(), place, ["Hallo", r"Translate: Hallo\n"]) == ["Translate: Hallo\n"] * 2


@pytest.mark.parametrize(
    ("method", "word", "message"),
    [
        (sample, "step=3", "did you mean 'steps'"),
        (sample, "temperature=3", "unknown option of toy 'temperature'"),
        (sample, "generator=3", "unknown option"),
        (sample, "steps=0", "greater than 0"),
        (sample, "steps=many", "steps"),
        (sample, "steps", "Write KEY=VALUE"),
        (generate, "share=2", "at most 1"),
    ],
)
def test_what_does_not_fit_is_refused(method, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(method, [word], "toy")


def test_all_errors_are_of_the_zoo() -> None:
    assert issubclass(ConfigError, ZooError)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["beams=2"], "beams=2: bert does not support beam search"),
        (["repetition_penalty=2"], "repetition_penalty: bert does not support it"),
        (["length_penalty=2"], "unknown option of bert 'length_penalty'"),
    ],
)
def test_options_that_a_masked_model_does_not_have_are_refused(words, message) -> None:
    tokenizer = Byte()
    spec = zoo.DataSpec(Tokens(12, tokenizer.vocab_size, dumps(tokenizer)))
    model = zoo.create_model("bert", data=spec, backbone={"n_layers": 1, "d_model": 16, "n_heads": 2})
    with pytest.raises(ZooError, match=message):
        _generate_text(model, None, 0, None, ["a"], words)


def test_number_and_prompt_together_and_stop_in_a_masked_model(capsys) -> None:
    tokenizer = Byte()
    spec = zoo.DataSpec(Tokens(12, tokenizer.vocab_size, dumps(tokenizer)))
    torch.manual_seed(0)
    model = zoo.create_model("bert", data=spec, backbone={"n_layers": 1, "d_model": 16, "n_heads": 2})
    _generate_text(model, 5, 0, None, ["ab"], ["stop=[e]", "max_new_tokens=8"])
    captured = capsys.readouterr()
    assert captured.err.count("ended by") == 5
    assert captured.out.count("ab") >= 5


def test_a_mask_is_not_an_unknown_character(capsys) -> None:
    tokenizer = Char().fit(["abc"])
    spec = zoo.DataSpec(Tokens(8, tokenizer.vocab_size, dumps(tokenizer)))
    model = zoo.create_model("bert", data=spec, backbone={"n_layers": 1, "d_model": 16, "n_heads": 2})
    _generate_text(model, None, 0, None, ["a[MASK]c"], [])
    assert "not in the training text" not in capsys.readouterr().err
    _generate_text(model, None, 0, None, ["a[MASK]d"], [])
    assert "not in the training text: d" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("sample", "RUN", "-n"), "-n"),
        (("sample", "RUN", "--seed"), "--seed"),
        (("evaluate", "RUN", "-k"), "-k"),
        (("edit", "RUN", "--image", "a.png", "--continue"), "--continue"),
    ],
)
def test_numbers_beyond_64_bits_are_refused(words: tuple[str, ...], option: str, cli) -> None:
    done = cli(*words, str(10**20), entry=main)
    assert done.code == 1
    assert f"{option}={10**20}: more than 64 bits hold" in done.err
