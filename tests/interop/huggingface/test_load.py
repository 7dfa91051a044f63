"""Checkpoints of the Hugging Face format, in and out, against the `transformers` library; nothing is downloaded.

Weights have a standard deviation of 0.2. With the usual 0.02, a wrong activation or norm hardly affects the logits.
"""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

import zoo
from zoo.core.spaces import Pair, Tokens
from zoo.data.text.chat import template_of
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.pretrained import Pretrained, as_pretrained
from zoo.interop.huggingface import save

VOCABULARY = 99
SMALL = {"initializer_range": 0.2}
TEXT = "def add(a, b):\n    return a + b  # Grüße, 123456\n\n\nclass Näher:\n        pass\n"


def gpt2():
    sizes = {"n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 98, "eos_token_id": 98}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, **sizes, **SMALL))


def llama(**other):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 40, "rms_norm_eps": 1e-5} | other
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=VOCABULARY, **sizes, **SMALL))


def bert():
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    return transformers.BertForMaskedLM(
        transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=40, **sizes, **SMALL)
    )


def t5(**other):
    sizes = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    config = transformers.T5Config(vocab_size=VOCABULARY, n_positions=40, decoder_start_token_id=0, **sizes, **other)
    return transformers.T5ForConditionalGeneration(config)


THEIRS = {
    "gpt2": gpt2,
    "llama": llama,
    "llama_tied": lambda: llama(tie_word_embeddings=True, num_key_value_heads=4, rope_theta=500.0),
    "bert": bert,
    "t5": t5,
    "t5_gated": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}


def drawn(name):
    """A model of `transformers` with random biases and gains: initial values would hide errors."""
    torch.manual_seed(0)
    model = THEIRS[name]().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.2 * torch.randn_like(p))
            elif name.startswith("t5"):  # whose own initialisation does not listen to one number
                p.normal_(std=0.2)
    return model


def ours_and_theirs(ours, theirs):
    """Logits of both, on the same tokens."""
    tokens = torch.randint(0, VOCABULARY, (3, 40))
    if isinstance(ours.spec.x, Pair):
        target = torch.randint(1, VOCABULARY, (3, 17))
        return ours.predict(tokens, target), theirs(tokens, labels=target).logits
    return ours.net(tokens), theirs(tokens).logits


@pytest.fixture(params=THEIRS)
def both(request, tmp_path):
    """A model of `transformers`, and its folder."""
    theirs = drawn(request.param)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, tmp_path / "theirs"


@torch.no_grad()
def test_logits_are_equal(both):
    theirs, folder = both
    got, want = ours_and_theirs(zoo.load(folder), theirs)
    assert want.std() > 0.1
    assert (got - want).abs().max() < 1e-4


