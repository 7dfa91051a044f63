"""Requests that are too large, damaged or aimed at files, each refused in the format of all errors."""

import base64
import io
import socket
import struct
import time
import zlib

import httpx2 as httpx
import pytest
from PIL import Image

from tests.serve.servers import OK, is_error, language_model, picture_model, post, running

# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    with running(
        {"letters": language_model, "digits": picture_model}, body=4000, prompt=100, body_seconds=0.5, numbers=200
    ) as server:
        yield server


@pytest.mark.timeout(20)
def test_a_body_over_the_limit_is_not_read(small):
    is_error(post(f"{small.url}/v1/completions", json=OK | {"prompt": "x" * 5000}), 413)

    def endless():
        while True:
            yield b" " * 1000

    try:
        answer = post(f"{small.url}/v1/completions", content=endless(), headers={"Content-Type": "application/json"})
    except httpx.TransportError:
        return  # the server has closed the connection while the client still sends
    is_error(answer, 413)


def test_a_body_that_does_not_arrive_is_given_up(small):
    raw = socket.create_connection(("127.0.0.1", small.server.port))
    raw.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    raw.settimeout(5)
    begun = time.monotonic()
    assert raw.recv(100).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - begun < 3
    raw.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "x" * 101}),
        ("/v1/completions", {"prompt": ["x" * 60, "x" * 60]}),
        ("/v1/completions", {"prompt": ["x"] * 40}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 101}]}),
        ("/v1/embeddings", {"input": "x" * 101}),
        ("/api/sample", {"model": "digits", "n": 9}),
        ("/api/interpolate", {"model": "digits", "n": 2, "steps": 4}),
    ],
)
def test_sizes_are_limited(small, path, body):
    is_error(post(small.url + path, json={"model": "letters"} | body), 400)


def test_a_header_that_does_not_arrive_is_given_up(small):
    """On a new connection, and on one that had an answer already."""
    for before in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        raw = socket.create_connection(("127.0.0.1", small.server.port))
        raw.settimeout(5)
        if before:
            raw.sendall(before)
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: ")
        begun = time.monotonic()
        while raw.recv(4096):
            pass
        assert time.monotonic() - begun < 3
        raw.close()


def test_a_large_header_is_refused(small):
    raw = socket.create_connection(("127.0.0.1", small.server.port))
    raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
    raw.settimeout(5)
    assert raw.recv(100).startswith(b"HTTP/1.1 4") or raw.recv(1) == b""
    raw.close()


# -- JSON ----------------------------------------------------------------------------------------------------------

BAD_JSON = [
    b"", b"{", b"[]", b"null", b"1", b'"text"', b'{"model": NaN}', b'{"temperature": Infinity}', b"\xff\xfe{}", b"\x00",
    b"[" * 100_000, b'{"a":' * 100_000, b'{"model": "letters", "seed": ' + b"9" * 5000 + b"}", b'{"model": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda b: repr(b[:20]))
def test_bad_json_is_refused(client, body):
    is_error(client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(
    "values",
    [
        {"model": None}, {"model": 3}, {"model": ["letters"]}, {"prompt": {"a": 1}}, {"prompt": [["a"]]},
        {"prompt": [1, "a"]}, {"prompt": []}, {"max_tokens": "3"}, {"max_tokens": 1.5}, {"max_tokens": True},
        {"temperature": "hot"}, {"stop": [1]}, {"n": 2**70}, {"seed": 2**64}, {"stream": "yes"}, {"logprobs": True},
        {"__class__": "x"}, {"stream_options": {"x": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_other_types_are_refused(client, values):
    is_error(client.post("/v1/completions", json=OK | values), 400)


def test_halves_of_characters_do_no_harm(client):
    """JSON can name half of a character, which UTF-8 does not have."""
    body = rb'{"model": "letters", "prompt": "a\ud800b", "max_tokens": 2, "echo": true, "stop": "\udfff", "seed": 1}'
    answer = client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    body = rb'{"model": "\ud800"}'
    is_error(client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"}), 404)


# -- the file system -------------------------------------------------------------------------------------------------

PATHS = [
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/../../../../etc/passwd", "/page/%00",
    "/page/..%2f..%2f..%2fetc%2fpasswd", "/page//etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd",
    "/page/__init__.py", "/v1/models/%2fetc%2fpasswd",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_reaches_a_file(server, path):
    raw = socket.create_connection(("127.0.0.1", server.server.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = b"".join(iter(lambda: raw.recv(65536), b""))
    raw.close()
    assert answer.split(b" ")[1] in (b"404", b"400", b"307")
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../runs/best.ckpt", "https://evil.example/model", "hub:x", "letters\x00", "."]
)
def test_no_model_is_loaded_by_a_request(client, name):
    assert is_error(client.post("/v1/completions", json=OK | {"model": name}), 404)["code"] == "model_not_found"


# -- pictures --------------------------------------------------------------------------------------------------------


def png_header(width, height):
    """A PNG that claims a size, with hardly any data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def as_format(kind):
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


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", PICTURES)
def test_dangerous_pictures_are_refused(client, name):
    body = {"model": "digits", "items": [{"image": base64.b64encode(PICTURES[name]).decode()}]}
    is_error(client.post("/api/reconstruct", json=body), 400)


def test_a_picture_that_is_not_base64_is_refused(client):
    for text in ("####", "a", "data:image/png;base64,####", "http://169.254.169.254/latest", "file:///etc/passwd"):
        is_error(client.post("/api/reconstruct", json={"model": "digits", "items": [{"image": text}]}), 400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_usual_pictures_are_read(client, kind):
    body = {"model": "digits", "items": [{"image": base64.b64encode(as_format(kind)).decode()}]}
    assert client.post("/api/reconstruct", json=body).status_code == 200
