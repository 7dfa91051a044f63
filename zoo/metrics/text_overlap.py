"""Overlap of texts with a training text: longest common substrings, and shared n-grams."""

import math
from collections.abc import Iterable, Sequence


def longest_copies(texts: Sequence[str], train: Iterable[str]) -> list[int]:
    """Characters in the longest substring of each text that also occurs in a training text.

    One suffix automaton of all texts (Blumer et al. 1985) reads the training texts once. The time is proportional to
    the characters of both.
    """
    symbols: list[str | int] = []
    for number, text in enumerate(texts):
        symbols += [*text, number]  # the numbers separate texts: no character equals them
    steps, link, length, prefix = suffix_automaton(symbols)
    found = [0] * len(link)  # longest match that ended in each state
    for text in train:
        state = matched = 0
        for symbol in text:
            while symbol not in steps[state] and state:
                state = link[state]
                matched = length[state]
            if symbol in steps[state]:
                state, matched = steps[state][symbol], matched + 1
                if matched > found[state]:
                    found[state] = matched
    order = sorted(range(1, len(link)), key=length.__getitem__)
    for state in reversed(order):  # a match has all its suffixes
        if found[state] and link[state] > 0:
            found[link[state]] = length[link[state]]
    for state in order:  # a text that ends here without a match may have a suffix with one
        found[state] = found[state] or found[link[state]]
    longest, place = [], 0
    for text in texts:
        longest.append(max((found[state] for state in prefix[place : place + len(text)]), default=0))
        place += len(text) + 1
    return longest


def suffix_automaton(
    symbols: Sequence[str | int],
) -> tuple[list[dict[str | int, int]], list[int], list[int], list[int]]:
    """Transitions, suffix links and longest lengths of the states; and the state after each symbol."""
    steps: list[dict[str | int, int]] = [{}]
    link, length, prefix, last = [-1], [0], list[int](), 0
    for symbol in symbols:
        new = len(steps)
        steps.append({})
        length.append(length[last] + 1)
        link.append(0)
        state = last
        while state >= 0 and symbol not in steps[state]:
            steps[state][symbol] = new
            state = link[state]
        if state >= 0:
            known = steps[state][symbol]
            if length[known] == length[state] + 1:
                link[new] = known
            else:
                clone = len(steps)
                steps.append(dict(steps[known]))
                length.append(length[state] + 1)
                link.append(link[known])
                while state >= 0 and steps[state].get(symbol) == known:
                    steps[state][symbol] = clone
                    state = link[state]
                link[known] = link[new] = clone
        last = new
        prefix.append(new)
    return steps, link, length, prefix


def shared_ngrams(held: Iterable[str], train: Iterable[str], n: int) -> float:
    """Share of the word n-grams of held-out texts that also occur in a training text.

    GPT-3's check for contamination has n = 13 (Brown et al. 2020, 2005.14165, appendix C). A text of fewer words is
    one n-gram as a whole. nan without any. Grams are compared by Python's hash of 64 bits.
    """
    known = {hash(gram) for text in train for gram in word_grams(text, n)}
    grams = [hash(gram) in known for text in held for gram in word_grams(text, n)]
    return sum(grams) / len(grams) if grams else math.nan


def word_grams(text: str, n: int) -> Iterable[tuple[str, ...]]:
    """Word n-grams of a text, or the text as one of them if it is shorter."""
    words = text.split()
    return zip(*(words[i:] for i in range(n)), strict=False) if len(words) >= n else ([tuple(words)] if words else [])
