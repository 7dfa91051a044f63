"""Filter for the advertisements that Lightning logs whenever a trainer is built."""

import logging

LOGGERS = ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero")


def is_wanted(record: logging.LogRecord) -> bool:
    """Whether a log record is something other than a tip to install a commercial service."""
    return not str(record.msg).startswith("💡 Tip")


def hide_tips() -> None:
    """Drop the tips; all other messages of Lightning stay."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(is_wanted)  # added once only: it is the same function
