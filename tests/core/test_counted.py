"""One of something is singular."""

import pytest

from zoo.core.counted import counted, either


@pytest.mark.parametrize(
    ("n", "noun", "wanted"),
    [
        (0, "row", "0 rows"),
        (1, "row", "1 row"),
        (2000, "row", "2,000 rows"),
        (1, "batch", "1 batch"),
        (3, "batch", "3 batches"),
    ],
)
def test_numbers_agree_with_their_nouns(n: int, noun: str, wanted: str) -> None:
    assert counted(n, noun) == wanted


def test_alternatives() -> None:
    assert either(["a"]) == "a"
    assert either(["a", "b"]) == "a or b"
    assert either(["a", "b", "c"]) == "a, b or c"
