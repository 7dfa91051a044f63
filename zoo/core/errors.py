"""Errors that are reported to users."""

import unicodedata


class ZooError(Exception):
    """A request that cannot be fulfilled: `key=value: problem. Remedy.` in one line.

    The command line prints the message without a traceback and exits with status 1. Any other exception is a bug and
    keeps its traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(ZooError):
    """An unknown name or setting, or a value that does not fit."""


class DataError(ZooError):
    """Data that are missing, damaged, or unfit for the model."""


class CheckpointError(ZooError):
    """A run, checkpoint or export that is missing, damaged, unsafe, or of another model."""


class HardwareError(ZooError):
    """A device, an amount of memory or a number of processes that this machine does not have."""


class TrainingError(ZooError):
    """A training that had to end early."""


def printable(text: str, keep: str = "") -> str:
    """Escape characters that would move the cursor, colour, reorder or break the line, and halves of a character.

    File names, class names and generated text are untrusted, and terminals execute control sequences. Spaces and
    joiners stay: Japanese, French, Persian and emoji need them.

    Args:
        text: any text.
        keep: characters that stay as they are, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str) -> bool:
    kind = unicodedata.category(character)
    return (
        kind not in ("Cc", "Cs", "Cf", "Zl", "Zp") or character in JOINERS or "\U000e0020" <= character <= "\U000e007f"
    )


JOINERS = "\xad\u200b\u200c\u200d\u2060"  # and U+E0020 to U+E007F, in flags
