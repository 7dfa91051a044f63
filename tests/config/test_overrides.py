"""Overrides as typed: any text is a value, and every name must exist."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.config.overrides import check_choices, is_text, quote, quote_texts, unquoted
from zoo.config.recipes import groups

ODD = [
    "lr=0.1", "Фото", "写真", "été", "photos (1)", "it's mine", "C&A", "photos, 2024", "#tag", "year=2019", "1e5",
    "1_000", "true", "1.50", "a\\", 'say "hi"', "'", "\\'", "[a]", "{a: 1}", "a: b", " spaced ", "*.txt", "a\tb", "$x",
]  # fmt: skip


def parsed(word: str) -> object:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("key", ["data.path", "init_from", "hydra.run.dir", "data.tokenizer.path", "+data.path"])
def test_a_text_setting_takes_any_text(key: str, text: str) -> None:
    (word,) = quote_texts([f"{key}={text}"])
    assert parsed(word) == text
    assert quote_texts([word]) == [word], "a saved override is quoted once"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_quotes_are_the_inverse_of_parsing(text: str) -> None:
    assert parsed(f"key={quote(text)}") == text


def test_quoted_values_null_and_other_types_stay() -> None:
    words = ["data.path='a b'", 'data.path="a"', "init_from=null", "seed=1e5", "model.optimizer.lr=1e-4", "--cfg", "a"]
    assert quote_texts(words) == words


def test_a_sweep_splits_at_commas() -> None:
    assert quote_texts(["-m", "data.path=a b,c"]) == ["-m", "data.path='a b','c'"]
    assert quote_texts(["-m", "data.path=choice(a,b)"]) == ["-m", "data.path=choice(a,b)"]


def test_texts_are_known_by_their_declarations() -> None:
    assert is_text("data.path")
    assert is_text("callbacks.timer.duration")
    assert not is_text("data.batch_size")
    assert not is_text("model.latent_dim")
    assert not is_text("nope.path")


@pytest.mark.parametrize("key", ["data.path", "resume", "init_from", "hydra.run.dir", "data.cache"])
def test_an_empty_path_is_refused(key: str) -> None:
    """As in `resume=$RUN`, where the variable is not set."""
    with pytest.raises(zoo.ConfigError, match=f"{key}=: an empty path"):
        quote_texts([f"{key}="])


@pytest.mark.parametrize("name", ["nope", "null", "", "schema/gan", "../model/gan", "Фото", "[nope]"])
def test_a_name_that_does_not_exist_is_refused_in_every_group(name: str) -> None:
    for group in groups():
        with pytest.raises(zoo.ConfigError, match=rf"unknown|{group}=\[nope\]: not one name|a path, not a name"):
            check_choices([f"{group}={name}"])


@pytest.mark.parametrize("words", [["model=gan,vae"], ["model=[gan,vae]"], ["callbacks=ema,timer"]])
def test_several_names_need_a_sweep_or_a_list(words: list[str]) -> None:
    with pytest.raises(zoo.ConfigError, match="not one name"):
        check_choices(words)


def test_names_that_exist_pass() -> None:
    check_choices(
        ["-m", "model=gan,vae", "callbacks=[ema,timer]", "logger=[]", "+experiment=names", "model=glob(*gan*)"]
    )


@pytest.mark.parametrize("word", ["~model.lr", "~trainer", "~callbacks=[ema]"])
def test_settings_cannot_be_removed(word: str) -> None:
    with pytest.raises(zoo.ConfigError, match="cannot be removed"):
        check_choices([word])


@pytest.mark.parametrize("word", ["init_from=gpt-digits", "data.path=it's 1,2", "data.path=a=b", "seed=1", "model=gan"])
def test_unquoted_is_the_inverse_of_quoting(word: str) -> None:
    assert unquoted(*quote_texts([word])) == word


@pytest.mark.parametrize("word", ["data.path='null'", "data.path='\\'a\\''", "init_from=[1]"])
def test_quotes_that_change_the_meaning_stay(word: str) -> None:
    assert unquoted(word) == word
