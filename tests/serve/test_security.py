"""Attacks from the network, each refused in the format of all errors."""

import base64
import io
import json
import socket
import struct
import threading
import time
import zlib

import httpx2 as httpx
import pytest
from PIL import Image

from tests.serve.servers import language_model, picture_model, running
from zoo.core.errors import ConfigError
from zoo.serve.keys import Keys, digest, new_key, read_keys
from zoo.serve.limits import Limits
from zoo.serve.server import check_exposure, is_loopback

OK = {"model": "letters", "max_tokens": 1}


def is_error(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


# -- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.2", "[::2]:1"]
)
def test_other_names_of_this_machine_are_refused(client, host):
    """DNS rebinding: a foreign page whose name was pointed at this machine."""
    is_error(client.get("/v1/models", headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:1", "[::1]:80"])
def test_names_of_this_machine_are_accepted(client, host):
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_a_further_name_can_be_allowed():
    with running({"letters": language_model}, allow_hosts=["Models.example"]) as server:
        for host, status in (("models.example:8000", 200), ("other.example", 400)):
            assert httpx.get(f"{server.url}/v1/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_are_refused(client, headers):
    is_error(client.post("/v1/completions", json=OK, headers=headers), 403)


def test_the_own_page_is_not_another_site(client, server):
    headers = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    answer = client.post("/v1/completions", json=OK, headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")], "CORS is off"


def test_a_preflight_is_refused(client):
    answer = client.options(
        "/v1/completions", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert answer.status_code >= 400
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_requests_that_a_form_could_send_are_refused(client, kind):
    is_error(client.post("/v1/completions", content=json.dumps(OK), headers={"Content-Type": kind}), 415)


def test_every_answer_has_the_security_headers(client):
    for answer in (client.get("/v1/models"), client.get("/nothing"), client.get("/health", headers={"Host": "evil"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_public_address_needs_keys():
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert is_loopback(host)
        check_exposure(host, Keys())
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com", ""):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="Give --key-file"):
            check_exposure(host, Keys())
        check_exposure(host, Keys((digest("k"),)))


def test_a_key_file_holds_digests_only(tmp_path):
    file = tmp_path / "keys"
    first, second = new_key(file), new_key(file)
    text = file.read_text()
    assert first not in text
    assert second not in text
    assert file.stat().st_mode & 0o077 == 0
    keys = read_keys(file)
    assert keys.accept(first)
    assert keys.accept(second)
    assert not keys.accept(first + "x")
    assert not keys.accept(digest(first)), "the digest is not a key"
    for wrong in ("", "# nothing", "zoo-plain-key"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="key-file"):
            read_keys(file)
    with pytest.raises(ConfigError, match="--new-key"):
        read_keys(tmp_path / "missing")


def test_all_paths_but_the_health_need_the_key():
    with running({"letters": language_model}, Keys((digest("right"),))) as server:
        for path in ("/v1/models", "/api/models", "/metrics", "/openapi.json", "/nothing", "/v1/models/letters"):
            answer = httpx.get(server.url + path)
            assert is_error(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            for header in ("right", "Basic right", "Bearer", "Bearer wrong", "Bearer right,right", "Bearer ri\xe9ght"):
                raw = {"Authorization": header.encode("latin-1")}
                assert httpx.get(server.url + path, headers=raw).status_code == 401
        good = {"Authorization": "Bearer right"}
        assert httpx.get(f"{server.url}/v1/models", headers=good).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_all_keys_are_compared(monkeypatch):
    """The time does not tell which key, and how much of it, was right."""
    compared = []
    monkeypatch.setattr("zoo.serve.keys.hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    keys = Keys((digest("a"), digest("b"), digest("c")))
    for key in ("a", "c", "nothing", ""):
        compared.clear()
        keys.accept(key)
        assert compared == [(64, 64)] * 3


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    with running(
        {"letters": language_model, "digits": picture_model}, body=4000, prompt=100, body_seconds=0.5, numbers=200
    ) as server:
        yield server


@pytest.mark.timeout(20)
def test_a_body_over_the_limit_is_not_read(small):
    is_error(httpx.post(f"{small.url}/v1/completions", json=OK | {"prompt": "x" * 5000}), 413)

    def endless():
        while True:
            yield b" " * 1000

    try:
        answer = httpx.post(
            f"{small.url}/v1/completions", content=endless(), headers={"Content-Type": "application/json"}
        )
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
    is_error(httpx.post(small.url + path, json={"model": "letters"} | body), 400)


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


# -- the log --------------------------------------------------------------------------------------------------


def test_the_log_holds_no_prompts_and_no_keys(caplog):
    with (
        running({"letters": language_model}, Keys((digest("secretkey"),))) as server,
        caplog.at_level("INFO", "zoo.serve.requests"),
    ):
        httpx.post(
            f"{server.url}/v1/completions",
            json=OK | {"prompt": "secretprompt"},
            headers={"Authorization": "Bearer secretkey"},
        )
        httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer secretguess"})
    lines = [json.loads(record.message) for record in caplog.records if record.name == "zoo.serve.requests"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/completions", 200), ("GET", "/v1/models", 401),
    ]  # fmt: skip
    assert lines[0]["model"] == "letters"
    assert all(line["seconds"] >= 0 and line["id"] and line["client"] for line in lines)
    assert "secret" not in caplog.text


def test_faults_tell_nothing_about_the_server(caplog):
    model = language_model()

    def fail(*args, **kwargs):
        raise RuntimeError("/secret/path: a fault.")

    model.sample = fail
    with running({"letters": lambda: model}) as server:
        answer = httpx.post(f"{server.url}/api/sample", json={"model": "letters"})
    is_error(answer, 500)
    assert "secret" not in answer.text
    assert "/secret/path" in caplog.text, "the log has the reason"


def test_defaults_are_finite():
    assert all(value > 0 for value in vars(Limits()).values())
    assert threading.active_count() < 100
