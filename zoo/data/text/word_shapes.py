"""Words of technical text, and the shapes by which words are known that training does not show."""

import re

WORD = re.compile(r"""[^\W\d](?:[\w.]*\w)?|\d(?:[\w.]*\w)?|'[^'\s]*'|"[^"\s]*"|\S""")


def tokenise(text: str) -> list[str]:
    """Cut a text into names with their dots, numbers, quoted words, and single other characters.

    A dotted name is followed by its last part, so that `textwrap.dedent` also shows `dedent`.
    """
    found = []
    for word in WORD.findall(text):
        found.append(word)
        if "." in word and word[0].isalpha():
            found.append(word.rsplit(".", 1)[1])
    return found


def shape_of(word: str) -> str:
    """The shape of a word: letters become a or A, digits 0, repeats of one kind are one, as in `Aa0.a`.

    The angle brackets around it keep it apart from words.
    """
    kinds = re.sub(r"\d+", "0", re.sub(r"[^\W\d_A-Z]+", "a", re.sub(r"[A-Z]+", "A", word)))
    return f"<{re.sub(r'(.)' + chr(92) + '1+', chr(92) + '1', kinds)}>"
