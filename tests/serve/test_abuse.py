"""Requests that are too large, damaged or aimed at files, each refused in the format of all errors."""

import base64
import socket
import time
from dataclasses import replace

import httpx2 as httpx
import pytest

from tests.serve.attacks import (
    ATTACKS,
    BAD_JSON,
    GUESSES,
    NAMES,
    NOT_BASE64,
    PATHS,
    PICTURES,
    WRONG_VALUES,
    as_format,
    is_refused,
    refused,
    send,
    time_of_keys,
)
from tests.serve.servers import OK, get, is_error, language_model, picture_model, post, running
from zoo.serve.keys import Keys, digest

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


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda b: repr(b[:20]))
def test_bad_json_is_refused(client, body):
    is_error(client.post("/v1/completions", content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize("values", WRONG_VALUES, ids=str)
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


@pytest.mark.parametrize("path", PATHS)
def test_no_path_reaches_a_file(server, path):
    raw = socket.create_connection(("127.0.0.1", server.server.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = b"".join(iter(lambda: raw.recv(65536), b""))
    raw.close()
    assert answer.split(b" ")[1] in (b"404", b"400", b"307")
    assert b"root:" not in answer
    assert b"import" not in answer


@pytest.mark.parametrize("name", NAMES)
def test_no_model_is_loaded_by_a_request(client, name):
    assert is_error(client.post("/v1/completions", json=OK | {"model": name}), 404)["code"] == "model_not_found"


# -- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", PICTURES)
def test_dangerous_pictures_are_refused(client, name):
    body = {"model": "digits", "items": [{"image": base64.b64encode(PICTURES[name]).decode()}]}
    is_error(client.post("/api/reconstruct", json=body), 400)


def test_a_picture_that_is_not_base64_is_refused(client):
    for text in NOT_BASE64:
        is_error(client.post("/api/reconstruct", json={"model": "digits", "items": [{"image": text}]}), 400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_usual_pictures_are_read(client, kind):
    body = {"model": "digits", "items": [{"image": base64.b64encode(as_format(kind)).decode()}]}
    assert client.post("/api/reconstruct", json=body).status_code == 200


# -- the whole corpus, byte for byte ------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_all_attacks_are_refused(server):
    found, missed = refused(server.server.port, ATTACKS)
    assert not missed
    assert sum(found.values()) == len(ATTACKS)
    assert min(found.values()) > 5
    assert get(f"{server.url}/health").status_code == 200


@pytest.mark.timeout(60)
def test_no_guess_is_a_key():
    with running({"letters": language_model}, Keys((digest("right"),))) as server:
        assert not refused(server.server.port, GUESSES)[1]
        right = replace(GUESSES[0], headers={"Authorization": "Bearer right"})
        assert not is_refused(send(server.server.port, right)), "negative control"


def test_answers_and_leaks_are_not_refusals():
    assert is_refused(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    for answer in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 X\r\n", b"HTTP/1.1 400 X\r\n\r\nroot:x:0:0"):
        assert not is_refused(answer)


def test_the_time_does_not_tell_which_key_is_right():
    """Medians of turns; all digests are compared, which `test_all_keys_are_compared` counts."""
    first, last, wrong = time_of_keys(Keys(tuple(map(digest, "abc"))), ["a", "c", "x"], rounds=500)
    assert max(first, last, wrong) < 3 * min(first, last, wrong)
