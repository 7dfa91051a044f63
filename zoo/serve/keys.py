"""API keys: only their SHA-256 digests are stored, and all are compared in constant time."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from zoo.core.errors import ConfigError

PREFIX = "zoo-"
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Keys:
    """Digests of the keys that are accepted; without any, all requests are."""

    digests: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether requests need a key."""
        return bool(self.digests)

    def accept(self, key: str) -> bool:
        """Whether a key is one of them; the time does not depend on which, nor on how much of it is right."""
        given, found = digest(key), False
        for known in self.digests:
            found |= hmac.compare_digest(given, known)
        return found


def digest(key: str) -> str:
    """SHA-256 of a key. Keys are random and long, so that a slow hash is not needed."""
    return hashlib.sha256(key.encode("utf-8", errors="replace")).hexdigest()


def read_keys(file: Path) -> Keys:
    """Read a key file: a line `sha256:DIGEST` for each key; the rest of a line is a comment.

    Raises:
        ConfigError: another line, or no key.
    """
    if not file.is_file():
        raise ConfigError(f"--key-file={file}: no such file. Create it by: zoo serve --new-key {file}")
    digests = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = DIGEST.match(text)
        if found is None:
            raise ConfigError(f"--key-file={file}: line {number} is not sha256:DIGEST. Create keys by --new-key.")
        digests.append(found[1])
    if not digests:
        raise ConfigError(f"--key-file={file}: contains no key. Create one by: zoo serve --new-key {file}")
    return Keys(tuple(digests))


def new_key(file: Path) -> str:
    """Create a key and append its digest to a file; the key itself is stored nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    with file.open("a", encoding="utf-8") as out:
        out.write(f"sha256:{digest(key)}\n")
    file.chmod(0o600)
    return key