@torch.no_grad()
def test_there_and_back_is_bit_for_bit_the_same(both, tmp_path):
    theirs, folder = both
    ours = zoo.load(folder)
    save.save(ours, tmp_path / "back")
    again = zoo.load(tmp_path / "back")
    assert dict(again.hparams) == dict(ours.hparams)
    for (name, one), two in zip(ours.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    reread = type(theirs).from_pretrained(tmp_path / "back").eval()
    got, want = ours_and_theirs(ours, reread)
    assert (got - want).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_writing_is_equal(name, tmp_path):
    theirs = drawn(name)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load(tmp_path)
    from zoo.nn.samplers.autoregressive import sample_tokens
    from zoo.nn.samplers.sampling_params import SamplingParams

    prompts = torch.randint(0, 90, (4, 7))
    tokens = next(sample_tokens(ours.net, prompts.tolist(), SamplingParams(temperature=0.0), block_size=20))[0]
    want = theirs.generate(prompts, do_sample=False, max_new_tokens=20, eos_token_id=None, pad_token_id=0)
    assert torch.equal(tokens, want[:, 7:])


def test_a_wrong_activation_would_show(tmp_path):
    """The control: exact GELU in place of GPT-2's, as nanoGPT has it, differs by more than the tolerance."""
    theirs = drawn("gpt2")
    theirs.save_pretrained(tmp_path)
    ours = zoo.load(tmp_path)
    for block in ours.net.blocks:
        block.mlp.kind = "gelu"
    tokens = torch.randint(0, VOCABULARY, (3, 40))
    with torch.no_grad():
        assert (ours.net(tokens) - theirs(tokens).logits).abs().max() > 1e-3


def trained_tokenizer(size=300):
    return BPE(min_frequency=1, vocab_size=size).fit([TEXT * 20])


def test_the_zoos_own_model_goes_out_with_its_tokenizer_and_writes_the_same_text(tmp_path):
    tokenizer = trained_tokenizer()
    tokenizer.chat_format = "chat"
    spec = zoo.DataSpec(Tokens(64, tokenizer.vocab_size, dumps(tokenizer)))
    torch.manual_seed(0)
    model = zoo.create_model("llama", data=spec, backbone={"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2})
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    save.save(model.eval(), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert reader(TEXT)["input_ids"] == tokenizer.encode_prompt(TEXT)
    assert reader.decode(tokenizer.encode(TEXT)) == TEXT
    prompt = [tokenizer.begin, *tokenizer.encode("def ad")]
    want = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=30)[0, len(prompt) :].tolist()
    done = model.generate(["def ad"], temperature=0.0, max_new_tokens=30)[0]
    assert done.tokens == [t for t in want if t != tokenizer.end]
    assert done.text == reader.decode(want, skip_special_tokens=True)
    again = zoo.load(tmp_path)
    assert again.generate(["def ad"], temperature=0.0, max_new_tokens=30)[0].text == done.text
    chat = [{"role": "user", "content": "def"}]
    asked = reader.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert asked == template_of(again.tokenizer).render(chat) == template_of(tokenizer).render(chat)


def test_tokenizers_are_read_and_kept(tmp_path):
    own = trained_tokenizer()
    text, special = as_pretrained(own)
    (tmp_path / "tokenizer.json").write_text(text)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(special))
    read = Pretrained(path=str(tmp_path))
    again = loads(dumps(read))
    for tokenizer in (read, again):
        assert tokenizer.vocab_size == own.vocab_size
        assert (tokenizer.begin, tokenizer.end) == (own.end, own.end)
        for sample in (TEXT, "naïve \U0001f600 \n\n\t x", "", "a\0b \u2028 c"):
            ids = tokenizer.encode(sample)
            assert ids == own.encode(sample)
            assert tokenizer.decode(ids) == sample
            assert b"".join(tokenizer.pieces[i] for i in ids).decode() == sample


def test_wordpieces_and_sentencepieces_spell_their_bytes(tmp_path):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "[CLS]": 3, "[SEP]": 4}, unk_token="[UNK]"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    words.save(str(tmp_path / "tokenizer.json"))
    read = Pretrained(path=str(tmp_path))
    assert read.encode("playing play") == [1, 2, 1]
    assert [read.pieces[i] for i in (1, 2)] == [b" play", b"ing"]
    assert (read.begin, read.end, read.unknown) == (3, 4, 0)
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581a", -1.0), ("b", -2.0), ("</s>", -9.0)], unk_id=0))
    pieces.normalizer, pieces.decoder = normalizers.Replace(" ", "\u2581"), decoders.Metaspace()
    pieces.save(str(tmp_path / "tokenizer.json"))
    read = Pretrained(path=str(tmp_path))
    assert [read.pieces[i] for i in read.encode(" ab")] == [b" a", b"b"]
    assert (read.end, read.unknown) == (3, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "gpt3"}, "model_type='gpt3' is not supported"),
        ({"activation_function": "relu"}, "activation_function='relu' is not supported"),
        ({"n_embd": 64}, "has shape .* but by config.json it is"),
        ({"n_layer": 4}, "weights transformer.h.3.* are missing"),
        ({"n_layer": 2}, "not a GPT2LMHeadModel; unexpected weights"),
        ({"vocab_size": 0}, "vocab_size=0 is not an integer"),
        ({"n_embd": None}, "n_embd is missing"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, sentence, tmp_path):
    drawn("gpt2").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(zoo.ZooError, match=sentence):
        zoo.load(tmp_path)


