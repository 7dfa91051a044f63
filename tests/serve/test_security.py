"""Attacks from the network, each refused in the format of all errors."""

import json
import threading

import pytest

from tests.serve.attacks import FORM_TYPES, HOSTS, SITES
from tests.serve.servers import OK, get, is_error, language_model, post, running
from zoo.core.errors import ConfigError
from zoo.serve.keys import Keys, digest, new_key, read_keys
from zoo.serve.limits import Limits
from zoo.serve.server import check_exposure, is_loopback

# -- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_other_names_of_this_machine_are_refused(client, host):
    """DNS rebinding: a foreign page whose name was pointed at this machine."""
    is_error(client.get("/v1/models", headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:1", "[::1]:80"])
def test_names_of_this_machine_are_accepted(client, host):
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_a_further_name_can_be_allowed():
    with running({"letters": language_model}, allow_hosts=["Models.example"]) as server:
        for host, status in (("models.example:8000", 200), ("other.example", 400)):
            assert get(f"{server.url}/v1/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("headers", SITES)
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


@pytest.mark.parametrize("kind", FORM_TYPES)
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
            answer = get(server.url + path)
            assert is_error(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            for header in ("right", "Basic right", "Bearer", "Bearer wrong", "Bearer right,right", "Bearer ri\xe9ght"):
                raw = {"Authorization": header.encode("latin-1")}
                assert get(server.url + path, headers=raw).status_code == 401
        good = {"Authorization": "Bearer right"}
        assert get(f"{server.url}/v1/models", headers=good).status_code == 200
        assert get(f"{server.url}/health").status_code == 200


def test_all_keys_are_compared(monkeypatch):
    """The time does not tell which key, and how much of it, was right."""
    compared = []
    monkeypatch.setattr("zoo.serve.keys.hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    keys = Keys((digest("a"), digest("b"), digest("c")))
    for key in ("a", "c", "nothing", ""):
        compared.clear()
        keys.accept(key)
        assert compared == [(64, 64)] * 3


# -- the log --------------------------------------------------------------------------------------------------


def test_the_log_holds_no_prompts_and_no_keys(caplog):
    with (
        running({"letters": language_model}, Keys((digest("secretkey"),))) as server,
        caplog.at_level("INFO", "zoo.serve.requests"),
    ):
        post(
            f"{server.url}/v1/completions",
            json=OK | {"prompt": "secretprompt"},
            headers={"Authorization": "Bearer secretkey"},
        )
        get(f"{server.url}/v1/models", headers={"Authorization": "Bearer secretguess"})
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
        answer = post(f"{server.url}/api/sample", json={"model": "letters"})
    is_error(answer, 500)
    assert "secret" not in answer.text
    assert "/secret/path" in caplog.text, "the log has the reason"


def test_defaults_are_finite():
    assert all(value > 0 for value in vars(Limits()).values())
    assert threading.active_count() < 100
