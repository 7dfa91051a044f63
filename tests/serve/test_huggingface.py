"""A Hugging Face folder behind the server against `transformers`: chat template, greedy text, and log-probabilities."""

import json

import openai
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.serve.servers import running
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.pretrained import as_pretrained
from zoo.serve.pool import find_sources

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] | trim + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": " what is the name of the star? "},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model with a byte-level BPE, as `transformers` saves it."""
    place = tmp_path_factory.mktemp("llama")
    text, special = as_pretrained(
        BPE(vocab_size=300).fit(["the name of the star is the sun, and the moon is not a star"])
    )
    (place / "tokenizer.json").write_text(text)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **special}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    size = len(json.loads(text)["model"]["vocab"]) + 1
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, bos_token_id=size - 1, eos_token_id=size - 1,
        )
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3) if p.ndim == 2 else None
    model.save_pretrained(place)
    return place


def test_a_chat_is_that_of_transformers(folder):
    (source,) = find_sources([f"llama={folder}"])
    theirs, tokenizer = LlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = theirs.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        log_p = theirs(torch.cat([ids[0], wanted])[None]).logits[0].log_softmax(-1)[ids.shape[1] - 1 : -1]
    with running({source.name: source.load}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        done = client.chat.completions.create(
            model="llama", messages=MESSAGES, max_tokens=24, temperature=0, logprobs=True, top_logprobs=1
        )
    assert done.choices[0].message.content == tokenizer.decode(wanted, skip_special_tokens=True)
    assert done.usage.prompt_tokens == ids.shape[1]
    entries = done.choices[0].logprobs.content
    assert [e.logprob for e in entries] == pytest.approx(
        log_p.gather(1, wanted[:, None]).squeeze(1).tolist()[: len(entries)], abs=1e-4
    )


def test_the_template_of_the_folder_is_used(folder):
    """The prompt is that of `transformers`, and other messages have another."""
    from zoo.data.text.chat import template_of

    (source,) = find_sources([str(folder)])
    template = template_of(source.load().tokenizer, source.prompt)
    assert template.kind == "huggingface"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert template.render(MESSAGES) == wanted
    assert template.render(MESSAGES[1:]) != wanted


def test_messages_that_the_template_refuses_are_an_error_of_the_client(folder):
    (source,) = find_sources([f"llama={folder}"])
    model = source.load()
    model.tokenizer.files = {"chat_template.jinja": "{{ raise_exception('roles must alternate') }}"}
    with running({"llama": lambda: model}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.BadRequestError, match=r"refuses them \(roles must alternate\)") as caught:
            client.chat.completions.create(model="llama", messages=MESSAGES)
    assert caught.value.param == "messages"
