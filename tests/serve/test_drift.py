"""Drift watch: distances against SciPy, ranks against their law, and a server whose prompts change."""

import json
import re
import time

import httpx2 as httpx
import numpy as np
import openai
import pytest
import torch
from safetensors.torch import save
from scipy import stats

import zoo
from tests.serve.servers import CONTEXT, language_model, running, text_spec
from zoo.core.errors import CheckpointError
from zoo.data.batch import Batch
from zoo.runs.reference_texts import FILE, lengths_of, read_lengths, read_reference, write_reference
from zoo.serve.drift import FEWEST, LEAST, WINDOW, ModelWatch, Watch, distance
from zoo.serve.pool import Source


@pytest.mark.parametrize(("n", "m", "ties"), [(5, 7, False), (200, 64, True), (1, 1, False), (64, 256, True)])
def test_the_distance_is_that_of_scipy(n, m, ties):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(0.3, 1.2, m)
    if ties:
        a, b = a.round(1), b.round(1)
    assert distance(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)


def alarms(values, reference=None) -> list[bool]:
    watch, found = Watch(reference), []
    for value in values:
        watch.add(value)
        if watch.check():
            found.append(watch.alarm)
    return found


def test_an_alarm_rings_once_and_ends():
    rng = np.random.default_rng(0)
    same, other = rng.normal(size=4 * WINDOW), rng.normal(2, 1, size=WINDOW)
    assert alarms(same) == []
    assert alarms(np.concatenate([same, other])) == [True]
    assert alarms(np.concatenate([same, other, same])) == [True, False]
    assert alarms([0.0] * WINDOW + [1.0] * (LEAST - 1)) == [], "too few to say anything"
    slightly = np.concatenate([same, rng.normal(0.2, 1, size=WINDOW)])
    assert alarms(slightly) == [], "significant, and yet small"


def sampled(model, n: int, seed: int) -> torch.Tensor:
    return model.sample(n, generator=torch.Generator().manual_seed(seed))


def reference_of(model, n: int = 64, seed: int = 0) -> Batch:
    x = sampled(model, n, seed)
    return Batch(x[:, :-1], x[:, 1:])


def test_ranks_of_texts_of_the_same_kind_are_uniform_and_of_others_not():
    """The texts are the model's own samples, prompts of all lengths; the control are uniform tokens."""
    model = language_model(std=0.6)
    watch = ModelWatch(model, reference_of(model))
    rows = sampled(model, 120, 1).tolist()
    ranks = [watch.rank(model, row[: 3 + i % (CONTEXT - 3)]) for i, row in enumerate(rows)]
    assert stats.kstest(ranks, "uniform").pvalue > 0.01
    wrong = torch.randint(0, 256, (40, CONTEXT), generator=torch.Generator().manual_seed(2)).tolist()
    assert stats.kstest([watch.rank(model, row) for row in wrong], "uniform").pvalue < 1e-6
    assert watch.rank(model, [1]) is None, "one token has no loss"
    assert ModelWatch(model, None).rank(model, [1, 2, 3]) is None


def test_texts_are_kept_by_a_run_and_a_damaged_file_is_named(tmp_path):
    assert read_reference(tmp_path) is None
    x = torch.randint(0, 9, (100, 80))
    write_reference(tmp_path, x, -x)
    found = read_reference(tmp_path)
    assert torch.equal(found.x, x[:64, :64])
    assert torch.equal(found.y, -x[:64, :64])
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="Delete it"):
        read_reference(tmp_path)


def test_a_training_keeps_held_out_texts(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200)
    data = zoo.create_data("text", path=str(text), tokenizer="byte", context=32, batch_size=8)
    zoo.fit(zoo.create_model("gpt", data=data), data, max_steps=2, progress=False, folder=tmp_path / "run")
    found = read_reference(tmp_path / "run")
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(found.x[: len(batch.x)], batch.x[:64])
    assert torch.equal(found.y[: len(batch.y)], batch.y[:64])


