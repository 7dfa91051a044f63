"""The one exception that a user is meant to read."""


class ZooError(Exception):
    """A request that cannot be met: one sentence that names the thing, the reason and the remedy.

    The command line prints the message without a traceback and exits with status 1; everything else that is raised
    is a defect of the zoo and keeps its traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, keep: str = "") -> str:
    """Text that is safe to show: what would move the cursor, colour, reorder or break the line is spelled out.

    File names, class names and generated text may hold anything, and a terminal obeys it.

    Args:
        text: anything.
        keep: characters that may stay, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
