"""GGUF files, read by a small reader and by the package `gguf`; their tensors compute the logits as llama.cpp does."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import zoo
from zoo.core.errors import CheckpointError
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.char import Char
from zoo.interop.gguf import interleaved, to_gguf

BACKBONE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "rope_theta": 500.0}
WORDS = BPE(vocab_size=300).fit(["the cat sat on the mat, the dog sat on the cat"] * 4)


def llama(tokenizer: Any = WORDS, **backbone: Any) -> Any:
    torch.manual_seed(0)
    spec = zoo.DataSpec(Tokens(16, tokenizer.vocab_size, dumps(tokenizer)), name="words")
    model: Any = zoo.create_model("llama", data=spec, backbone={**BACKBONE, **backbone}).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=0.5 if p.ndim == 1 else 0.0, std=0.2)
    return model


def read(raw: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and float32 tensors, by the description of the format."""
    place = 4

    def take(kind: str) -> Any:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", raw, place)
        place += struct.calcsize(f"<{kind}")
        return value

    def text() -> str:
        nonlocal place
        size = take("Q")
        place += size
        return raw[place - size : place].decode()

    def value(kind: int) -> Any:
        if kind == 9:
            inner, n = take("I"), take("Q")
            return [value(inner) for _ in range(n)]
        return text() if kind == 8 else take({4: "I", 5: "i", 6: "f"}[kind])

    assert raw[:4] == b"GGUF"
    assert take("I") == 3
    n_tensors, n_values = take("Q"), take("Q")
    metadata = {text(): value(take("I")) for _ in range(n_values)}
    infos = []
    for _ in range(n_tensors):
        name, n = text(), take("I")
        sizes = [take("Q") for _ in range(n)]
        assert take("I") == 0
        infos.append((name, sizes, take("Q")))
    start = -(-place // 32) * 32
    tensors = {}
    for name, sizes, offset in infos:
        assert offset % 32 == 0
        count = torch.Size(sizes).numel()
        found = torch.frombuffer(bytearray(raw[start + offset :][: 4 * count]), dtype=torch.float32)
        tensors[name] = found.view(*reversed(sizes))
    return metadata, tensors


def logits(metadata: dict[str, Any], t: dict[str, torch.Tensor], tokens: list[int]) -> torch.Tensor:
    """A Llama with the conventions of llama.cpp: neighbouring features are rotated together."""
    heads, groups = metadata["llama.attention.head_count"], metadata["llama.attention.head_count_kv"]
    size, eps = metadata["llama.rope.dimension_count"], metadata["llama.attention.layer_norm_rms_epsilon"]
    rate = metadata["llama.rope.freq_base"] ** (-torch.arange(0, size, 2) / size)
    turn = torch.polar(torch.ones(len(tokens), size // 2), torch.arange(len(tokens))[:, None] * rate)[:, None]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * t[f"{name}.weight"]

    def rotated(x: torch.Tensor, n: int) -> torch.Tensor:
        pairs = torch.view_as_complex(x.view(len(tokens), n, size // 2, 2).contiguous())
        return torch.view_as_real(pairs * turn).flatten(2)

    x = t["token_embd.weight"][tokens]
    for i in range(metadata["llama.block_count"]):
        h = norm(x, f"blk.{i}.attn_norm")
        q, k = rotated(h @ t[f"blk.{i}.attn_q.weight"].T, heads), rotated(h @ t[f"blk.{i}.attn_k.weight"].T, groups)
        v = (h @ t[f"blk.{i}.attn_v.weight"].T).view(len(tokens), groups, size)
        k, v = (some.repeat_interleave(heads // groups, 1) for some in (k, v))
        mixed = F.scaled_dot_product_attention(*(some.transpose(0, 1) for some in (q, k, v)), is_causal=True)
        x = x + mixed.transpose(0, 1).flatten(1) @ t[f"blk.{i}.attn_output.weight"].T
        h = norm(x, f"blk.{i}.ffn_norm")
        gate = F.silu(h @ t[f"blk.{i}.ffn_gate.weight"].T) * (h @ t[f"blk.{i}.ffn_up.weight"].T)
        x = x + gate @ t[f"blk.{i}.ffn_down.weight"].T
    return norm(x, "output_norm") @ t.get("output.weight", t["token_embd.weight"]).T


@pytest.mark.parametrize("settings", [{}, {"tie_weights": True, "n_kv_heads": 4}, {"d_head": 16}])
def test_the_tensors_compute_the_logits(settings: dict[str, Any]) -> None:
    model, tokens = llama(**settings), [3, 1, 4, 1, 5, 9, 2, 6]
    metadata, tensors = read(to_gguf(model))
    with torch.no_grad():
        wanted = model.net(torch.tensor([tokens]))[0]
    assert wanted.std() > 0.3
    torch.testing.assert_close(logits(metadata, tensors, tokens), wanted, atol=1e-4, rtol=1e-4)
    assert ("output.weight" in tensors) is not settings.get("tie_weights", False)
    heads = metadata["llama.attention.head_count"]
    tensors["blk.0.attn_q.weight"] = interleaved(tensors["blk.0.attn_q.weight"], heads)
    off = (logits(metadata, tensors, tokens) - wanted).abs().max()
    assert off > 0.01, "the control: queries in another order"


def test_the_tokenizer_is_that_of_the_model() -> None:
    metadata, _ = read(to_gguf(llama(), "cats"))
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "cats"
    assert metadata["tokenizer.ggml.model"] == "gpt2"
    assert len(metadata["tokenizer.ggml.tokens"]) == metadata["llama.vocab_size"] == WORDS.vocab_size
    ends = [i for i, kind in enumerate(metadata["tokenizer.ggml.token_type"]) if kind == 3]
    assert ends == [WORDS.end] == [metadata["tokenizer.ggml.eos_token_id"]]
    ranks = {tuple(m.split(" ")): i for i, m in enumerate(metadata["tokenizer.ggml.merges"])}
    numbers = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    for word in ("the", "cat", "sat", "dog"):
        parts = list(word)
        while known := [pair for pair in pairwise(parts) if pair in ranks]:
            one, two = min(known, key=ranks.__getitem__)
            at = next(i for i in range(len(parts)) if parts[i : i + 2] == [one, two])
            parts[at : at + 2] = [one + two]
        assert [numbers[part] for part in parts] == WORDS.encode(word), word
    plain, _ = read(to_gguf(llama(Char().fit(["abcd"]))))
    assert plain["tokenizer.ggml.model"] == "none"
    assert "tokenizer.ggml.tokens" not in plain


def test_the_package_gguf_reads_the_same(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(to_gguf(llama()))
    metadata, tensors = read((tmp_path / "model.gguf").read_bytes())
    found = gguf.GGUFReader(tmp_path / "model.gguf")
    assert {t.name for t in found.tensors} == tensors.keys()
    for tensor in found.tensors:
        assert torch.equal(torch.from_numpy(tensor.data.copy()), tensors[tensor.name])
    for key, value in metadata.items():
        assert found.get_field(key).contents() == value, key


def test_other_shapes_are_refused() -> None:
    gpt: Any = zoo.create_model("gpt2", data=llama().spec, backbone={"d_model": 32, "n_layers": 1, "n_heads": 2})
    with pytest.raises(CheckpointError, match=r"not for models of the shape of gpt2\. Train model=llama"):
        to_gguf(gpt)
    with pytest.raises(CheckpointError, match=r"not for models of the shape of vae\. Train model=llama"):
        to_gguf(zoo.create_model("vae", data="digits"))
    scaled = llama(rope_scaling={"name": "linear", "factor": 2.0})
    with pytest.raises(CheckpointError, match="rope_scaling=linear is not supported"):
        to_gguf(scaled)
