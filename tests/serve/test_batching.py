"""Requests do not depend on each other; queue, time limits, clients that go away, memory, and the end of a server."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest
import torch

import zoo
from tests.serve.servers import SMALL, language_model, picture_model, running, text_spec
from zoo.core.spaces import Pair
from zoo.data.text.tokenizers.base import loads
from zoo.nn.kernels.decode_step import DecodeStep
from zoo.serve.engine import CallJob, Engine, Interrupted
from zoo.serve.jobs import Finished, Job, Piece, Started, TextJob, TextParams, merged
from zoo.serve.limits import Limits
from zoo.serve.scheduler import TextScheduler

REQUESTS = [
    {"prompt": "hello", "seed": 1},
    {"prompt": "", "seed": 2, "temperature": 0.5, "max_tokens": 60},
    {"prompt": "a longer prompt than the others have", "seed": 3, "top_p": 0.8, "max_tokens": 90},
    {"prompt": "x", "temperature": 0, "frequency_penalty": 1.5},
    {"prompt": "hello", "seed": 5, "n": 2, "top_k": 5},
    {"prompt": "hello", "seed": 1, "repetition_penalty": 1.3},
    {"prompt": "q" * 60, "seed": 7, "max_tokens": 33},
    {"prompt": "stop", "seed": 8, "stop": ["F", "1"], "presence_penalty": -1},
]


def n_gram():
    torch.manual_seed(0)
    model = zoo.create_model("ngram", data=text_spec(), order=3)
    tokens = torch.randint(model.spec.tokens.vocab_size, (4000,), generator=torch.Generator().manual_seed(0))
    model.net.fit(tokens, torch.zeros(4000, dtype=torch.bool))
    return model.eval()


def translator():
    torch.manual_seed(0)
    tokens = text_spec().x
    model = zoo.create_model(
        "seq2seq", data=zoo.DataSpec(Pair(tokens, tokens)), backbone={"name": "attention_lstm", "d_model": 16}
    )
    assert loads(tokens.tokenizer)
    return model.eval()


def t5():
    torch.manual_seed(0)
    tokens = text_spec().x
    backbone = {"name": "transformer_encoder_decoder", "position_encoding": "relative", "tie_weights": False, **SMALL}
    model = zoo.create_model("t5", data=zoo.DataSpec(Pair(tokens, tokens)), backbone=backbone)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.4)
    return model.eval()


def phrases():
    torch.manual_seed(0)
    tokens = text_spec().x
    model = zoo.create_model("phrase_based", data=zoo.DataSpec(Pair(tokens, tokens)))
    model.translate = lambda sources: [source[::-1] for source in sources]  # stands for a trained one
    return model.eval()


FAMILIES = {
    "transformer": language_model,
    "lstm": lambda: language_model(backbone={"name": "lstm", "d_model": 16, "n_layers": 2}),
    "learned": lambda: language_model(backbone={"name": "transformer", **SMALL, "position_encoding": "learned"}),
    "documents": lambda: language_model(document_mask=True),
    "ngram": n_gram,
    "translator": translator,
    "t5": t5,
    "phrases": phrases,
}


@pytest.fixture(scope="module")
def families():
    with running(FAMILIES) as server:
        yield server


def complete(client, model, options):
    asked = {"model": model, "max_tokens": 40, "logprobs": 2} | options
    answer = client.post("/v1/completions", json=asked)
    assert answer.status_code == 200, answer.text
    return [(c["text"], c["finish_reason"], c["logprobs"]["token_logprobs"]) for c in answer.json()["choices"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_gives_the_same_alone_and_among_seven_others(families, family):
    with httpx.Client(base_url=families.url, timeout=60) as client:
        alone = [complete(client, family, options) for options in REQUESTS]
        with ThreadPoolExecutor(len(REQUESTS)) as threads:
            together = list(threads.map(lambda options: complete(client, family, options), REQUESTS))
    for one, other in zip(alone, together, strict=True):
        assert [c[:2] for c in one] == [c[:2] for c in other]
        for first, second in zip(one, other, strict=True):
            assert first[2] == pytest.approx(second[2], abs=1e-5)


def test_they_did_run_together():
    """Negative control of the test above: the steps of eight requests are far fewer than their tokens."""
    model, steps = language_model(), []
    step = model.net.step

    def counted(tokens, state):
        steps.append(len(tokens))
        return step(tokens, state)

    model.net.step = counted
    with running({"letters": lambda: model}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        body = {"model": "letters", "prompt": "ab", "max_tokens": 50, "n": 4, "seed": 1, "stop": ["never"]}
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: client.post("/v1/completions", json=body), range(2)))
    assert max(steps) > 4, "rows of both requests in one step"
    assert sum(steps) > 300


@pytest.mark.parametrize("make", [translator, t5, phrases])
def test_translations_of_several_requests_share_a_step(make):
    scheduler = TextScheduler(make(), 32)
    jobs = [TextJob(["ab" * n], TextParams(n=2, seed=n, max_tokens=50), Limits()) for n in (1, 5, 20)]
    for job in jobs[:2]:
        scheduler.start(job)
    assert [len(batch.rows) for batch in scheduler.batches] == [4]
    scheduler.step()
    scheduler.start(jobs[2])
    assert len(scheduler.batches) == 1, "a request joins translations that have begun"
    while scheduler.jobs:
        scheduler.step()
    assert all(isinstance(job.take()[-1], Finished) for job in jobs)


def slow_model(seconds=0.02):
    """A model whose every step takes a while."""
    model = language_model()
    step = model.net.step

    def wait(*args):
        time.sleep(seconds)
        return step(*args)

    model.net.step = wait
    return model


LONG = {"model": "slow", "prompt": "a", "max_tokens": 4000, "temperature": 0, "stream": True}


def wait_until(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
    return seconds - (until - time.monotonic())


def test_the_queue_has_a_limit():
    with (
        running({"slow": slow_model}, rows=1, queue=1) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        client.get("/api/models")
        engine = server.engine("slow")
        with client.stream("POST", "/v1/completions", json=LONG) as first:
            assert first.status_code == 200
            with ThreadPoolExecutor(1) as threads:
                second = threads.submit(
                    lambda: client.post("/v1/completions", json=LONG | {"stream": False, "max_tokens": 3})
                )
                wait_until(lambda: len(engine.waiting) == 1)
                third = client.post("/v1/completions", json=LONG)
                assert third.status_code == 429
                assert int(third.headers["retry-after"]) >= 1
                assert third.json()["error"]["code"] == "rate_limit_exceeded"
                first.close()
                assert second.result().status_code == 200, "it had only to wait"


@pytest.mark.parametrize("body", [LONG, LONG | {"stream": False}])
def test_a_client_that_goes_away_frees_its_slot(body):
    with running({"slow": slow_model}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/api/models")
        engine = server.engine("slow")
        data = json.dumps(body).encode()
        raw = socket.create_connection(("127.0.0.1", server.server.port))
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        wait_until(lambda: engine.n_running == 1)
        raw.close()
        assert wait_until(lambda: engine.n_running == 0) < 0.5
        assert server.server.service.pool.loaded["slow"].users == 0


def test_a_picture_whose_client_goes_away_is_not_finished():
    """A sampler is interrupted between two passes of its network."""
    model = picture_model("diffusion", denoiser={"name": "mlp", "width": 16, "depth": 1})
    model.denoiser.register_forward_hook(lambda *_: time.sleep(0.02))
    with running({"slow": lambda: model}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/api/models")
        with pytest.raises(httpx.ReadTimeout):
            client.post("/api/sample", json={"model": "slow", "options": {"steps": 1000}}, timeout=0.3)
        assert wait_until(lambda: server.engine("slow").n_running == 0) < 0.5


def test_the_step_of_a_server_is_that_of_generate(monkeypatch):
    """The interruption of calls does not make tokens slower, and still interrupts a call between two of them."""
    steps = []
    fast = DecodeStep.__call__
    monkeypatch.setattr(DecodeStep, "__call__", lambda self, *given: (steps.append(1), fast(self, *given))[1])
    model = language_model()
    engine = Engine("letters", model, Limits(), None)
    model.generate("ab", max_new_tokens=16, seed=1)
    alone = len(steps)
    job = TextJob(["ab"], TextParams(max_tokens=16, seed=1), Limits())
    engine.scheduler.start(job)
    while not job.finished:
        engine.scheduler.step()
    assert alone == 15
    assert len(steps) == 2 * alone
    engine.current = CallJob(lambda model: None, 10)
    engine.current.cancelled = True
    tokens = torch.tensor([1])
    with torch.no_grad():
        engine_off, engine.current = engine.current, None
        _, cache = model.net.prefill(tokens[None])
        model.net.step(tokens, cache)
        engine.current = engine_off
        with pytest.raises(Interrupted):
            model.net.step(tokens, cache)
    assert isinstance(cache.step, DecodeStep)


@pytest.mark.parametrize("path", ["/v1/completions", "/api/sample"])
def test_a_request_has_a_time_limit(path):
    with running({"slow": slow_model}, seconds=0.4) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/api/models")
        body = {"model": "slow"} if "sample" in path else LONG | {"stream": False}
        begun = time.monotonic()
        answer = client.post(path, json=body)
        assert answer.status_code == 408, answer.text
        assert time.monotonic() - begun < 1.5
        assert answer.headers["x-should-retry"] == "false"
        wait_until(lambda: server.engine("slow").n_running == 0)


def test_the_end_of_a_server_waits_for_what_runs():
    with running({"slow": slow_model}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.get("/api/models")
        with client.stream("POST", "/v1/completions", json=LONG | {"max_tokens": 40}) as answer:
            server.server.should_exit = True
            wait_until(lambda: server.server.service.closing)
            text = "".join(answer.iter_text())
        assert text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/health")


def test_models_are_unloaded_when_memory_runs_out():
    size = sum(p.numel() * 4 for p in language_model().parameters())
    models = {name: language_model for name in "abc"}
    with running(models, memory=int(2.5 * size)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        pool = server.server.service.pool
        for name in "abca":
            assert client.post("/v1/completions", json={"model": name, "max_tokens": 1}).status_code == 200
        assert set(pool.loaded) == {"c", "a"}, "the longest unused has gone"
        with client.stream("POST", "/v1/completions", json=LONG | {"model": "a"}) as one:
            assert one.status_code == 200
            with client.stream("POST", "/v1/completions", json=LONG | {"model": "c"}) as two:
                assert two.status_code == 200
                answer = client.post("/v1/completions", json={"model": "b", "max_tokens": 1})
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
        assert client.post("/v1/completions", json={"model": "b", "max_tokens": 1}).status_code == 200


def test_a_model_that_cannot_be_loaded_is_named():
    def broken():
        raise zoo.CheckpointError("/secret/place: damaged. Train again.")

    with (
        running({"broken": broken, "letters": language_model}) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        answer = client.post("/v1/completions", json={"model": "broken"})
        assert answer.status_code == 503
        assert "secret" not in answer.text
        models = {m["id"]: m for m in client.get("/api/models").json()["models"]}
        assert models["broken"]["error"]
        assert models["letters"]["details"]


def test_two_requests_load_a_model_once():
    loads_, lock = [], threading.Lock()

    def load():
        with lock:
            loads_.append(1)
        time.sleep(0.1)
        return language_model()

    with running({"letters": load}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        body = {"model": "letters", "max_tokens": 1}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: client.post("/v1/completions", json=body).status_code, range(4)))
    assert answers == [200] * 4
    assert len(loads_) == 1


def test_a_slow_reader_gets_fewer_and_longer_pieces():
    events = [Started(3), Piece(0, "a", [1]), Piece(1, "x", [2]), Piece(0, "b", [3], "stop"), Finished(4)]
    assert merged(events) == [Started(3), Piece(0, "ab", [1, 3], "stop"), Piece(1, "x", [2]), Finished(4)]


def test_an_error_comes_after_the_pieces_before_it():
    async def run():
        job = Job(10.0)
        for event in (Piece(0, "a", []), Piece(0, "b", []), ValueError("A fault.")):
            job.events.put_nowait(event)
        assert [piece.text for piece in [await job.next_event(), *job.ready_events()]] == ["a", "b"]
        assert job.ready_events() == []
        with pytest.raises(ValueError, match="A fault"):
            await job.next_event()

    asyncio.run(run())
