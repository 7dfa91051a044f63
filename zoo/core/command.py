"""Commands in advice to users."""

import shlex
import sys
from pathlib import Path


def train_command(*overrides: str) -> str:
    """A command that trains, quoted for a shell: `python train.py` if that started this process, else `zoo train`."""
    begin = "python train.py" if Path(sys.argv[0]).name == "train.py" else "zoo train"
    return " ".join([begin, *map(shlex.quote, overrides)])
