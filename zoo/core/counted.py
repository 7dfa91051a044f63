"""Numbers with their nouns, for messages."""


def counted(n: int, noun: str) -> str:
    """A number and its noun: counted(1, "batch") is "1 batch", and counted(2000, "batch") is "2,000 batches"."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun}{'es' if noun.endswith(('ch', 'sh', 's', 'x')) else 's'}"
