"""Attacks from the network on `zoo serve`, by kind. Each must be refused, and the server must go on.

python -m tests.serve.attacks    # a table: how many there are of each kind, and how many were refused
"""

import argparse
import base64
import contextlib
import io
import json
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from PIL import Image

from zoo.serve.keys import Keys, digest

OK = {"model": "letters", "max_tokens": 1}
JSON_TYPE = {"Content-Type": "application/json"}
TEXTS, PICTURES_PATH = "/v1/completions", "/api/reconstruct"
LEAKS = (b"root:", b"import ", b"Traceback", b"/site-packages/")  # of files and of faults

BAD_JSON = [
    b"", b"{", b"[]", b"null", b"1", b'"text"', b'{"model": NaN}', b'{"temperature": Infinity}', b"\xff\xfe{}", b"\x00",
    b"[" * 100_000, b'{"a":' * 100_000, b'{"model": "letters", "seed": ' + b"9" * 5000 + b"}", b'{"model": 1e999}',
]  # fmt: skip
WRONG_VALUES = [
    {"model": None}, {"model": 3}, {"model": ["letters"]}, {"prompt": {"a": 1}}, {"prompt": [["a"]]},
    {"prompt": [1, "a"]}, {"prompt": []}, {"max_tokens": "3"}, {"max_tokens": 1.5}, {"max_tokens": True},
    {"temperature": "hot"}, {"stop": [1]}, {"n": 2**70}, {"seed": 2**64}, {"stream": "yes"}, {"logprobs": True},
    {"__class__": "x"}, {"stream_options": {"x": 1}},
]  # fmt: skip
PATHS = [
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/../../../../etc/passwd", "/page/%00",
    "/page/..%2f..%2f..%2fetc%2fpasswd", "/page//etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd",
    "/page/__init__.py", "/v1/models/%2fetc%2fpasswd",
]  # fmt: skip
NAMES = ["/etc/passwd", "../../runs/best.ckpt", "https://evil.example/model", "hub:x", "letters\x00", "."]
HOSTS = ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.2", "[::2]:1"]
SITES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
FORM_TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
NOT_BASE64 = ["####", "a", "data:image/png;base64,####", "http://169.254.169.254/latest", "file:///etc/passwd"]
WRONG_KEYS = [
    "right",
    "Basic right",
    "Bearer",
    "Bearer wrong",
    "Bearer right,right",
    "Bearer ri\xe9ght",
    "Bearer Right",
]
BAD_HEADERS = [
    {"Content-Length": "-1"},
    {"Content-Length": "9" * 30},
    {"Transfer-Encoding": "gzip"},
    {"X": "x" * 70_000},
    {"X\x01": "y"},
    {"Bad Name": "y"},
]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def as_format(kind: str) -> bytes:
    """A small picture in a format of Pillow."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


PICTURES = {
    "bomb": png_header(60_000, 60_000),
    "large": png_header(3000, 3000),
    "cut": as_format("PNG")[:40],
    "bmp": as_format("BMP"),
    "gif": as_format("GIF"),
    "tiff": as_format("TIFF"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    "nothing": b"",
    "text": b"hello",
}


@dataclass(frozen=True)
class Attack:
    """One request, which is sent byte for byte.

    Args:
        kind: of attack.
        path: of the request line, not normalised.
        body: None without one.
        headers: replace those of an ordinary request.
        method: of HTTP.
    """

    kind: str
    path: str = TEXTS
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"

    def to_bytes(self) -> bytes:
        """The request as it is sent."""
        headers = {"Host": "localhost", "Connection": "close"}
        if self.body is not None:
            headers |= JSON_TYPE | {"Content-Length": str(len(self.body))}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (headers | self.headers).items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")


def picture(text: str) -> bytes:
    """Body of a request with a picture."""
    return json.dumps({"model": "digits", "items": [{"image": text}]}).encode()


GOOD = json.dumps(OK).encode()
ATTACKS = [
    *(Attack("traversal", path, method="GET") for path in PATHS),
    *(Attack("models to load", body=json.dumps(OK | {"model": name}).encode()) for name in NAMES),
    *(Attack("bombs and files", PICTURES_PATH, picture(base64.b64encode(p).decode())) for p in PICTURES.values()),
    *(Attack("bombs and files", PICTURES_PATH, picture(text)) for text in NOT_BASE64),
    Attack("bombs and files", body=b" " * 13_000_000),
    *(Attack("JSON abuse", body=body) for body in BAD_JSON),
    *(Attack("JSON abuse", body=json.dumps(OK | values).encode()) for values in WRONG_VALUES),
    *(Attack("header abuse", body=GOOD, headers=headers) for headers in BAD_HEADERS),
    Attack("header abuse", f"/v1/models?{'x' * 70_000}", method="GET"),
    Attack("header abuse", headers={f"X-{n}": "x" * 1000 for n in range(40)}, body=GOOD),
    Attack("header abuse", body=b"zz\r\n\r\n", headers={"Content-Length": "6", "Transfer-Encoding": "chunked"}),
    *(Attack("cross-site", body=GOOD, headers={"Host": host}) for host in HOSTS),
    *(Attack("cross-site", body=GOOD, headers=headers) for headers in SITES),
    *(Attack("cross-site", body=GOOD, headers={"Content-Type": kind}) for kind in FORM_TYPES),
    Attack("cross-site", headers=SITES[0] | {"Access-Control-Request-Method": "POST"}, method="OPTIONS"),
]
GUESSES = [Attack("key guessing", body=GOOD, headers={"Authorization": key}) for key in WRONG_KEYS]
GUESSES += [Attack("key guessing", "/v1/models", headers={"Authorization": key}, method="GET") for key in WRONG_KEYS]


def send(port: int, attack: Attack, seconds: float = 60.0) -> bytes:
    """Send an attack to a server of this machine; returns the answer, up to the end of the connection."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as raw:
        with contextlib.suppress(OSError):  # the server has answered and closed before the end of a large body
            raw.sendall(attack.to_bytes())
        with contextlib.suppress(ConnectionResetError):  # closed, with bytes of the body unread
            while part := raw.recv(65536):
                found += part
    return found


