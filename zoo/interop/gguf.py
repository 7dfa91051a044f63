"""Export of Llama-shaped language models to GGUF, the file format of llama.cpp.

The format has typed metadata, then tensors with aligned data (ggml-org/ggml, docs/gguf.md, version 3). All tensors are
float32, so nothing is lost; `llama-quantize` makes smaller ones.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.data.text.tokenizers.base import Tokenizer
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.pretrained import Pretrained, as_pretrained
from zoo.hub.pretrained import default_output
from zoo.interop.huggingface.save import described_weights
from zoo.interop.loading import load_for_warm_start
from zoo.io.atomic import atomic_replace
from zoo.models.base import Model

ALIGNMENT = 32  # bytes
VERSION = 3
NAMES = {  # of the Hugging Face format -> GGUF
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
NORMAL, CONTROL = 1, 3  # kinds of tokens
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9  # types of metadata
PACKED = {UINT32: "<I", INT32: "<i", FLOAT32: "<f"}


class Uint(int):
    """An unsigned integer in metadata; plain integers are signed."""


def export(run: str | Path, out: Path | None = None) -> Path:
    """Write a run's best weights as a GGUF file, and print how to use it.

    Args:
        run: run folder, checkpoint, pretrained model or folder of the Hugging Face format.
        out: the file; None is `export/model.gguf` in the run folder.

    Raises:
        CheckpointError: a model that is not Llama-shaped, or another suffix than .gguf.
    """
    out = out or default_output(run, "export", "model.gguf")
    if out.suffix != ".gguf":
        raise CheckpointError(f"--out {out}: must end in .gguf for --format gguf. Rename it.")
    model = load_for_warm_start(str(run))
    content = to_gguf(model, name=out.stem)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(out) as draft:
        draft.write_bytes(content)
    spelled = tokenizer_metadata(getattr(model, "tokenizer", None))["tokenizer.ggml.model"] != "none"
    print(f"{out} ({len(content) / 1e6:.1f} MB, float32)")
    print(f"llama-cli -m {out} -p PROMPT" if spelled else "Its tokenizer has no counterpart in GGUF: give token ids.")
    return out


def to_gguf(model: Model, name: str = "model") -> bytes:
    """Serialise a Llama-shaped model.

    Raises:
        CheckpointError: another architecture, or scaled rotary positions.
    """
    try:
        architecture, config, weights = described_weights(model)
    except CheckpointError:
        architecture = None
    if architecture is None or architecture.kind != "llama":
        kind = architecture.kind if architecture else model.registered_name
        raise CheckpointError(f"--format gguf: not for models of the shape of {kind}. Train model=llama.")
    rope = config["rope_parameters"]
    if rope["rope_type"] != "default":
        raise CheckpointError(
            f"--format gguf: rope_scaling={rope['rope_type']} is not supported. Use --format huggingface."
        )
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    metadata = {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": Uint(0),  # all float32
        "llama.vocab_size": Uint(config["vocab_size"]),
        "llama.context_length": Uint(config["max_position_embeddings"]),
        "llama.embedding_length": Uint(config["hidden_size"]),
        "llama.block_count": Uint(config["num_hidden_layers"]),
        "llama.feed_forward_length": Uint(config["intermediate_size"]),
        "llama.attention.head_count": Uint(heads),
        "llama.attention.head_count_kv": Uint(kv_heads),
        "llama.attention.key_length": Uint(size),
        "llama.attention.value_length": Uint(size),
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": Uint(size),
        "llama.rope.freq_base": float(rope["rope_theta"]),
        **tokenizer_metadata(getattr(model, "tokenizer", None)),
    }
    tensors = {}
    for theirs, weight in weights.items():
        if theirs in NAMES:
            tensors[NAMES[theirs]] = weight.float()
            continue
        _, _, layer, rest = theirs.split(".", 3)
        part = LAYER_NAMES[rest.removesuffix(".weight")]
        if part in ("attn_q", "attn_k"):
            weight = interleaved(weight, heads if part == "attn_q" else kv_heads)
        tensors[f"blk.{layer}.{part}.weight"] = weight.float()
    return pack(metadata, tensors)


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows (heads x size, D) of queries or keys in the order of llama.cpp.

    It rotates neighbouring features. The Hugging Face format rotates one of the first half with one of the second.
    """
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def tokenizer_metadata(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Tokens and merges of a byte-level BPE; the model "none" for other tokenizers, whose users give token ids.

    Pieces of text, within which llama.cpp merges bytes, are those of GPT-2. Own tokenizers may cut rare texts, such as
    long numbers, at other places.
    """
    ids = {}
    if tokenizer is not None:
        ids = {
            "tokenizer.ggml.bos_token_id": Uint(tokenizer.begin),
            "tokenizer.ggml.eos_token_id": Uint(tokenizer.ends[0]),
        }
    if not isinstance(tokenizer, BPE | Pretrained):
        return {"tokenizer.ggml.model": "none", **ids}
    written = json.loads(as_pretrained(tokenizer)[0])
    model, decoder = written["model"], written.get("decoder") or {}
    if model["type"] != "BPE" or decoder.get("type") != "ByteLevel":
        return {"tokenizer.ggml.model": "none", **ids}
    special = {added["id"]: added["content"] for added in written["added_tokens"]}
    spelled = {number: token for token, number in model["vocab"].items()} | special
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [spelled[i] for i in range(tokenizer.vocab_size)],
        "tokenizer.ggml.token_type": [CONTROL if i in special else NORMAL for i in range(tokenizer.vocab_size)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": Uint(1),
        **ids,
    }


def pack(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """A GGUF file of metadata and float32 tensors."""
    head = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    head += [text(key) + typed(value) for key, value in metadata.items()]
    blocks, place = [], 0
    for name, tensor in tensors.items():
        data = tensor.contiguous().numpy().tobytes()
        sizes = tensor.shape[::-1]  # the fastest dimension is first
        head.append(text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, place))  # type 0 is float32
        blocks.append(data + bytes(-len(data) % ALIGNMENT))
        place += len(blocks[-1])
    before = b"".join(head)
    return b"".join([before, bytes(-len(before) % ALIGNMENT), *blocks])


def text(value: str) -> bytes:
    """A string with its length."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def typed(value: Any) -> bytes:
    """A value of metadata, with its type; lists have values of one type."""
    if isinstance(value, list):
        kind = type_of(value[0]) if value else STRING
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(map(raw_value, value))
    return struct.pack("<I", type_of(value)) + raw_value(value)


def type_of(value: Any) -> int:
    """Type of a single value."""
    if isinstance(value, Uint):
        return UINT32
    return STRING if isinstance(value, str) else FLOAT32 if isinstance(value, float) else INT32


def raw_value(value: Any) -> bytes:
    """A single value without its type."""
    return text(value) if isinstance(value, str) else struct.pack(PACKED[type_of(value)], value)
