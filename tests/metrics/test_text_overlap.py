"""Copies of a training text against brute force, and shared n-grams counted by hand."""

import math
import random

from zoo.metrics.text_overlap import longest_copies, shared_ngrams


def brute_force(text: str, train: list[str]) -> int:
    spans = [(i, j) for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    return max((j - i for i, j in spans if any(text[i:j] in t for t in train)), default=0)


def test_longest_copies_are_those_of_brute_force() -> None:
    rng, unequal = random.Random(0), 0
    for letters in ("a", "ab", "abc", "abcdef"):
        for _ in range(60):
            train = ["".join(rng.choices(letters, k=rng.randint(0, 15))) for _ in range(rng.randint(0, 3))]
            texts = ["".join(rng.choices(letters + "x", k=rng.randint(0, 10))) for _ in range(4)]
            wanted = [brute_force(text, train) for text in texts]
            assert longest_copies(texts, train) == wanted, (texts, train)
            unequal += wanted != [brute_force(text, ["".join(train)]) for text in texts]
    assert unequal, "the control: a match across two training texts does not count"


def test_a_copy_is_found_whole() -> None:
    rng = random.Random(1)
    train = "".join(rng.choices("abcdefgh ", k=5000))
    copy, fresh = train[1200:1300], "".join(rng.choices("abcdefgh ", k=100))
    found = longest_copies(["xyz" + copy + "xyz", fresh, "", copy + copy], [train])
    assert found[0] >= 100
    assert found[0] <= 102, "what surrounds it is not in the training text"
    assert found[1] < 15
    assert found[2] == 0
    assert found[3] < 110, "twice the copy is not a copy"


def test_shared_ngrams() -> None:
    train = ["the cat sat on the mat", "a dog"]
    assert shared_ngrams(["the cat sat down"], train, 2) == 2 / 3  # the-cat, cat-sat; not sat-down
    assert shared_ngrams(["on the mat", "the cat ran"], train, 3) == 1 / 2
    assert shared_ngrams(["a dog"], train, 3) == 1, "a short text counts as a whole"
    assert shared_ngrams(["a"], train, 3) == 0
    assert shared_ngrams(["mat a dog"], train, 3) == 0, "no n-gram across texts"
    assert math.isnan(shared_ngrams(["", " "], train, 3))
