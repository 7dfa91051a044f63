"""Ten defects that were read in the nearest rival, each absent here."""

import json

import jinja2
import openai
import pytest

from tests.serve.servers import language_model, running
from zoo.serve.keys import Keys, digest

CHAT = [{"role": "user", "content": "hello"}]


def chat(client, **options):
    return client.chat.completions.create(model="letters", messages=CHAT, **{"max_tokens": 12} | options)


def chunks(client, **options):
    return list(chat(client, stream=True, **options))


def test_1_temperature_zero_is_greedy(openai_client):
    texts = {chat(openai_client, temperature=0, seed=seed).choices[0].message.content for seed in range(4)}
    assert len(texts) == 1
    assert len({chat(openai_client, seed=seed).choices[0].message.content for seed in range(4)}) > 1, "and 1 is not"


def test_2_max_tokens_is_read(openai_client):
    assert [chat(openai_client, max_tokens=n, temperature=0).usage.completion_tokens for n in (1, 5)] == [1, 5]


def test_3_stop_seed_and_logprobs_have_an_effect(openai_client):
    plain = chat(openai_client, seed=1, max_tokens=30).choices[0].message.content
    assert chat(openai_client, seed=1, max_tokens=30).choices[0].message.content == plain
    letter = next(c for c in plain[2:] if c.isascii())
    stopped = chat(openai_client, seed=1, max_tokens=30, stop=letter).choices[0]
    assert stopped.message.content == plain[: plain.index(letter)]
    assert chat(openai_client, seed=1, logprobs=True).choices[0].logprobs.content


def test_4_the_finish_reason_tells_the_limit_from_a_stop(openai_client):
    plain = chat(openai_client, temperature=0)
    assert plain.choices[0].finish_reason == "length"
    first = next(c for c in plain.choices[0].message.content if c.isascii())
    assert chat(openai_client, temperature=0, stop=first).choices[0].finish_reason == "stop"
    assert chunks(openai_client, temperature=0)[-1].choices[0].finish_reason == "length"


def test_5_all_chunks_have_one_id(openai_client):
    found = chunks(openai_client, seed=1)
    assert len(found) > 3
    assert len({chunk.id for chunk in found}) == len({chunk.created for chunk in found}) == 1


def test_6_a_stream_of_several_choices_ends_with_the_longest(openai_client):
    """One choice stops early by a stop sequence, and the others continue."""
    whole = chat(openai_client, seed=4, n=3, max_tokens=40, stop=["F", "1"])
    lengths = [len(choice.message.content) for choice in whole.choices]
    assert len(set(lengths)) > 1
    texts, ends = [""] * 3, [0] * 3
    for chunk in chunks(openai_client, seed=4, n=3, max_tokens=40, stop=["F", "1"]):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] += choice.finish_reason is not None
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [1, 1, 1]


def test_7_an_error_in_mid_stream_reaches_the_client():
    model = language_model()
    with running({"letters": lambda: model}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        step, n = model.net.step, 0

        def failing(*args):
            nonlocal n
            n += 1
            if n > 3:
                raise RuntimeError("A fault.")
            return step(*args)

        model.net.step = failing
        seen = []
        with pytest.raises(openai.APIError, match="server failed"):
            seen.extend(chat(client, stream=True, temperature=0))
        assert seen
        del model.net.step
        assert chat(client).choices[0].finish_reason, "the server continues"


def test_8_usage_is_sent_where_it_is_asked_for_only(openai_client):
    assert all(chunk.usage is None for chunk in chunks(openai_client))
    *rest, last = chunks(openai_client, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in rest)


def test_9_a_bearer_key_is_understood_and_compared_as_a_whole():
    keys = Keys((digest("zoo-other"), digest("zoo-right")))
    with running({"letters": language_model}, keys) as server:
        for key, good in (("zoo-right", True), ("zoo-other", True), ("zoo-righ", False), ("", False)):
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key or "-", max_retries=0)
            if good:
                assert chat(client).choices
            else:
                with pytest.raises(openai.AuthenticationError) as caught:
                    chat(client)
                assert caught.value.code == "invalid_api_key"


def test_10_a_chat_template_does_not_execute_code(tmp_path):
    """The template of a downloaded folder: a plain Jinja template runs its command, and the server refuses it."""
    ran = tmp_path / "ran"
    template = f"{{{{ cycler.__init__.__globals__.os.system('touch {ran}') }}}}"
    jinja2.Template(template).render()
    assert ran.exists(), "the control: the attack works"
    ran.unlink()

    def hostile():
        model = language_model()
        model.tokenizer.files = {"tokenizer_config.json": json.dumps({"chat_template": template})}
        return model

    with running({"letters": hostile}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.BadRequestError, match="chat template refuses"):
            chat(client)
        assert client.completions.create(model="letters", prompt="a", max_tokens=1).choices, "the server continues"
    assert not ran.exists()