def test_lengths_are_those_of_prompts_with_one_answer():
    y = torch.tensor([
        [-1, -1, 5, 6, 9, -1],  # a prompt of 3 tokens, an answer of 2, its end, and padding
        [1, 2, 3, 4, 5, 6],  # a window of a longer text
        [-1, 4, 9, -1, 5, 9],  # two turns
        [-1, -1, -1, -1, -1, 9],  # an empty answer
        [-1, -1, -1, -1, -1, -1],  # nothing to learn
    ])  # fmt: skip
    assert lengths_of(y).tolist() == [[3, 2], [6, 0]]


def test_a_training_keeps_the_lengths_of_prompts_and_answers(tmp_path):
    lines = [{"prompt": "q" * (1 + i % 7), "response": "a" * (1 + i % 3)} for i in range(80)]
    for name in ("train", "val"):
        rows = [json.dumps(line) for line in lines]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    settings = {"path": str(tmp_path), "prompt": "prompt", "response": "response", "tokenizer": "byte"}
    data = zoo.create_data("instructions", **settings, context=32, batch_size=8)
    zoo.fit(zoo.create_model("gpt", data=data), data, max_steps=1, progress=False, folder=tmp_path / "run")
    lengths = read_lengths(tmp_path / "run")
    assert len(lengths) >= FEWEST
    prompts = {len(data.tokenizer.encode_prompt(line["prompt"])) for line in lines}
    assert {int(n) for n in lengths[:, 0]} == prompts
    assert {int(n) for n in lengths[:, 1]} == {1, 2, 3}


def test_lengths_are_compared_with_those_of_the_training():
    model = language_model()
    lengths = torch.stack([torch.arange(64) % 8 + 1, torch.arange(64) % 4 + 1], 1)
    found = []
    for kept in (lengths, lengths[: FEWEST - 1], None):
        watches = ModelWatch(model, None, kept).watches
        for i in range(2 * LEAST):
            watches["prompt_tokens"].add(20 + i % 3)  # longer than any of the training
            watches["answer_tokens"].add(i % 4 + 1)
        found.append([watches[name].check() for name in ("prompt_tokens", "answer_tokens")])
    assert found == [[True, False], [False, False], [False, False]], "few or no lengths: the first requests"


def test_damaged_lengths_are_named(tmp_path):
    assert read_lengths(tmp_path) is None
    x = torch.randint(0, 9, (4, 8))
    write_reference(tmp_path, x, x)
    assert read_lengths(tmp_path) is None, "windows of a longer text"
    (tmp_path / FILE).write_bytes(save({"x": x, "y": x.clone(), "lengths": x.clone()}))
    with pytest.raises(CheckpointError, match="Delete it"):
        read_lengths(tmp_path)


def gauges(url: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics", timeout=60).text
    return {f"{a}_{q}": float(v) for a, q, v in re.findall(r'^zoo_(drift\w*)\{.*quantity="(\w+)"\} (\S+)', text, re.M)}


def test_prompts_of_another_kind_raise_an_alarm(tmp_path, caplog):
    model = language_model(std=0.6)
    batch = reference_of(model)
    write_reference(tmp_path, batch.x, batch.y)
    assert text_spec().x.length == CONTEXT
    with running({"own": Source("own", lambda: model, folder=tmp_path)}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        watch = None

        def send(prompts):
            nonlocal watch
            for prompt in prompts:
                client.completions.create(model="own", prompt=prompt, max_tokens=1)
                watch = server.server.service.pool.drift.models["own"].watches["prompt_loss"]
            until = time.monotonic() + 20
            while len(watch.last) < LEAST and time.monotonic() < until:
                time.sleep(0.05)

        send([row[:20] for row in sampled(model, LEAST + 6, 3).tolist()])
        assert gauges(server.url)["drift_alarm_prompt_loss"] == 0
        random = torch.randint(0, 256, (3 * LEAST, 20), generator=torch.Generator().manual_seed(2)).tolist()
        send(random)
        found = gauges(server.url)
    assert found["drift_alarm_prompt_loss"] == 1
    assert found["drift_prompt_loss"] > 0.25
    assert [r.message for r in caplog.records if "drift" in r.message] == [
        "model own: prompt_loss has drifted from the training"
    ]
