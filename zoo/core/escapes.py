"""Escapes in text that is typed on a command line."""

import re

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def read_escapes(text: str) -> str:
    r"""Replace `\n`, `\t`, `\r` and `\\` by a line feed, tab, carriage return and backslash; others stay."""
    return re.sub(r"\\([ntr\\])", lambda found: ESCAPES[found[1]], text)
