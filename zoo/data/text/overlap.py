"""Count held-out samples that are also in the training split."""

import heapq
import logging
from collections.abc import Hashable, Iterable, Mapping
from zlib import crc32

from zoo.data.listing import log_rank0

log = logging.getLogger(__name__)
MIN_LENGTH = 20  # characters of a line that is unlikely to occur twice by chance
PROBES = 10_000  # held-out lines that are searched for
TOO_MANY = 0.1  # share of the probes, from which it is a warning


class LineOverlap:
    """Count the lines of held-out running text that are also in the training text.

    Args:
        held: held-out texts. Of their lines with at least `MIN_LENGTH` characters, the `PROBES` of lowest hash are
            chosen.
    """

    def __init__(self, held: Iterable[str]) -> None:
        kept = list[tuple[int, str]]()  # a heap of the negative hash
        self.probes = set[str]()
        for line in (line for text in held for line in long_lines(text)):
            if line in self.probes:
                continue
            heapq.heappush(kept, (-crc32(line.encode()), line))
            self.probes.add(line)
            if len(kept) > PROBES:
                self.probes.remove(heapq.heappop(kept)[1])
        self.found: set[str] = set()

    def search(self, text: str) -> None:
        """Search a training text."""
        self.found.update(line for line in long_lines(text) if line in self.probes)

    def report(self, name: str) -> None:
        """Log the share of repeated lines; it is a warning from `TOO_MANY`."""
        if self.found:
            share = len(self.found) / len(self.probes)
            log_rank0(
                log.warning if share >= TOO_MANY else log.info,
                f"data={name}: {share:.0%} of the lines of at least {MIN_LENGTH} characters in the validation and test "
                f"text are also in the training text. Remove copies, as held-out losses would be too good.",
            )


def long_lines(text: str) -> Iterable[str]:
    """Yield the stripped lines of at least `MIN_LENGTH` characters."""
    return (line for line in map(str.strip, text.split("\n")) if len(line) >= MIN_LENGTH)


def warn_of_shared(name: str, train: Iterable[Hashable], held: Mapping[str, Iterable[Hashable]], what: str) -> None:
    """Warn of held-out samples that are equal to a training sample.

    Args:
        name: name of the data.
        train: training samples.
        held: held-out samples by the name of their split.
        what: name of a sample in the plural.
    """
    known = set(train)
    for split, samples in held.items():
        listed = list(samples)
        if shared := sum(sample in known for sample in listed):
            log_rank0(
                log.warning,
                f"data={name}: {shared:,} of {len(listed):,} {split} {what} are also in the training split. "
                f"Remove them from one of the two, as held-out losses would be too good.",
            )