def test_damaged_folders_are_refused(tmp_path):
    drawn("gpt2").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(zoo.ZooError, match=r"model\.safetensors is damaged"):
        zoo.load(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(zoo.ZooError, match="can contain code"):
        zoo.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(zoo.ZooError, match="not a JSON object"):
        zoo.load(tmp_path)


def test_what_none_of_theirs_has_is_not_written(tmp_path):
    spec = zoo.DataSpec(Tokens(16, 20))
    with pytest.raises(zoo.ZooError, match="no counterpart in the Hugging Face format"):
        save.save(zoo.create_model("gpt", data=spec), tmp_path / "out")
    with pytest.raises(zoo.ZooError, match="window=4"):
        save.save(zoo.create_model("gpt2", data=spec, backbone={"window": 4, "n_layers": 1}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zoo_export_writes_a_folder_once(tmp_path, capsys):
    drawn("gpt2").save_pretrained(tmp_path / "theirs")
    where = save.export(tmp_path / "theirs")
    assert "transformers.GPT2LMHeadModel.from_pretrained" in capsys.readouterr().out
    with pytest.raises(zoo.ZooError, match="is not empty"):
        save.export(tmp_path / "theirs")
    assert (where / "model.safetensors").is_file()


def test_weights_in_several_files(tmp_path):
    theirs = drawn("gpt2")
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    tokens = torch.randint(0, VOCABULARY, (1, 9))
    with torch.no_grad():
        assert (zoo.load(tmp_path).net(tokens) - theirs(tokens).logits).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_saved_in_several_files(name, tmp_path):
    theirs = drawn(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(tmp_path / "theirs")
    save.save(ours, tmp_path / "back", max_shard_size=20_000)
    files = sorted(file.name for file in (tmp_path / "back").glob("*.safetensors"))
    assert len(files) > 2
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    found = {name: load_file(tmp_path / "back" / name) for name in files}
    assert index["weight_map"] == {key: name for name, part in found.items() for key in part}
    sizes = [[weight.nbytes for weight in part.values()] for part in found.values()]
    assert all(sum(part) <= 20_000 or len(part) == 1 for part in sizes)
    assert index["metadata"]["total_size"] == sum(map(sum, sizes))
    want = theirs.state_dict()
    for key, weight in type(theirs).from_pretrained(tmp_path / "back").state_dict().items():
        assert torch.equal(weight, want[key]), key
    for key, weight in zoo.load(tmp_path / "back").state_dict().items():
        assert torch.equal(weight, ours.state_dict()[key]), key
    save.save(ours, tmp_path / "back")  # in one file again: transformers would read the old ones
    assert [file.name for file in (tmp_path / "back").glob("model*")] == ["model.safetensors"]


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama_tied", "bert", "t5_gated"])
def test_bfloat16_is_read_by_its_values_and_saved_as_float32(name, tmp_path):
    exact = drawn(name)
    exact.to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    assert {w.dtype for w in load_file(tmp_path / "theirs" / "model.safetensors").values()} == {torch.bfloat16}
    theirs = type(exact).from_pretrained(tmp_path / "theirs", dtype=torch.float32).eval()
    ours = zoo.load(tmp_path / "theirs")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    got, want = ours_and_theirs(ours, theirs)
    assert (got - want).abs().max() < 1e-4
    got, want = ours_and_theirs(ours, drawn(name))
    assert (got - want).abs().max() > 1e-3  # the control: rounding shows
    save.save(ours, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "float32"
    saved = load_file(tmp_path / "back" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    for key, weight in load_file(tmp_path / "theirs" / "model.safetensors").items():
        if name != "bert" or "embeddings" not in key:  # whose positions contain segment 0
            assert torch.equal(saved[key], weight.float()), key


def test_older_tokenizers_are_refused_by_their_names(tmp_path):
    gpt2().save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(zoo.ZooError, match=r"vocab\.json and merges\.txt, but no tokenizer\.json\. Convert it by"):
        zoo.load(tmp_path)