def is_refused(answer: bytes) -> bool:
    """Whether an answer is an error of the client without a leak, or the connection was closed without one."""
    if any(leak in answer for leak in LEAKS) or b"access-control-allow-origin" in answer.lower():
        return False
    return not answer or answer.split(b" ", 2)[1][:1] == b"4" or answer.split(b" ", 2)[1] == b"307"


def refused(port: int, attacks: Sequence[Attack]) -> tuple[Counter[str], list[Attack]]:
    """Send attacks: how many of each kind were refused, and those that were not."""
    found, missed = Counter[str](), []
    for attack in attacks:
        if is_refused(send(port, attack)):
            found[attack.kind] += 1
        else:
            missed.append(attack)
    return found, missed


def time_of_keys(keys: Keys, given: Sequence[str], rounds: int = 2000) -> list[float]:
    """Median nanoseconds of `accept` for each key; the keys take turns."""
    taken: list[list[int]] = [[] for _ in given]
    for _ in range(rounds):
        for key, times in zip(given, taken, strict=True):
            begun = time.perf_counter_ns()
            keys.accept(key)
            times.append(time.perf_counter_ns() - begun)
    return [median(times) for times in taken]


def table() -> tuple[str, int]:
    """The table in Markdown, and the number of attacks that were not refused."""
    from tests.serve.servers import get, language_model, picture_model, running

    models = {"letters": language_model, "digits": picture_model}
    found, missed, healthy = Counter[str](), list[Attack](), True
    for keys, attacks in ((Keys(), ATTACKS), (Keys((digest("right"), digest("other"))), GUESSES)):
        with running(models, keys) as server:
            counts, left = refused(server.server.port, attacks)
            healthy = healthy and get(f"{server.url}/health").status_code == 200
        found += counts
        missed += left
    sent = Counter(attack.kind for attack in (*ATTACKS, *GUESSES))
    rows = ["| attacks | sent | refused |", "|---|---|---|"]
    rows += [f"| {kind} | {n} | {found[kind]} |" for kind, n in sent.items()]
    rows.append(f"| all | {sum(sent.values())} | {sum(found.values())} |")
    first, last, wrong = time_of_keys(Keys(tuple(map(digest, "abc"))), ["a", "c", "x"])
    rows += ["", f"The server answers after them: {'yes' if healthy else 'no'}. Of three keys, the first takes "
             f"{first / wrong:.2f} and the last {last / wrong:.2f} of the time of a wrong one."]  # fmt: skip
    rows += [f"NOT REFUSED: {attack.kind} {attack.to_bytes()[:200]!r}" for attack in missed]
    return "\n".join(rows), len(missed) + (not healthy)


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    text, failed = table()
    print(text)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
