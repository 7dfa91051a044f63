"""Every key of a config.json is read as `transformers` reads it, or refused; exports are read by `transformers`."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import zoo
from tests.interop.huggingface.test_load import THEIRS, drawn, llama, ours_and_theirs, trained_tokenizer
from zoo.core.spaces import Pair, Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.interop.huggingface import save

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def rewrite(folder, change, remove=()):
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in remove} | change
    (folder / "config.json").write_text(json.dumps(config))
    return config


@torch.no_grad()
def assert_equal_logits(folder, kind):
    theirs = type(drawn(kind)).from_pretrained(folder).eval()
    got, want = ours_and_theirs(zoo.load(folder), theirs)
    assert want.std() > 0.1
    assert (got - want).abs().max() < 1e-4 * max(1.0, float(want.std()))
    return want


ROPES = [
    {"rope_theta": 500000.0, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}},
    {"rope_theta": 1000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    {"rope_theta": 1000.0, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    {"rope_theta": 1000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10}},
    {"rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0, "factor": 8.0, "mscale": 2.0, "mscale_all_dim": 0.5,
                         "original_max_position_embeddings": 5, "beta_fast": 4.0, "truncate": False}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    {"rope_theta": 77.0, "rope_scaling": None},
    {},
]  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
def test_rotary_angles_of_every_kind(rope, tmp_path):
    drawn("llama").save_pretrained(tmp_path)
    plain = assert_equal_logits(tmp_path, "llama")
    rewrite(tmp_path, rope, ("rope_parameters",))
    scaled = assert_equal_logits(tmp_path, "llama")
    ours = zoo.load(tmp_path)
    save.save(ours, tmp_path / "back")
    assert dict(zoo.load(tmp_path / "back").hparams) == dict(ours.hparams)
    assert torch.equal(scaled, assert_equal_logits(tmp_path / "back", "llama"))
    kind = next((v["type"] for v in rope.values() if isinstance(v, dict) and "type" in v), "")
    assert torch.equal(plain, scaled) == (rope == {}) or kind == "dynamic"


REMOVABLE = {
    "gpt2": ("layer_norm_epsilon", "n_inner", "activation_function", "tie_word_embeddings"),
    "llama": ("tie_word_embeddings", "rms_norm_eps", "hidden_act", "attention_bias", "head_dim"),
    "bert": ("layer_norm_eps", "hidden_act", "type_vocab_size", "tie_word_embeddings"),
    "t5": ("layer_norm_epsilon", "feed_forward_proj", "is_gated_act", "dense_act_fn", "tie_word_embeddings",
           "relative_attention_num_buckets", "scale_decoder_outputs", "is_encoder_decoder"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REMOVABLE)
def test_missing_keys_have_the_defaults_of_transformers(kind, tmp_path):
    drawn(kind).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    drop = [key for key in REMOVABLE[kind] if not (kind == "llama" and key == "rms_norm_eps")]
    rewrite(tmp_path, {}, [*drop, *(["rms_norm_eps"] if kind == "llama" else [])])
    assert set(REMOVABLE[kind]) & set(config)
    assert_equal_logits(tmp_path, kind)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "t5"])
@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq"}},
        {"pruned_heads": {"0": [1]}},
        {"sliding_window": 4},
        {"auto_map": {"AutoModel": "code.Model"}},
        {"some_new_key": True},
        {"is_encoder_decoder": None},
    ],
)
def test_a_key_that_is_not_read_is_refused(kind, change, tmp_path):
    drawn(kind).save_pretrained(tmp_path)
    if "is_encoder_decoder" in change:
        change = {"is_encoder_decoder": kind != "t5"}
    rewrite(tmp_path, change)
    with pytest.raises(zoo.ZooError, match=f"{next(iter(change))}=.* is not supported"):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "rope_parameters.short_factor is missing"),
        ("llama", {"rope_scaling": {"rope_type": "twisted", "factor": 4}}, "rope_type='twisted' is not supported"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_parameters.factor is missing"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "speed": 3}}, "rope_parameters.speed=3"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn='silu' is not supported"),
        ("gpt2", {"model_type": "gptj"}, "model_type='gptj' is not supported. Supported: gpt2, llama, bert, roberta"),
    ],
)
def test_values_that_change_the_model_are_refused(kind, change, sentence, tmp_path):
    drawn(kind).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(zoo.ZooError, match=sentence):
        zoo.load(tmp_path)


def test_old_files_with_defaults_of_generation_are_read(tmp_path):
    drawn("gpt2").save_pretrained(tmp_path)
    rewrite(tmp_path, {"n_ctx": 40, "do_sample": True, "task_specific_params": {"a": 1}, "torch_dtype": "float32"})
    assert_equal_logits(tmp_path, "gpt2")


@pytest.mark.parametrize("kind", ["gpt2", "llama_tied", "t5"])
def test_a_tied_head_may_be_stored(kind, tmp_path):
    drawn(kind).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    embedding = next(
        w for name, w in weights.items() if name.endswith(("wte.weight", "embed_tokens.weight", "shared.weight"))
    )
    save_file({**weights, "lm_head.weight": embedding.clone()}, tmp_path / "model.safetensors", {"format": "pt"})
    assert zoo.load(tmp_path).spec.tokens.vocab_size == len(embedding)
    save_file({**weights, "lm_head.weight": embedding + 1}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(zoo.ZooError, match=r"lm_head.weight are not .* tie_word_embeddings"):
        zoo.load(tmp_path)


T5_ONLY = {"num_sentinels": 0, "backbone": {"name": "transformer_encoder_decoder", "attention_scale": 1.0}}
OWN = {
    "gpt2": {"backbone": {"n_layers": 2, "n_heads": 2, "d_model": 32}},
    "gpt2_eps": {"backbone": {"n_layers": 1, "n_heads": 4, "d_model": 32, "norm_eps": 0.0}},
    "llama": {"backbone": {"n_layers": 2, "n_heads": 4, "d_model": 32}},
    "llama_shared": {"backbone": {"n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "d_model": 32, "tie_weights": True,
                                  "norm_eps": 0.0, "rope_scaling": "yarn"}},
    "bert": {"backbone": {"n_layers": 2, "n_heads": 2, "d_model": 32, "position_encoding": "learned"}},
    "t5": {**T5_ONLY, "backbone": {"n_layers": 2, "n_heads": 2, "d_model": 32, "attention_scale": 1.0}},
    "t5_untied": {**T5_ONLY, "backbone": {"n_layers": 1, "n_heads": 2, "d_model": 32, "attention_scale": 1.0,
                                          "tie_weights": False, "n_decoder": 2, "d_head": 8, "mlp": "geglu"}},
    "t5_other": {**T5_ONLY, "backbone": {"n_layers": 1, "n_decoder": 2, "n_heads": 2, "d_model": 32, "d_head": 8,
                 "mlp": "geglu", "attention_scale": 1.0, "head_scale": 0.5, "d_ff": 40}},
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
@torch.no_grad()
def test_own_models_are_read_by_transformers(name, tmp_path):
    kind = name.partition("_")[0]
    tokenizer = trained_tokenizer()
    text = Tokens(40, tokenizer.vocab_size, dumps(tokenizer))
    torch.manual_seed(0)
    made = zoo.create_model(kind, data=zoo.DataSpec(Pair(text, text) if kind == "t5" else text), **OWN[name]).eval()
    for p in made.parameters():
        p.normal_(std=0.2)
    if name == "t5_other":
        with pytest.raises(zoo.ZooError, match=r"head_scale=0\.5"):
            save.save(made, tmp_path / "out")
        return
    save.save(made, tmp_path / "out")
    assert_equal_logits(tmp_path / "out", kind)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert None not in config.values()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    source = [*tokenizer.encode("def f"), tokenizer.end]  # of an encoder-decoder, as in training
    assert reader("def f")["input_ids"] == (source if kind == "t5" else tokenizer.encode_prompt("def f"))
    assert reader.model_max_length == 40


TINY = {"n_layers": 2, "n_heads": 2, "d_model": 32}


@pytest.mark.parametrize("recipe", ["gpt2", "llama", "t5", "t5_of_text"])
@torch.no_grad()
def test_recipes_are_exported_with_their_defaults(recipe, tmp_path):
    kind = recipe.partition("_")[0]
    tokenizer = trained_tokenizer()
    text = Tokens(40, tokenizer.vocab_size, dumps(tokenizer))
    torch.manual_seed(0)
    spec = zoo.DataSpec(Pair(text, text) if recipe == "t5" else text)
    made = zoo.create_model(kind, data=spec, backbone=TINY).eval()
    for p in made.parameters():
        p.normal_(std=0.2)
    save.save(made, tmp_path / "out")
    read = type(drawn(kind)).from_pretrained(tmp_path / "out").eval()
    extra = made.hparams["num_sentinels"] if recipe == "t5_of_text" else 0
    assert read.config.vocab_size == tokenizer.vocab_size + extra
    tokens = torch.randint(0, tokenizer.vocab_size, (3, 20))
    if kind == "t5":
        target = torch.randint(1, tokenizer.vocab_size + extra, (3, 17))
        got, want = made.predict(tokens, target), read(tokens, labels=target).logits
    else:
        got, want = made.net(tokens), read(tokens).logits
    assert want.std() > 0.1
    torch.testing.assert_close(got, want, atol=1e-4 * max(1.0, float(want.std())), rtol=0)
    assert save.difference(made, zoo.load(tmp_path / "out")) < 1e-3
    if kind == "t5":  # without the factor on queries it would be another model
        for block in read.encoder.block:
            block.layer[0].SelfAttention.q.weight.mul_(4.0)
        assert (read(tokens, labels=target).logits - want).abs().max() > 1e-2


def test_sentinels_are_special_tokens_of_the_export(tmp_path):
    tokenizer = trained_tokenizer()
    text = Tokens(40, tokenizer.vocab_size, dumps(tokenizer))
    save.save(zoo.create_model("t5", data=zoo.DataSpec(text), backbone=TINY), tmp_path / "out")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    first = tokenizer.vocab_size
    assert reader("def <extra_id_0> f<extra_id_99>")["input_ids"][-2:] == [first + 99, tokenizer.end]
    assert first in reader("def <extra_id_0> f")["input_ids"]
    assert reader.decode([first], skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("recipe", "setting"), [("gpt", "mlp=relu_squared"), ("bert", "position_encoding=learned_rotary")]
)
def test_a_default_that_no_architecture_has_is_named(recipe, setting, tmp_path):
    text = Tokens(16, trained_tokenizer().vocab_size, dumps(trained_tokenizer()))
    with pytest.raises(zoo.ZooError, match=setting):
        save.save(zoo.create_model(recipe, data=zoo.DataSpec(text), backbone=TINY), tmp_path / "out")


@torch.no_grad()
def test_a_translation_is_greedily_equal_after_the_export(tmp_path):
    tokenizer = trained_tokenizer()
    text = Tokens(40, tokenizer.vocab_size, dumps(tokenizer))
    torch.manual_seed(1)
    made = zoo.create_model("t5", data=zoo.DataSpec(Pair(text, text)), backbone=TINY).eval()
    for p in made.parameters():
        p.normal_(std=0.2)
    save.save(made, tmp_path / "out")
    read = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for source in ("def f", "class Näher", "a"):
        tokens = reader(source, return_tensors="pt")["input_ids"]
        theirs = read.generate(tokens, do_sample=False, max_new_tokens=12, min_new_tokens=0)[0, 1:].tolist()
        (ours,) = made.generate(source, max_new_tokens=12, temperature=0.0)
        want = list(ours.tokens)
        assert [t for t in theirs if t != tokenizer.end] == [t for t in want if t != tokenizer.end]
        assert want


def test_a_refused_export_leaves_nothing(tmp_path):
    tokenizer = Char().fit(["abc"])
    spec = zoo.DataSpec(Tokens(16, tokenizer.vocab_size, dumps(tokenizer)))
    made = zoo.create_model("llama", data=spec, backbone={"n_layers": 1, "d_model": 16, "n_heads": 2})
    with pytest.raises(zoo.ZooError, match="data/tokenizer=char"):
        save.save(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_the_tokenizer_come_back(tmp_path):
    drawn("llama").save_pretrained(tmp_path)
    tokenizer = trained_tokenizer(99)
    theirs = llama(bos_token_id=1, eos_token_id=2)
    files = save._tokenizer_files(tokenizer, 40)
    config = json.loads(files["tokenizer_config.json"]) | {"chat_template": "{{ bos_token }}", "padding_side": "left"}
    files |= {"tokenizer_config.json": json.dumps(config), "chat_template.jinja": "{% for m in messages %}{% endfor %}"}
    files |= {"generation_config.json": json.dumps({"eos_token_id": [2, 5], "temperature": 0.6})}
    assert theirs.config.vocab_size == 99
    vocabulary = json.loads(files["tokenizer.json"])
    if len(vocabulary["model"]["vocab"]) >= 99:  # bytes alone are more than the model's tokens
        rewrite(tmp_path, {"vocab_size": tokenizer.vocab_size})
        weights = load_file(tmp_path / "model.safetensors")
        wide = {k: torch.randn(tokenizer.vocab_size, 32) if w.shape[0] == 99 else w for k, w in weights.items()}
        save_file(wide, tmp_path / "model.safetensors", {"format": "pt"})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    save.save(zoo.load(tmp_path), tmp_path / "back")
    for name, text in files.items():
        assert (tmp_path / "back" / name).read_text() == text, name
    assert json.loads((tmp_path / "back" / "config.json").read_text())["eos_token_id"] == [2, 5, tokenizer.end]


def test_all_models_of_the_tests_are_read():
    assert set(REMOVABLE) <= set(THEIRS)
