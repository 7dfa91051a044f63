"""Architectures in and out against the `transformers` library, over the table of `tests.formats`."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

import zoo
from tests.formats import FORMATS, SIZES, difference, drawn, greedy, in_order, writes
from tests.interop.huggingface.test_config import rewrite
from zoo.core import registry
from zoo.interop.huggingface import save
from zoo.interop.huggingface.architectures import ARCHITECTURES

TOLERANCE = 1e-4
AUTOMATIC = {
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "MTModel": "AutoModelForSeq2SeqLM",
}
# Rows of tables that come back as zeros, because no token reads them. None: the positions contain segment 0.
ENCODERS = ("bert", "roberta", "xlm_roberta", "electra")
UNUSED = {(name, "embed_positions"): 2 for name in ("opt", "bart", "mbart")}
UNUSED |= {(name, f"{part}_embeddings"): None for name in ENCODERS for part in ("position", "token_type")}

SEGMENTS = ("seg_embed", "r_s_bias")  # of XLNet


def kind_of(folder):
    return json.loads((folder / "config.json").read_text())["model_type"]


@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(name, tmp_path):
    theirs, row = drawn(name), FORMATS[name]
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.load(tmp_path / "theirs")
    off, deviation = difference(ours, theirs)
    assert off < TOLERANCE
    assert deviation > (0.15 if name == "t5" else 0.3)  # T5 divides features by sqrt(width) before a tied head
    assert not writes(ours) or greedy(ours, theirs) == 1.0
    save.save(ours, tmp_path / "first")
    assert kind_of(tmp_path / "first") == (row.exported or kind_of(tmp_path / "theirs"))
    save.save(ours, tmp_path / "same", theirs.config.model_type)
    automatic = getattr(transformers, AUTOMATIC[row.head])
    for folder in ("first", "same"):
        again = zoo.load(tmp_path / folder)
        assert save.all_settings(again) == save.all_settings(ours)
        for (key, one), two in zip(ours.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(one, two), key
        assert difference(ours, automatic.from_pretrained(tmp_path / folder).eval())[0] < TOLERANCE
    want, got = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "same"))
    assert want.keys() == got.keys()
    for key, weight in want.items():
        unused = UNUSED.get((name, key.rpartition(".")[0].rpartition(".")[2]), 0)
        if key.endswith(SEGMENTS):  # they change nothing within one segment
            assert not got[key].any()
            continue
        if unused is not None:
            assert torch.equal(weight[unused:], got[key][unused:]), key


@torch.no_grad()
def test_xlnet_predicts_in_any_order(tmp_path):
    theirs = drawn("xlnet")
    theirs.save_pretrained(tmp_path)
    net = zoo.load(tmp_path).net
    tokens = torch.randint(3, 99, (5, 20))
    rank = torch.rand(5, 20).argsort(1)
    rank[:, 0], places = -1, torch.stack([torch.randperm(19)[:8] + 1 for _ in range(5)])
    found = net.two_stream(tokens, rank, places)
    assert (found - in_order(theirs, tokens, rank, places)).abs().max() < TOLERANCE
    assert (found - in_order(theirs, tokens, rank.flip(1).roll(1, 1), places)).abs().max() > 100 * TOLERANCE
    assert (net.content_logits(tokens) - theirs(tokens).logits).abs().max() < TOLERANCE
    one_segment = theirs(tokens, token_type_ids=torch.ones_like(tokens)).logits
    assert (net.content_logits(tokens) - one_segment).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["phi3_long", "phi4_mini"])
@torch.no_grad()
def test_longrope_below_and_above_the_original_window(name, tmp_path):
    theirs = drawn(name)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load(tmp_path)
    other = zoo.load(tmp_path).net
    other.angles = other.angles.flip(0)  # negative control: long and short factors exchanged
    tokens = torch.randint(3, 99, (2, 40))
    for length in (9, 16, 17, 40):
        wanted = theirs(tokens[:, :length]).logits
        assert (ours.net(tokens[:, :length]) - wanted).abs().max() < TOLERANCE, length
        assert (other(tokens[:, :length]) - wanted).abs().max() > 10 * TOLERANCE, length


# Each setting alone, with the same weights: the control of the test above.
CONTROLS = {
    "mistral": [{"window": 0}, {"window": 6}, {"window": 4}],
    "mistral_nemo": [{"attention_scale": 8**-0.5}],
    "gemma": [{"norm": "rmsnorm"}, {"mlp": "swiglu"}, {"scale_embeddings": False}],
    "gemma2": [{"softcap": 0.0}, {"logit_softcap": 0.0}, {"global_every": 0}, {"attention_scale": 0.0}],
    "gemma3": [{"window_theta": 0.0}, {"global_every": 4}],
    "phi3_partial": [{"partial_rotary_factor": 1.0}],
    "gpt_neox": [{"parallel_residual": False}, {"mlp": "relu"}, {"partial_rotary_factor": 0.5}],
    "bart": [{"pre_norm": True, "norm_embeddings": None}, {"mlp": "relu"}, {"scale_embeddings": True}],
    "mbart": [{"mlp": "gelu"}, {"scale_embeddings": False}],
    "marian": [{"mlp": "gelu"}, {"scale_embeddings": False}],
    "xlnet": [{"mlp": "relu"}],
    "mixtral": [{"n_active_experts": 1}, {"n_active_experts": 3}],
}


@pytest.mark.parametrize("name", CONTROLS)
def test_every_setting_shows_in_the_logits(name, tmp_path):
    theirs = drawn(name)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load(tmp_path)
    for change in CONTROLS[name]:
        settings = {"name": ours.registered_name, **ours.hparams, "backbone": {**ours.hparams["backbone"], **change}}
        other = registry.build("model", settings, ours.spec).eval()
        other.load_state_dict(ours.state_dict())
        assert difference(other, theirs)[0] > 10 * TOLERANCE, change


OLD = [  # keys of older versions, and removed keys
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 500}, ("rope_parameters",)),
    ("gpt_neox", {}, ("rope_parameters", "hidden_act", "layer_norm_eps", "use_parallel_residual", "attention_bias")),
    ("gemma2", {}, ("layer_types", "rope_parameters", "final_logit_softcapping", "attn_logit_softcapping")),
    ("gemma2", {"final_logit_softcapping": None, "attn_logit_softcapping": None}, ()),
    ("gemma3", {"rope_theta": 5e4, "rope_local_base_freq": 2e3, "sliding_window_pattern": 2},
     ("rope_parameters", "layer_types", "_sliding_window_pattern")),
    ("gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, ("rope_parameters",)),
    ("mistral", {"sliding_window": None}, ("head_dim", "rope_parameters")),
    ("mistral", {}, ("sliding_window",)),
    ("qwen2_window", {"max_window_layers": 4}, ("layer_types",)),
    ("qwen2_window", {"use_sliding_window": False}, ("layer_types", "sliding_window")),
    ("mixtral", {"rope_theta": 100.0, "sliding_window": 6}, ("rope_parameters", "num_experts_per_tok")),
    ("phi3", {}, ("rope_parameters", "original_max_position_embeddings")),
    ("roberta", {}, ("pad_token_id", "hidden_act", "tie_word_embeddings")),
    ("distilbert", {"sinusoidal_pos_embds": True}, ("activation", "tie_word_embeddings")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "remove"), OLD)
def test_keys_are_read_as_transformers_reads_them(name, change, remove, tmp_path):
    drawn(name).save_pretrained(tmp_path)
    rewrite(tmp_path, change, remove)
    theirs = getattr(transformers, AUTOMATIC[FORMATS[name].head]).from_pretrained(tmp_path).eval()
    assert difference(zoo.load(tmp_path), theirs)[0] < TOLERANCE


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "layer_types": None, "max_window_layers": 1},
         r"layer_types=\['full_attention', 'sliding_attention', .* is not supported by language_model"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types=.*Supported: sliding_attention or full"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma3", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}}, "'linear'"),
        ("qwen3", {"attention_bias": True}, "attention_bias=True is not supported"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4}}, "long_factor is miss"),
        ("gpt_neox", {"hidden_act": "gelu_fast"}, "hidden_act='gelu_fast'.*Supported: gelu, gelu_new"),
        ("roberta", {"hidden_act": "gelu_new"}, "hidden_act='gelu_new' is not supported by bert. Supported: 'gelu'"),
        ("roberta", {"type_vocab_size": 3}, "type_vocab_size=3 is not supported"),
        ("roberta", {"pad_token_id": 60}, "max_position_embeddings=40 leaves no position for a token"),
        ("electra", {"embedding_size": 16}, "embedding_size=16 is not supported by bert. Supported: 32, the width"),
        ("bart", {"decoder_ffn_dim": 16}, "decoder_ffn_dim=16 is not supported by seq2seq. Supported: 48, as the enc"),
        ("bart", {"activation_function": "tanh"}, "activation_function='tanh' is not supported.*Supported: gelu, "),
        ("mbart", {"tie_word_embeddings": False}, "tie_word_embeddings=False is not supported"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings=False is not"),
        ("marian", {"decoder_vocab_size": 50}, "decoder_vocab_size=50 is not supported by seq2seq. Supported: 99"),
        ("xlnet", {"clamp_len": 9}, "clamp_len=9 is not supported by xlnet. Supported: -1"),
        ("xlnet", {"attn_type": "uni"}, "attn_type='uni' is not supported by xlnet. Supported: 'bi'"),
        ("xlnet", {"ff_activation": "tanh"}, "ff_activation='tanh' is not supported by xlnet. Supported: gelu, "),
        ("distilbert", {"activation": "relu"}, "activation='relu' is not supported"),
        ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim=16 is not supported"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before=False is not supported"),
        ("mixtral", {"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ("llama", {"model_type": "falcon"}, f"Supported: {', '.join(a.kind for a in ARCHITECTURES)}"),
    ],
)  # fmt: skip
def test_what_our_models_do_not_have_is_refused(name, change, sentence, tmp_path):
    drawn(name).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(zoo.ZooError, match=sentence):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ({"n_experts": 4, "qk_norm_gain": True}, "n_experts=4"),
        ({"window": 4, "global_every": 2}, "global_every=2"),
        ({"attention_scale": 0.3, "norm_place": "both", "norm": "rmsnorm_zero_centered", "mlp": "geglu", "window": 4,
          "scale_embeddings": True}, r"attention_scale=0\.3: not n\^-1/2 of an integer"),
    ],
)  # fmt: skip
def test_settings_without_a_format_are_named(backbone, sentence, tmp_path):
    spec = zoo.DataSpec(zoo.core.spaces.Tokens(16, SIZES["vocab_size"]))
    with pytest.raises(zoo.ZooError, match=sentence):
        save.save(zoo.create_model("llama", data=spec, backbone={"n_layers": 1, **backbone}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
