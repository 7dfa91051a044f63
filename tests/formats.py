"""Architectures of the Hugging Face format against the `transformers` library, on small models with random weights.

    python -m tests.formats     # the table of .github/docs/formats.md, measured here

Weights have a standard deviation of 0.2. With the usual 0.02, a wrong activation or norm hardly affects the logits.
"""

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import zoo
from zoo.core.spaces import Pair
from zoo.interop.huggingface import save
from zoo.models.masked.base import MaskFilling
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams

CONTEXT, VOCABULARY, FIRST = 40, 99, 3  # tokens before the first are special
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": CONTEXT,
         "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip
LLAMA = {"num_key_value_heads": 2, "intermediate_size": 48}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.05, 1.1, 1.2],
        "long_factor": [1.5, 2.0, 4.0, 8.0]}  # fmt: skip
ALTERNATING = ["sliding_attention", "full_attention"] * 2


@dataclass(frozen=True)
class Format:
    """A row of the table.

    Args:
        models: published models of this format.
        prefix: of the classes in `transformers`.
        settings: of its configuration, beside the common sizes.
        parts: of the architecture that Llama or GPT-2 do not have.
        config: prefix of the configuration's class, if it is another.
        exported: kind of the export, if another architecture is equal and comes first.
        head: rest of the class's name.
    """

    models: str
    prefix: str
    settings: dict[str, Any] = field(default_factory=dict)
    parts: str = ""
    config: str = ""
    exported: str = ""
    head: str = "ForCausalLM"


MASKED, PAIRS = {"head": "ForMaskedLM"}, {"head": "ForConditionalGeneration"}
T5 = {
    "max_position_embeddings": None,
    "d_kv": 10,
    "d_ff": 48,
    "num_decoder_layers": 3,
    "n_positions": CONTEXT,
    "decoder_start_token_id": 0,
}
XLNET = {"hidden_size": "d_model", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
         "max_position_embeddings": "n_positions"}  # fmt: skip
