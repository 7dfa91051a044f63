"""Attention in blocks is attention: its values, its gradients, its dropout."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.blocks import attention
from zoo.nn.blocks.attention import Attention, AttentionInputs
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.kernels.cpu_attention import MAX_STORED_LENGTH, cpu_attention


def given(queries: int, keys: int, batch: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values of two heads, and a gradient; laid out as `Attention` has them."""
    torch.manual_seed(0)
    sizes = (queries, keys, keys, queries)
    return [torch.randn(batch, n, 2, 8, dtype=dtype).transpose(1, 2).requires_grad_() for n in sizes]


def gradients(y: Tensor, dy: Tensor, *wanted: Tensor) -> list[Tensor]:
    return [y, *torch.autograd.grad(y, wanted, dy.detach().to(y.dtype))]


def masks(batch: int, queries: int, keys: int) -> dict[str, Tensor]:
    real = torch.arange(keys) < torch.tensor([keys, keys - 2, 1])[:, None]
    return {
        "padding": real[:batch, None, None],
        "window": torch.rand(queries, keys) < 0.5,
        "texts": torch.rand(batch, 1, queries, keys) < 0.5,
        "distances": torch.randn(1, 2, queries, keys, dtype=torch.float64),
    }


@pytest.mark.parametrize("scores", [1, 1 << 20])  # a sample at a time, or all together
@pytest.mark.parametrize("length", [1, 7, 128, 300])
def test_causal_attention(length: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.nn.kernels.cpu_attention.MAX_BLOCK_SCORES", scores)
    q, k, v, dy = given(length, length)
    ours = gradients(cpu_attention(q, k, v, causal=True), dy, q, k, v)
    for a, b in zip(ours, gradients(F.scaled_dot_product_attention(q, k, v, is_causal=True), dy, q, k, v), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scores", [1, 1 << 20])
@pytest.mark.parametrize("kind", ["padding", "window", "texts", "distances"])
@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (150, 140)])
def test_masks(kind: str, queries: int, keys: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.nn.kernels.cpu_attention.MAX_BLOCK_SCORES", scores)
    q, k, v, dy = given(queries, keys)
    mask = masks(3, queries, keys)[kind]
    if mask.dtype == torch.bool:
        mask[..., 0] = True
    ours = gradients(cpu_attention(q, k, v, mask, scale=0.3), dy, q, k, v)
    want = gradients(F.scaled_dot_product_attention(q, k, v, mask, scale=0.3), dy, q, k, v)
    for a, b in zip(ours, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(1, 2, 150, 150), (3, 1, 1, 150), (1, 1, 150, 1)])
def test_what_is_added_to_scores_learns_too(shape: tuple[int, ...]) -> None:
    q, k, v, dy = given(150, 150)
    mask = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    full = mask.expand(3, 2, 150, 150).masked_fill(torch.ones(150, 150).triu(1).bool(), -torch.inf)
    ours = gradients(cpu_attention(q, k, v, mask, causal=True), dy, q, k, v, mask)
    for a, b in zip(ours, gradients(F.scaled_dot_product_attention(q, k, v, full), dy, q, k, v, mask), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [True, False])
def test_dropout_is_of_the_weights_and_its_gradient_too(causal: bool) -> None:
    n, drop = 140, 0.25
    q, k, v, dy = given(n, n)

    def attended(v: Tensor) -> Tensor:
        torch.manual_seed(1)
        return cpu_attention(q, k, v, causal=causal, drop=drop)

    left = attended(torch.eye(n, dtype=torch.float64).expand(3, 2, n, n)).detach()  # the weights themselves
    scores = q @ k.mT / 8**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    weights = scores.softmax(-1)
    seen = weights.detach() > 0
    torch.testing.assert_close(left[left > 0], (weights / (1 - drop))[left > 0], rtol=1e-4, atol=1e-12)
    share = (left[seen] == 0).double().mean().item()
    assert abs(share - drop) < 4 * (drop * (1 - drop) / seen.sum().item()) ** 0.5
    want = gradients((weights * (left > 0) / (1 - drop)) @ v, dy, q, k, v)
    for ours, exact in zip(gradients(attended(v), dy, q, k, v), want, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [12, 300])
def test_half_precision(length: int) -> None:
    """Its error is that of rounding scores and weights to eight bits, as in any network under autocast."""
    q, k, v, dy = (x.detach().float().requires_grad_() for x in given(length, length))
    with torch.autocast("cpu", torch.bfloat16):
        halves = [x.bfloat16() for x in (q, k, v)]
        ours = gradients(cpu_attention(*halves, causal=True), dy, q, k, v)
    assert ours[0].dtype == torch.bfloat16
    want = gradients(F.scaled_dot_product_attention(q, k, v, is_causal=True), dy, q, k, v)
    for a, b in zip(ours, want, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_the_gradient_has_a_gradient(drop: float) -> None:
    """As a penalty on the gradient of a critic needs; a constant would be silently wrong."""
    q, k, v, _ = given(4, 4, batch=1)
    mask = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def attended(*given: Tensor) -> Tensor:
        torch.manual_seed(0)
        return cpu_attention(*given, causal=True, drop=drop)

    assert torch.autograd.gradgradcheck(attended, (q, k, v, mask))


@pytest.mark.parametrize(
    ("length", "dropout", "training", "ours"),
    [
        (8, 0.0, True, True),
        (8, 0.0, False, False),
        (MAX_STORED_LENGTH + 1, 0.0, True, False),
        (MAX_STORED_LENGTH + 1, 0.1, True, True),
    ],
)
def test_where_it_is_used(
    length: int, dropout: float, training: bool, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, not where a text is written; of long texts torch keeps less."""
    calls: list[Any] = []
    monkeypatch.setattr(
        attention, "cpu_attention", lambda *args, **kwargs: (calls.append(args), cpu_attention(*args, **kwargs))[1]
    )
    layer = Attention(TransformerConfig(4, 2, dropout=dropout)).train(training)
    with torch.set_grad_enabled(training):
        layer(torch.randn(1, length, 4), AttentionInputs())
    assert bool(calls) is ours
