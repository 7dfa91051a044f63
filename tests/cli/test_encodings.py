"""Outputs whose encoding is not UTF-8."""

import io
import sys

import pytest

from zoo.cli.app import tolerate_encodings
from zoo.cli.main import main


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_characters_that_the_output_lacks_are_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    tolerate_encodings()
    print("é 日 \ud800")
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert "日" in shown or r"\u65e5" in shown
    assert r"\ud800" in shown


def test_errors_name_files_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["zoo", "sample", "写真"])
    with pytest.raises(SystemExit):
        main()
    sys.stderr.flush()
    assert rb"\u5199\u771f" in raw.getvalue()
