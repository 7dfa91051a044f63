"""Plain English: every file obeys the rules of `.github/styles/Zoo`, and each rule finds violations."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests import language

VALE = {  # the keys that vale accepts: it refuses a rule with any other
    "existence": {"tokens", "raw", "exceptions", "append", "ignorecase", "nonword", "vocab"},
    "substitution": {"swap", "exceptions", "ignorecase", "nonword", "vocab", "capitalize", "pos"},
    "occurrence": {"max", "min", "token", "ignorecase"},
}


@cache
def folders() -> dict[str, list[str]]:
    """The files that the rules cover, by folder."""
    found: dict[str, list[str]] = {}
    for name in language.checked():
        found.setdefault(str(Path(name).parent), []).append(name)
    return found


@pytest.mark.parametrize("folder", folders())
def test_prose(folder: str) -> None:
    found = [
        f"{name}:{line}: {message}"
        for name in folders()[folder]
        for line, message in language.alerts(language.ROOT / name)
    ]
    assert not found, "\n".join(found)


def test_rules_are_in_the_format_of_vale() -> None:
    for file in language.STYLE.glob("*.yml"):
        rule = yaml.safe_load(file.read_text())
        assert rule.keys() - {"extends", "message", "level", "scope"} <= VALE[rule["extends"]], file
        assert rule["level"] in ("suggestion", "warning", "error"), file
    ini = (language.ROOT / ".vale.ini").read_text()
    assert f"StylesPath = {language.STYLE.parent.relative_to(language.ROOT)}" in ini
    assert f"BasedOnStyles = {language.STYLE.name}" in ini


def rules_hit(tmp_path: Path, suffix: str, text: str) -> list[str]:
    """Return the line and the rule of each violation in a text."""
    file = tmp_path / f"file{suffix}"
    file.write_text(text)
    return [f"{line} {message.rpartition('.')[2][:-1]}" for line, message in language.alerts(file)]


WORDS = "Word" + " word" * 23


@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (".py", '"""What a model is."""\n', ["1 Opening"]),
        (".py", 'def f():\n    """Where a model knows it."""\n', ["2 Opening", "2 Personification"]),
        (".py", 'class A:\n    """Noun phrase.\n\n    The loss of\n    others.\n    """\n', ["4 Words"]),
        (".py", "x = 1  # the model knows the shape\n", ["1 Personification"]),
        (".py", "# the second\n# text is no\n# text\nx = 1\n", ["2 Negation"]),
        (".py", "raise ValueError(f'x={x}: is no number.')\n", ["1 Negation"]),
        (".py", "raise ValueError('x=1: not a number')\n", ["1 Errors"]),
        (".py", "warnings.warn('begin anew.')\n", ["1 Words"]),
        (".yaml", "# What it learns\na: 1  # the data say\n", ["1 Opening", "2 Personification"]),
        (".yaml", "a: 'x'  # said aloud\n", ["1 Words"]),
        (".md", f"First.\n\n{WORDS} too long.\n", ["3 SentenceLength"]),
        (".md", f"- item\n- {WORDS}\n  continued here.\n", ["3 SentenceLength"]),
        (".md", "A model that has not\na head.\n", ["1 Negation"]),
    ],
)
def test_bad_text_is_flagged(tmp_path: Path, suffix: str, text: str, expected: list[str]) -> None:
    assert rules_hit(tmp_path, suffix, text) == expected


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".py", "whoever = 'said aloud, of others'\nis_no = what_it_is = 'What it is, anew'\n"),
        (".py", '"""Return the `said aloud` of ``of others``."""\n'),
        (".py", '"""Resample the training set."""\n\nraise ValueError(f"x={x}: not a number. Use an integer.")\n'),
        (".py", "# type: ignore\n# the loss is no longer finite, there is no GPU, and it has not been saved\n"),
        (".yaml", "# Diffusion model (Ho et al. 2020).\nname: 'said # aloud'\nurl: a#anew\n"),
        (".md", "```bash\necho said aloud, anew\n```\nThe `whoever` key. <!-- of others -->\n"),
        (".md", f"| {WORDS} | {WORDS} |\n|---|---|\n"),
        (".md", f"{WORDS}. {WORDS}.\n\n- {WORDS}\n- {WORDS}\n"),
    ],
)
def test_code_and_plain_text_pass(tmp_path: Path, suffix: str, text: str) -> None:
    assert rules_hit(tmp_path, suffix, text) == []


def test_command_line(tmp_path: Path) -> None:
    """The exit status is 1 if a file fails."""
    (tmp_path / "bad.md").write_text("Said aloud.\n")
    (tmp_path / "good.md").write_text("Reported.\n")
    for name, status in (("bad.md", 1), ("good.md", 0)):
        command = [sys.executable, language.__file__, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("Zoo.Words" in done.stdout) == bool(status)