ROBERTA = {"intermediate_size": 48, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0}
BART = {"encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2}  # fmt: skip

FORMATS = {
    "gpt2": Format("GPT-2, DistilGPT2", "GPT2", {}, "LayerNorm, GELU, learned positions", head="LMHeadModel"),
    "llama": Format("Llama 2, TinyLlama", "Llama", LLAMA, "RMSNorm, SwiGLU, rotary, grouped queries"),
    "llama3": Format("Llama 3.1, 3.2", "Llama", {**LLAMA, "rope_parameters": LLAMA3}, "scaled rotary angles"),
    "smollm": Format("SmolLM, SmolLM 2", "Llama", {**LLAMA, "tie_word_embeddings": True}, "tied head"),
    "mistral": Format("Mistral 7B, Zephyr", "Mistral", {**LLAMA, "sliding_window": 5}, "sliding window"),
    "mistral_nemo": Format("Mistral Nemo, 7B v0.3", "Mistral", {**LLAMA, "sliding_window": None, "head_dim": 10},
                           "width of heads", exported="llama"),
    "qwen2": Format("Qwen 2, 2.5", "Qwen2", LLAMA, "biases of queries, keys and values"),
    "qwen2_window": Format("Qwen 2 with a window", "Qwen2", {**LLAMA, "use_sliding_window": True, "sliding_window": 5,
                           "max_window_layers": 0, "tie_word_embeddings": True}, "sliding window"),
    "qwen3": Format("Qwen 3", "Qwen3", {**LLAMA, "head_dim": 10}, "norms of queries and keys"),
    "gemma": Format("Gemma", "Gemma", {**LLAMA, "head_dim": 10}, "GEGLU, scaled embeddings, gain of 1 + weight"),
    "gemma2": Format("Gemma 2", "Gemma2", {**LLAMA, "head_dim": 10, "sliding_window": 5, "query_pre_attn_scalar": 12,
                     "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0},
                     "soft caps, alternating windows, norms before and after"),
    "gemma3": Format("Gemma 3 270M, 1B (text)", "Gemma3", {**LLAMA, "head_dim": 10, "sliding_window": 5,
                     "query_pre_attn_scalar": 12, "layer_types": ALTERNATING},
                     "two bases of rotary angles, QK-norm", config="Gemma3Text"),
    "phi3": Format("Phi-3 mini, Phi-4", "Phi3", {**LLAMA, "sliding_window": 5}, "fused matrices", exported="mistral"),
    "phi3_long": Format("Phi-3 mini 128k, Phi-3.5", "Phi3", {**LLAMA, "original_max_position_embeddings": 16,
                        "rope_parameters": {**LONG, "partial_rotary_factor": 1.0}}, "angles of short and long texts",
                        exported="llama"),
    "phi4_mini": Format("Phi-4 mini", "Phi3", {**LLAMA, "original_max_position_embeddings": 16,
                        "tie_word_embeddings": True, "rope_parameters": {**LONG, "partial_rotary_factor": 0.75,
                        "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.5, 3.0, 6.0]}}, "partial rotary, longrope"),
    "phi3_partial": Format("Phi-3 without longrope", "Phi3", {**LLAMA, "tie_word_embeddings": True,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
                        "partial rotary"),
    "gpt_neox": Format("Pythia, GPT-NeoX", "GPTNeoX", {"intermediate_size": 48}, "parallel residual, partial rotary"),
    "gpt_neox_serial": Format("Pythia-like, serial", "GPTNeoX", {"intermediate_size": 48, "hidden_act": "gelu_new",
                              "use_parallel_residual": False, "tie_word_embeddings": True}, "serial residual"),
    "opt": Format("OPT 125M, 1.3B ...", "OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}, "ReLU, learned positions"),
    "mixtral": Format("Mixtral 8x7B", "Mixtral", {**LLAMA, "num_local_experts": 5}, "mixture of experts"),
    "mamba2": Format("Mamba 2", "Mamba2", {"num_attention_heads": None, "num_heads": 8, "head_dim": 8,
                     "state_size": 6, "n_groups": 2}, "state spaces in place of attention"),
    "xlnet": Format("XLNet", "XLNet", {"d_inner": 48}, "two streams, any order, relative positions",
                    head="LMHeadModel"),
    "bert": Format("BERT", "Bert", {"intermediate_size": 48}, "encoder, post-norm, segments", **MASKED),
    "roberta": Format("RoBERTa, DistilRoBERTa", "Roberta", ROBERTA, "positions after the padding token",
                      exported="bert", **MASKED),
    "xlm_roberta": Format("XLM-RoBERTa", "XLMRoberta", ROBERTA, "as RoBERTa", exported="bert", **MASKED),
    "distilbert": Format("DistilBERT", "DistilBert", {"hidden_dim": 48}, "no segments", exported="bert", **MASKED),
    "electra": Format("ELECTRA, as wide as its embeddings", "Electra", {"intermediate_size": 48, "embedding_size": 32},
                      "also the discriminator, without a head", exported="bert", **MASKED),
    "t5": Format("T5", "T5", T5, "encoder-decoder, relative positions, ReLU, tied head", **PAIRS),
    "t5_gated": Format("T5 1.1, Flan-T5", "T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
                       "GEGLU, own head", **PAIRS),
    "bart": Format("BART", "Bart", BART, "encoder-decoder, post-norm, learned positions", **PAIRS),
    "mbart": Format("mBART 25, 50", "MBart", {**BART, "scale_embedding": True, "activation_function": "relu"},
                    "pre-norm, norm of embeddings, scaled embeddings", **PAIRS),
    "marian": Format("Marian, OPUS-MT", "Marian", {**BART, "scale_embedding": True, "activation_function": "swish"},
                     "sinusoids, SiLU, bias of logits", head="MTModel"),
}  # fmt: skip


def drawn(name: str) -> Any:
    """A model of `transformers` with matrices of deviation 0.2 and random gains and biases."""
    row = FORMATS[name]
    torch.manual_seed(0)
    settings = {XLNET.get(k, k): v for k, v in SIZES.items()} if row.prefix == "XLNet" else dict(SIZES)
    settings |= row.settings
    config = getattr(transformers, f"{row.config or row.prefix}Config")(**settings)
    model = getattr(transformers, f"{row.prefix}{row.head}")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:  # not Marian's sinusoids
                p.add_(0.2 * torch.randn_like(p)) if p.ndim == 1 else p.normal_(std=0.2)
        for key, buffer in model.named_buffers():
            if key == "final_logits_bias":
                buffer.normal_(std=0.2)
    return model


def logits_of(theirs: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of `theirs` (B, T, V): of the next tokens, or of the same places if it is an encoder."""
    if not isinstance(theirs, transformers.XLNetLMHeadModel):
        logits: torch.Tensor = theirs(tokens).logits
        return logits
    rank = torch.arange(tokens.shape[1] + 1).expand(len(tokens), -1)  # from left to right, and one more place
    return in_order(theirs, torch.nn.functional.pad(tokens, (0, 1)), rank, rank[:, 1:])


def in_order(theirs: Any, tokens: torch.Tensor, rank: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Logits of XLNet (B, M, V) at places (B, M), each from the tokens (B, S) of lower rank (B, S)."""
    hidden = (rank[:, None] >= rank[:, :, None]).float()  # (B, S, S): the query does not see the key
    asked = torch.nn.functional.one_hot(places, tokens.shape[1]).float()  # (B, M, S)
    logits: torch.Tensor = theirs(tokens, perm_mask=hidden, target_mapping=asked).logits
    return logits


def has_longrope(theirs: Any) -> bool:
    """Whether angles depend on the length of the text."""
    return (getattr(theirs.config, "rope_parameters", None) or {}).get("rope_type") == "longrope"


def writes(ours: Any) -> bool:
    """Whether a model writes from left to right."""
    return not isinstance(ours, MaskFilling) or hasattr(ours.net, "prefill")


@torch.no_grad()
def difference(ours: Any, theirs: Any) -> tuple[float, float]:
    """Largest difference of logits on random texts of the whole context, and their standard deviation."""
    context = ours.spec.size
    tokens, targets = torch.randint(FIRST, VOCABULARY, (2, 3, context))
    if isinstance(ours.spec.x, Pair):
        got, want = ours.predict(tokens, targets), theirs(tokens, decoder_input_ids=ours.shift_right(targets)).logits
    else:
        got, want = ours.net(tokens), logits_of(theirs, tokens)
    return float((got - want).abs().max()), float(want.std())


@torch.no_grad()
def greedy(ours: Any, theirs: Any, length: int = 24) -> float:
    """Part of the tokens that we choose greedily, with a cache, which are the likeliest by `theirs` without one.

    Not a number for models that do not write.
    """
    if not writes(ours):
        return float("nan")
    prompts = torch.randint(FIRST, VOCABULARY, (4, 7))
    decoder, rows, sources = ours.net, prompts, ()
    if isinstance(ours.spec.x, Pair):
        decoder, rows, sources = ours.net.after(prompts), torch.full((4, 1), ours.begin), (prompts,)
    tokens = next(sample_tokens(decoder, rows.tolist(), SamplingParams(temperature=0.0), block_size=length))[0]
    whole = torch.cat([rows, tokens], dim=1)
    first = rows.shape[1]
    if has_longrope(theirs):  # the length of a text changes all its positions
        each = [logits_of(theirs, whole[:, :i])[:, -1] for i in range(first, first + length)]
        likeliest = torch.stack(each, 1).argmax(-1)
    else:
        logits = theirs(*sources, decoder_input_ids=whole).logits if sources else logits_of(theirs, whole)
        likeliest = logits[:, first - 1 : -1].argmax(-1)
    return float((likeliest == tokens).double().mean())


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Differences of one format: loaded, and exported and read by `transformers`."""
    theirs = drawn(name)
    theirs.save_pretrained(folder / "theirs")
    ours = zoo.load(folder / "theirs")
    save.save(ours, folder / "back", theirs.config.model_type)
    back = type(theirs).from_pretrained(folder / "back").eval()
    return {"in": difference(ours, theirs)[0], "out": difference(ours, back)[0], "greedy": greedy(ours, theirs)}


def main() -> None:
    """Print the table."""
    transformers.utils.logging.disable_progress_bar()
    print("| models | `model_type` | beside the usual | logits in | logits out | greedy tokens equal |")
    print("|---|---|---|---|---|---|")
    for name, row in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder))
            kind = json.loads((Path(folder) / "theirs" / "config.json").read_text())["model_type"]
        equal = "" if math.isnan(found["greedy"]) else f"{found['greedy']:.0%}"
        cells = f"{found['in']:.0e} | {found['out']:.0e} | {equal}"
        print(f"| {row.models} | `{kind}` | {row.parts} | {cells} |")


if __name__ == "__main__":
    main()
