"""The `openai` package, unmodified, against the models in process."""

import asyncio
import base64
import io
import math

import numpy as np
import openai
import pytest
import torch
from PIL import Image

from tests.serve.servers import CONTEXT, MODELS, language_model, masked_model, picture_model
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.byte import Byte
from zoo.viz.png import pngs

PROMPTS = ["hello", "", "äöü €", "x" * (CONTEXT - 10)]


@pytest.fixture(scope="module")
def letters():
    return language_model()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.7, "top_p": 0.9}, {}])
def test_a_completion_is_that_of_generate(openai_client, letters, prompt, options):
    done = openai_client.completions.create(model="letters", prompt=prompt, max_tokens=20, seed=5, n=2, **options)
    wanted = letters.generate([prompt] * 2, max_new_tokens=20, seed=5, **options)
    assert [choice.text for choice in done.choices] == [w.text for w in wanted]
    reasons = {"eos": "stop", "stop": "stop", "length": "length"}
    assert [choice.finish_reason for choice in done.choices] == [reasons[w.finish_reason] for w in wanted]
    assert done.usage.prompt_tokens == len(Byte().encode_prompt(prompt))
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.model == "letters"


STOPS = [["q"], ["xy", "\n"], ["é"], ["F", "\x1c", "ab"]]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_completion_in_pieces(openai_client, letters, stop, seed):
    """Stop sequences that cut tokens and characters of several bytes."""
    asked = {"model": "letters", "prompt": "ab", "max_tokens": 40, "seed": seed, "stop": stop, "logprobs": 1, "n": 2}
    whole = openai_client.completions.create(**asked)
    texts, tokens, ends = ["", ""], [[], []], ["", ""]
    for chunk in openai_client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.token_logprobs
            ends[choice.index] += choice.finish_reason or ""
    assert texts == [choice.text for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert tokens == [choice.logprobs.token_logprobs for choice in whole.choices]
    wanted = letters.generate(["ab"] * 2, max_new_tokens=40, stop=stop, seed=seed)
    assert texts == [w.text for w in wanted]


def test_log_probabilities_are_those_of_the_model(openai_client, letters):
    prompt = "some text"
    done = openai_client.completions.create(
        model="letters", prompt=prompt, max_tokens=12, seed=1, logprobs=3, echo=True, temperature=0.5, stop=["q"]
    )
    (choice,) = done.choices
    text = choice.text.encode("utf-8", errors="replace")
    assert choice.text.startswith(prompt)
    ids = [letters.begin, *Byte().encode(prompt)]
    generated = letters.generate(prompt, max_new_tokens=12, seed=1, temperature=0.5, stop=["q"])[0].tokens
    with torch.no_grad():
        log_p = letters.net(torch.tensor([[*ids, *generated]]))[0].log_softmax(-1)
    wanted = [log_p[i, t].item() for i, t in enumerate([*ids[1:], *generated])]
    assert choice.logprobs.token_logprobs == pytest.approx(wanted, abs=1e-5)
    assert len(choice.logprobs.tokens) == len(choice.logprobs.text_offset) == len(wanted)
    assert choice.logprobs.text_offset[: len(prompt)] == list(range(len(prompt)))
    best = log_p[0].topk(3).values.tolist()
    assert sorted(choice.logprobs.top_logprobs[0].values(), reverse=True) == pytest.approx(best, abs=1e-5)
    assert text


def test_scoring_a_text_without_generating(openai_client, letters):
    """As evaluation harnesses do: the sum is the log-likelihood."""
    texts = ["abc", "a longer text"]
    done = openai_client.completions.create(model="letters", prompt=texts, max_tokens=0, logprobs=0, echo=True)
    for choice, text in zip(done.choices, texts, strict=True):
        assert choice.text == text
        row = torch.tensor([Byte().encode(text)])
        with torch.no_grad():
            assert sum(choice.logprobs.token_logprobs) == pytest.approx(letters.log_prob(row).item(), abs=1e-4)


def test_token_ids_are_prompts_too(openai_client):
    ids = Byte().encode_prompt("hello")
    asked = {"model": "letters", "max_tokens": 8, "seed": 2}
    by_text = openai_client.completions.create(prompt="hello", **asked)
    for prompt in (ids, [ids]):
        assert openai_client.completions.create(prompt=prompt, **asked).choices[0].text == by_text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="token ids"):
        openai_client.completions.create(prompt=[10_000], **asked)


def test_penalties_change_the_text_and_not_the_log_probabilities(openai_client):
    asked = {"model": "letters", "prompt": "a", "max_tokens": 40, "temperature": 0, "logprobs": 0}
    plain = openai_client.completions.create(**asked).choices[0]
    changed = openai_client.completions.create(**asked, frequency_penalty=2, presence_penalty=2).choices[0]
    assert len(set(changed.logprobs.tokens)) > len(set(plain.logprobs.tokens))


