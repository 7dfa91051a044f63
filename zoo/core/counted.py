"""Words of messages: numbers with their nouns, and alternatives."""

from collections.abc import Sequence


def counted(n: int, noun: str) -> str:
    """A number and its noun: counted(1, "batch") is "1 batch", and counted(2000, "batch") is "2,000 batches"."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun}{'es' if noun.endswith(('ch', 'sh', 's', 'x')) else 's'}"


def either(words: Sequence[str]) -> str:
    """Alternatives: either(["a", "b", "c"]) is "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
