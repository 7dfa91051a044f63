"""The measurement of a server, with a tiny model."""

import asyncio
import itertools
import json
import os
import time
from pathlib import Path

import pytest
import pytorch_lightning as L

import zoo
from tests.serve.servers import language_model, picture_model, running
from zoo.benchmarks import serving
from zoo.benchmarks.serving import added_latency, bench_serving, request, streams
from zoo.core.errors import ConfigError, ZooError
from zoo.core.spaces import Vector


def saved(model, folder: Path) -> Path:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder


def test_streams_are_counted_by_the_server_itself():
    with running({"benched": language_model}) as server:
        address = ("127.0.0.1", server.server.port)
        seconds, answers = asyncio.run(streams(address, 3, 5, 20))
        assert [answer.tokens for answer in answers] == [20] * 5
        assert all(0 < answer.first < answer.last <= seconds for answer in answers)
        whole = asyncio.run(request(address, {"prompt": "a", "max_tokens": 20, "seed": 1}))
        assert whole.tokens == 20
        assert whole.first == whole.last
        added = added_latency(language_model(), address, os.getpid(), 2)
        assert all(-1000 < value < 1000 for value in added.values())
        with pytest.raises(ZooError, match="400"):
            asyncio.run(request(address, {"prompt": "a", "temperature": -1}))


def test_the_table_and_the_record(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(serving, "TOKENS", 8)
    monkeypatch.setattr(serving, "STREAMS", (1, 2))
    run = saved(language_model(), tmp_path)
    bench_serving(run, 1, tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["streams"] for row in record["results"]] == ["in process", "1", "2"]
    assert all(row["tokens_per_second"] > 0 for row in record["results"])
    assert record["results"][1]["times_one"] == 1
    assert "tokens per s" in capsys.readouterr().out


def test_other_models_are_refused(tmp_path: Path) -> None:
    points = zoo.create_model("vae", data=zoo.DataSpec(Vector(3)))
    with pytest.raises(ConfigError, match="neither texts nor images"):
        bench_serving(saved(points, tmp_path), 1)


def test_images_are_measured_in_turn(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(serving, "ROUND", 0.1)
    monkeypatch.setattr(serving, "IMAGES", (64, 16))
    bench_serving(saved(picture_model(), tmp_path), 3, tmp_path / "record.json")
    assert "images per s" in capsys.readouterr().out
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["least_seconds"] == 0.1
    assert record["images_per_request"] == [64, 16]
    assert [row["per_request"] for row in record["measured"]] == [64] * 3 + [16] * 3
    own, encoded, served = record["measured"][:3]
    assert own["images_per_second"] > max(encoded["images_per_second"], served["images_per_second"]) > 0
    for row in (encoded, served):
        assert row["spread"][0] <= row["of_in_process"] <= row["spread"][1]
    assert served["encoded_spread"][0] <= served["of_encoded"] <= served["encoded_spread"][1]
    assert 0 < served["cpu_of_in_process"] < served["cpu_of_encoded"]


def test_a_round_lasts_and_counts_what_was_called(monkeypatch) -> None:
    monkeypatch.setattr(serving, "ROUND", 0.2)
    calls = list[float]()

    def slow() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.03)

    n, seconds = serving.calls(slow)
    assert n == len(calls) >= 2
    assert calls[-1] - calls[0] < 0.2 <= seconds


def test_rounds_of_images_ask_for_different_ones_over_few_connections() -> None:
    seeds, asked = itertools.count(), list[int]()

    def model():
        made = picture_model()
        sample = made.sample
        made.sample = lambda n, **more: (asked.append(more["generator"].initial_seed()), sample(n, **more))[1]
        return made

    with running({"benched": model}) as server:
        address = ("127.0.0.1", server.server.port)
        n, seconds = asyncio.run(serving.image_requests(address, seeds, 0.1))
        assert seconds >= 0.1
        assert n == len(asked) == len(set(asked)) >= serving.CONNECTIONS
        assert n == next(seeds)
    with running({"benched": language_model}) as server, pytest.raises(ZooError, match="does not generate pictures"):
        asyncio.run(serving.image_requests(("127.0.0.1", server.server.port), seeds, 0.1))


def test_the_time_of_a_process_is_that_of_its_work() -> None:
    """Negative control: sleep takes none."""
    before, own = serving.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - own < 0.3:
        sum(range(1000))
    worked = serving.cpu_seconds(os.getpid())
    assert worked - before == pytest.approx(0.3, abs=0.1)
    time.sleep(0.3)
    assert serving.cpu_seconds(os.getpid()) - worked < 0.1
