"""Faults outside of a running server: a full disk, a locked file, a removed model, a port in use."""

import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx2 as httpx
import pytest

import zoo
from tests.serve.servers import is_error, language_model, running
from tests.serve.test_command import saved
from zoo.core.errors import ConfigError
from zoo.serve.feedback import FeedbackStore, NotStored
from zoo.serve.pool import find_sources
from zoo.serve.server import listen

GOOD = {"model": "letters", "rating": 1, "note": "", "request": {"prompt": "a"}, "answer": "b"}

FULL = """
import resource, sys
from pathlib import Path
from zoo.serve.feedback import FeedbackStore, NotStored
store = FeedbackStore(Path(sys.argv[1]))
store.add("m", 1, "", {}, "before")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    store.add("m", 1, "", {}, "x" * 100_000)
except NotStored as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add("m", 1, "", {}, "after")
print(*(entry["answer"] for entry in store.entries()))
"""

MANY = """
import sys
from pathlib import Path
from zoo.serve.feedback import FeedbackStore
store = FeedbackStore(Path(sys.argv[1]))
for number in range(50):
    assert store.add("m", 1, sys.argv[2], {}, str(number))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def one_line(records: list[logging.LogRecord], words: str) -> None:
    """The log has a message of one line, without a traceback."""
    found = [record for record in records if words in record.getMessage()]
    assert len(found) == 1
    assert found[0].exc_info is None
    assert "\n" not in found[0].getMessage()


# -- feedback --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_loses_no_entry_but_the_one_that_did_not_fit(tmp_path):
    out, errors = start(FULL, tmp_path / "f.sqlite").communicate(timeout=120)
    assert not errors
    message, answers = out.splitlines()
    assert message.startswith(f"feedback={tmp_path / 'f.sqlite'}: not stored (")
    assert answers == "before after"


def test_two_servers_share_a_file(tmp_path):
    processes = [start(MANY, tmp_path / "f.sqlite", name) for name in "ab"]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    entries = FeedbackStore(tmp_path / "f.sqlite").entries()
    assert len({entry["id"] for entry in entries}) == len(entries) == 100
    for name in "ab":
        assert [entry["answer"] for entry in entries if entry["note"] == name] == [*map(str, range(50))]


def test_requests_are_told_that_nothing_was_stored(tmp_path, monkeypatch, caplog):
    """A disk without room, a lock of another program, and a file that was removed."""
    path, full = tmp_path / "f.sqlite", [True]
    connect = FeedbackStore._connect

    def limited(store: FeedbackStore) -> sqlite3.Connection:
        made = connect(store)
        if full[0]:
            made.execute("PRAGMA max_page_count = 2")
        return made

    monkeypatch.setattr(FeedbackStore, "_connect", limited)
    monkeypatch.setattr(FeedbackStore, "seconds", 0.2)
    large = GOOD | {"answer": "x" * 20_000}
    with (
        running({"letters": language_model}, feedback=path) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        caplog.at_level(logging.ERROR, "zoo.serve"),
    ):
        answer = client.post("/api/feedback", json=large)
        assert "could not be stored" in is_error(answer, 503)["message"]
        assert str(tmp_path) not in answer.text
        assert answer.headers["x-should-retry"] == "true"
        one_line(caplog.records, "disk is full")
        full[0] = False
        assert client.post("/api/feedback", json=large).json() == {"id": 1}

        caplog.clear()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            is_error(client.post("/api/feedback", json=GOOD), 503)
            other.execute("ROLLBACK")
        one_line(caplog.records, "locked")
        assert client.post("/api/feedback", json=GOOD).json() == {"id": 2}

        path.unlink()
        assert client.post("/api/feedback", json=GOOD).json() == {"id": 1}, "in a new file"
    assert len(FeedbackStore(path).entries()) == 1


def test_a_damaged_file_is_named(tmp_path):
    store = FeedbackStore(tmp_path / "f.sqlite")
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(NotStored, match="not a database"):
        store.add("m", 1, "", {}, "a")


# -- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["file", "folder", "cut"])
def test_a_model_that_is_removed_is_named_and_loaded_ones_go_on(tmp_path, caplog, fault):
    kept, gone = (saved(language_model(), tmp_path / name) for name in ("kept", "gone"))
    sources = {source.name: source for source in find_sources([str(kept), str(gone)])}
    with (
        running(sources) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        caplog.at_level(logging.ERROR, "zoo.serve"),
    ):
        ask = {"prompt": "a", "max_tokens": 2, "seed": 1}
        before = client.post("/v1/completions", json=ask | {"model": "kept"}).json()["choices"]
        for place in (kept, gone):
            if fault == "folder":
                shutil.rmtree(place)
            elif fault == "file":
                (place / "best.ckpt").unlink()
            else:
                os.truncate(place / "best.ckpt", 1000)
        answer = client.post("/v1/completions", json=ask | {"model": "gone"})
        assert "cannot be loaded" in is_error(answer, 503)["message"]
        assert str(tmp_path) not in answer.text
        one_line(caplog.records, "model gone cannot be loaded")
        after = client.post("/v1/completions", json=ask | {"model": "kept"}).json()["choices"]
        assert after == before
        assert client.get("/health").status_code == 200


# -- ports -----------------------------------------------------------------------------------------------------------


def test_connections_do_not_wait_to_send_small_parts() -> None:
    def no_delay(server: socket.socket) -> int:
        with socket.create_connection(server.getsockname()[:2]), server.accept()[0] as connection:
            return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    (server,) = listen("127.0.0.1", 0)
    with server, socket.create_server(("127.0.0.1", 0)) as plain:
        assert no_delay(server) != 0
        assert no_delay(plain) == 0, "the control: the socket of create_server alone"


def test_a_port_in_use_is_an_error():
    (first,) = listen("127.0.0.1", 0)
    with first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--port={port}: the server cannot listen on 127\.0\.0\.1 \(.*in use"):
            listen("127.0.0.1", port)
    again = listen("127.0.0.1", port)
    assert [sock.getsockname() for sock in again] == [("127.0.0.1", port)]
    again[0].close()


def test_other_addresses_are_errors_too():
    for host in ("192.0.2.1", "host.invalid"):
        with pytest.raises(ConfigError, match=f"cannot listen on {host}"):
            listen(host, 0)


def test_a_name_is_all_of_its_addresses():
    found = listen("localhost", 0)
    try:
        assert socket.AF_INET in {sock.family for sock in found}
        assert all(sock.getsockname()[0] in ("127.0.0.1", "::1") for sock in found)
    finally:
        for sock in found:
            sock.close()


def test_the_second_server_on_a_port_says_one_sentence(cli, tmp_path, capfd):
    from zoo.cli.main import main

    run = saved(language_model(), tmp_path / "letters")
    capfd.readouterr()
    (first,) = listen("127.0.0.1", 0)
    with first:
        done = cli("serve", str(run), "--port", str(first.getsockname()[1]), entry=main)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1
    assert "cannot listen" in done.err
    assert "Traceback" not in done.err
