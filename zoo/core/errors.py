"""Errors that are reported to users."""


class ZooError(Exception):
    """A request that cannot be fulfilled: `key=value: problem. Remedy.` in one line.

    The command line prints the message without a traceback and exits with status 1. Any other exception is a bug and
    keeps its traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, keep: str = "") -> str:
    """Escape characters that would move the cursor, colour, reorder or break the line.

    File names, class names and generated text are untrusted, and terminals execute control sequences.

    Args:
        text: anything.
        keep: characters that may stay, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