def test_a_chat(openai_client, letters):
    """A model without a template reads lines; a turn ends where the next line begins."""
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
    ]
    asked = {"model": "letters", "messages": messages, "max_tokens": 10, "seed": 3, "logprobs": True, "top_logprobs": 2}
    done = openai_client.chat.completions.create(**asked)
    (wanted,) = letters.generate("system:\nbe kind\nuser:\nhello\nassistant:\n", max_new_tokens=10, seed=3)
    assert done.choices[0].message.content == wanted.text
    assert done.choices[0].message.role == "assistant"
    entries = done.choices[0].logprobs.content
    assert sum(entry.logprob for entry in entries) == pytest.approx(wanted.log_prob, abs=1e-4)
    assert b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace") == wanted.text
    assert all(len(entry.top_logprobs) == 2 for entry in entries)
    text, usage = "", None
    for chunk in openai_client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == wanted.text
    assert usage == done.usage


def test_both_names_of_the_limit(openai_client):
    for name in ("max_tokens", "max_completion_tokens"):
        done = openai_client.chat.completions.create(
            model="letters", messages=[{"role": "user", "content": "x"}], seed=0, temperature=0, **{name: 3}
        )
        assert done.usage.completion_tokens == 3


def test_the_asynchronous_client(server):
    async def run() -> tuple[str, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            asked = {"model": "letters", "prompt": "ab", "max_tokens": 10}
            found = [client.completions.create(**asked, seed=seed) for seed in range(4)]
            texts = [done.choices[0].text for done in await asyncio.gather(*found)]
            stream = await client.completions.create(**asked, seed=0, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream]), texts

    streamed, texts = asyncio.run(run())
    assert streamed == texts[0]
    assert len(set(texts)) > 1


def test_models_are_listed_and_looked_up(openai_client):
    assert {model.id for model in openai_client.models.list()} == MODELS.keys()
    assert openai_client.models.retrieve("letters").object == "model"
    with pytest.raises(openai.NotFoundError, match="did you mean 'letters'"):
        openai_client.models.retrieve("leters")
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.completions.create(model="gpt-5", prompt="a")
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_embeddings_in_both_encodings(openai_client):
    texts = ["one", "another"]
    with torch.no_grad():
        wanted = masked_model().embed(texts).tolist()
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        found = openai_client.embeddings.create(model="masks", input=texts, **encoding)
        vectors = [row.embedding for row in found.data]
        if encoding.get("encoding_format") == "base64":
            vectors = [np.frombuffer(base64.b64decode(v), "<f4").tolist() for v in vectors]
        assert vectors == [pytest.approx(row, abs=1e-6) for row in wanted]
        assert found.usage.prompt_tokens == sum(len(t) + 1 for t in texts)
    single = openai_client.embeddings.create(model="masks", input="one").data[0].embedding
    assert single == pytest.approx(wanted[0], abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="does not embed"):
        openai_client.embeddings.create(model="letters", input="a")


def test_pictures_are_those_of_sample(openai_client):
    model = picture_model(conditional=True)
    found = openai_client.images.generate(model="classes", prompt="3", n=2, size="8x8", extra_body={"seed": 7})
    with torch.no_grad():
        wanted = model.sample(2, condition=torch.tensor([3, 3]), generator=make_generator(7))
    for data, x in zip(found.data, wanted, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.b64_json))).convert("L"))
        assert np.abs(pixels / 255 - x[0].numpy()).max() <= 0.5 / 255 + 1e-6
    for wrong in (
        {"prompt": "a cat"},
        {"prompt": "10"},
        {"prompt": "1", "size": "1024x1024"},
        {"prompt": "1", "n": 513},
    ):
        with pytest.raises(openai.BadRequestError):
            openai_client.images.generate(model="classes", **wrong)


@pytest.mark.parametrize("brief", [0, 2**20])
def test_many_pictures_are_those_of_sample_in_either_thread(openai_client, monkeypatch, brief):
    """Small ones are encoded by the model's thread, larger ones by another."""
    monkeypatch.setattr("zoo.serve.media.BRIEF", brief)
    found = openai_client.images.generate(model="digits", prompt="", n=512, extra_body={"seed": 7})
    with torch.no_grad():
        wanted = pngs(picture_model().sample(512, generator=make_generator(7)))
    assert [data.b64_json for data in found.data] == wanted


def test_a_masked_model_continues_texts(openai_client):
    done = openai_client.completions.create(model="masks", prompt="ab", max_tokens=5, seed=1)
    (wanted,) = masked_model().generate("ab", max_new_tokens=5, seed=1)
    assert done.choices[0].text == wanted.text
    chunks = list(openai_client.completions.create(model="masks", prompt="ab", max_tokens=5, seed=1, stream=True))
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == wanted.text


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 100}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**7}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"best_of": 3}, "best_of"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"prompt": "x" * 300}, "prompt"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(openai_client, options, param):
    asked = {"model": "letters", "prompt": "a"} | options
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.completions.create(**asked)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_what_has_no_effect_is_accepted(openai_client):
    done = openai_client.completions.create(
        model="letters", prompt="a", max_tokens=2, user="me", best_of=1, logit_bias={}, suffix=None
    )
    assert done.usage.completion_tokens <= 2
    assert math.isfinite(done.created)
