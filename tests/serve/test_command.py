"""`zoo serve` as a process, models on disk, and the metrics."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.serve.servers import language_model, picture_model, running, text_spec
from zoo.core.errors import ConfigError, ZooError
from zoo.data.loader import make_generator
from zoo.nn.blocks.int8 import Int8Linear
from zoo.serve import assets
from zoo.serve.pool import find_sources


def saved(model, folder: Path) -> Path:
    """A run folder with a checkpoint of a model."""
    folder.mkdir(parents=True)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder


def wide_model():
    """A language model as wide as the kernel of 8-bit weights requires."""
    return language_model(backbone={"name": "transformer", "d_model": 32, "n_layers": 2, "n_heads": 2})


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    saved(language_model(), folder / "2026-11-01" / "10-00-letters")
    saved(picture_model(), folder / "2026-11-02" / "11-00-digits")
    prompted = folder / "2026-11-02" / "11-00-letters-2"
    saved(language_model(1), prompted)
    (prompted / "config.yaml").write_text(
        r"{model: {name: sft}, trainer: {}, data: {name: x, prompt: 'Q: {text}\nA:'}}"
    )
    return folder


def test_runs_are_found_by_their_names(runs: Path) -> None:
    run = runs / "2026-11-01" / "10-00-letters"
    for given in (str(run), f"{run}/", str(run / "best.ckpt")):
        assert [source.name for source in find_sources([given])] == ["10-00-letters"]
    assert [source.name for source in find_sources([f"mine={run}"])] == ["mine"]
    found = find_sources([], runs)
    assert {source.name for source in found} == {"10-00-letters", "11-00-digits", "11-00-letters-2"}
    assert all(source.size > 1000 and source.created > 0 for source in found)
    x, y = (next(s for s in found if "digits" in s.name).load(), picture_model())
    with torch.no_grad():
        assert torch.equal(x.sample(2, generator=make_generator(0)), y.sample(2, generator=make_generator(0)))


@pytest.mark.parametrize(
    ("models", "folder", "message"),
    [
        (["{run}", "{run}"], None, "two models have this name"),
        (["{runs}/nothing"], None, "no run or checkpoint"),
        (["{runs}"], None, "contains no checkpoint"),
        ([], "{runs}/nothing", "not a folder"),
        ([], "{runs}/2026-11-01/10-00-letters", "nothing to serve"),
        ([], None, "nothing to serve"),
    ],
)
def test_what_cannot_be_served_is_refused_at_the_start(runs, models, folder, message) -> None:
    places = {"run": runs / "2026-11-01" / "10-00-letters", "runs": runs}
    with pytest.raises(ZooError, match=message):
        find_sources([m.format(**places) for m in models], Path(folder.format(**places)) if folder else None)


def test_a_run_with_a_prompt_template_chats_by_it(runs: Path) -> None:
    sources = {source.name: source for source in find_sources([], runs)}
    source = sources["11-00-letters-2"]
    assert source.prompt == r"Q: {text}\nA:"
    from zoo.data.text.chat import template_of

    template = template_of(source.load().tokenizer, source.prompt)
    assert template.kind == "run"
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": " 1\n"},
        {"role": "user", "content": "two"},
    ]
    assert template.render(messages) == "Q: one\nA: 1\nQ: two\nA:"


def test_the_command(runs: Path, tmp_path: Path) -> None:
    """From the start to a signal: the line with the address, curl, and a clean end."""
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    code = "import sys; sys.argv[0] = 'zoo'; from zoo.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--models", str(runs), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("zoo: http://127.0.0.1:"), process.stderr.read()
        url = line.split()[1]
        body = json.dumps({"model": "10-00-letters", "prompt": "a", "max_tokens": 5, "seed": 1, "stream": True})
        if shutil.which("curl"):
            done = subprocess.run(
                ["curl", "-sN", f"{url}/v1/completions", "-H", "Content-Type: application/json", "-d", body],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.stdout.endswith("data: [DONE]\n\n")
        answer = httpx.post(f"{url}/v1/completions", json=json.loads(body) | {"stream": False}, timeout=60).json()
        (wanted,) = language_model().generate("a", max_new_tokens=5, seed=1)
        assert answer["choices"][0]["text"] == wanted.text
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in errors
        logged = [json.loads(text) for text in errors.splitlines() if text.startswith("{")]
        assert {entry["path"] for entry in logged} == {"/v1/completions"}
    finally:
        process.kill()


def test_the_command_line_checks_before_it_loads(cli, tmp_path: Path) -> None:
    from zoo.cli.main import main

    refused = cli("serve", "nothing", entry=main)
    assert refused.code == 1
    assert "nothing" in refused.err
    assert cli("serve", "x", "--host", "0.0.0.0", entry=main).err.count("--key-file") == 1
    made = cli("serve", "--new-key", str(tmp_path / "keys"), entry=main)
    assert made.out.startswith("zoo-")
    assert made.out.strip() not in (tmp_path / "keys").read_text()


def test_8_bit_weights_give_the_texts_of_8_bit_weights_in_process(tmp_path: Path) -> None:
    """Of each request alone and of all at once; the control: other texts than in single precision."""
    run = saved(wide_model(), tmp_path / "wide")
    (source,) = find_sources([str(run)], quantize=True)
    assert any(type(m) is Int8Linear for m in source.load().net.modules())
    small, plain = wide_model().quantize(), wide_model()
    asked = [{"model": "wide", "prompt": "ab" * i, "max_tokens": 24, "seed": i} for i in range(6)]
    wanted = [small.generate(a["prompt"], max_new_tokens=24, seed=a["seed"])[0].text for a in asked]
    before = [plain.generate(a["prompt"], max_new_tokens=24, seed=a["seed"])[0].text for a in asked]
    assert wanted != before
    with running({"wide": source}) as server, httpx.Client(base_url=server.url, timeout=60) as client:

        def text(body: dict) -> str:
            return client.post("/v1/completions", json=body).json()["choices"][0]["text"]

        assert [text(body) for body in asked] == wanted
        with ThreadPoolExecutor(len(asked)) as together:
            assert list(together.map(text, asked)) == wanted


def test_8_bit_weights_are_refused_where_they_do_not_apply(runs: Path, tmp_path: Path, cli) -> None:
    from zoo.cli.main import main

    words, pictures = runs / "2026-11-01" / "10-00-letters", runs / "2026-11-02" / "11-00-digits"
    with pytest.raises(ConfigError, match=r"^--quantize: 8-bit weights are for processors, not --device=cuda\. Leave"):
        find_sources([str(words)], device="cuda", quantize=True)
    counted = saved(zoo.create_model("ngram", data=text_spec()), tmp_path / "counted")
    with pytest.raises(ConfigError, match=r"^--quantize: counted: .*Serve it without --quantize"):
        find_sources([str(counted)], quantize=True)
    done = cli("serve", str(words), str(pictures), "--quantize", entry=main)
    assert done.code == 1
    assert "--quantize: 11-00-digits is a vae, and 8-bit weights are for models that write token by token" in done.err


def test_metrics_count_what_happened() -> None:
    with (
        running({"letters": language_model, "digits": picture_model}) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        asked = {"model": "letters", "prompt": "abc", "max_tokens": 5, "temperature": 0, "seed": 1}
        used = client.post("/v1/completions", json=asked).json()["usage"]
        client.post("/v1/completions", json=asked | {"stream": True})
        client.post("/v1/images/generations", json={"model": "digits", "n": 3})
        client.post("/v1/completions", json={"model": "nothing"})
        text = client.get("/metrics").text
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    def value(name: str) -> float:
        return float(found[name])

    assert value('zoo_prompt_tokens_total{model="letters"}') == 2 * used["prompt_tokens"]
    assert value('zoo_generation_tokens_total{model="letters"}') == 2 * used["completion_tokens"]
    assert value('zoo_images_total{model="digits"}') == 3
    assert value('zoo_request_success_total{finish_reason="length",model="letters"}') == 2
    assert value('zoo_time_to_first_token_seconds_count{model="letters"}') == 2
    assert value('zoo_e2e_request_latency_seconds_count{model="letters"}') == 2
    assert value('zoo_requests_running{model="letters"}') == 0
    assert value('zoo_http_responses_total{status="404"}') == 1
    assert "nothing" not in text, "labels are names of models only"


def test_health_tells_a_dead_thread() -> None:
    with running({"letters": language_model}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/api/models")
        assert client.get("/health").json() == {"status": "ok", "models": ["letters"]}
        server.engine("letters").stop()
        server.engine("letters").join(5)
        assert client.get("/health").status_code == 503


def test_files_of_the_page_are_served_from_memory(monkeypatch) -> None:
    """Only files that were there at the start, by exact path, with a digest."""
    page = {
        "/": assets.Asset(b"<!doctype html>", "text/html; charset=utf-8"),
        "/page/a.js": assets.Asset(b"1", "text/javascript"),
    }
    monkeypatch.setattr("zoo.serve.app.read_assets", lambda: page)
    from zoo.serve.keys import Keys, digest

    with (
        running({"letters": language_model}, Keys((digest("k"),))) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        index = client.get("/")
        assert (index.status_code, index.text) == (200, "<!doctype html>"), "without a key, which the page asks for"
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/", headers={"If-None-Match": index.headers["etag"]}).status_code == 304
        assert client.get("/page/a.js").text == "1"
        assert client.get("/page/b.js").status_code == 401
        assert client.post("/", json={}).status_code in (404, 405)


def test_assets_are_the_files_of_one_folder(tmp_path, monkeypatch) -> None:
    page = tmp_path / "page"
    (page / "icons").mkdir(parents=True)
    for name in ("index.html", "app.js", "icons/a.svg", "__init__.py", ".hidden"):
        (page / name).write_text(name)
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(assets.resources, "files", lambda _: tmp_path)
    found = assets.read_assets()
    assert found.keys() == {"/", "/page/app.js", "/page/icons/a.svg"}
    assert found["/"].content == b"index.html"
    assert found["/page/app.js"].kind.startswith("text/javascript")


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        find_sources([])


@pytest.mark.parametrize(("torch_has", "processors", "expected"), [(2, 2, 1), (1, 1, 1), (4, 16, 4), (16, 16, 15)])
def test_one_processor_is_left_to_the_connections(monkeypatch, torch_has, processors, expected) -> None:
    from zoo.serve import server

    monkeypatch.setattr(server.torch, "get_num_threads", lambda: torch_has)
    monkeypatch.setattr(server.os, "cpu_count", lambda: processors)
    assert server.default_threads() == expected
