import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from zoo.cli import train


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, entry: Callable[[], None] = train) -> Result:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = 0
        try:
            entry()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capfd.readouterr())

    return call
