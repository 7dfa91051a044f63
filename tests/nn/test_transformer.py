"""The transformer against closed forms, a naive attention, and itself without a cache."""

import itertools
import math

import pytest
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.nn.transformer import MLP, Attention, Transformer, make_norm, rotary_angles, rotate, sinusoidal

VARIANTS = [
    {"positions": "rotary", "norm": "rmsnorm", "mlp": "relu2", "qk_norm": True, "tie_weights": True},
    {"positions": "learned", "norm": "layernorm", "mlp": "gelu", "qk_norm": False, "tie_weights": True},
    {"positions": "sinusoidal", "norm": "layernorm", "mlp": "swiglu", "qk_norm": False, "tie_weights": False},
]


def build(vocab=7, context=12, seed=0, std=0.4, **settings):
    """Random weights everywhere: at initialisation the branches are zero, and every test would pass."""
    torch.manual_seed(seed)
    settings = {"d_model": 16, "n_layers": 2, "n_heads": 2, **settings}
    net = Transformer(vocab, vocab, context, **settings)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 2:
                p.normal_(std=std)
    return net.eval()


@pytest.mark.parametrize("settings", VARIANTS)
class TestVariants:
    def test_no_position_sees_a_later_token(self, settings):
        net = build(**settings)
        x = torch.randint(0, 7, (2, 12))
        with torch.no_grad():
            before = net(x)
            for t in range(12):
                changed = x.clone()
                changed[:, t] = (changed[:, t] + 1) % 7
                after = net(changed)
                assert torch.equal(before[:, :t], after[:, :t])
                assert not torch.equal(before[:, t:], after[:, t:])  # and it does see the present

    def test_no_gradient_comes_from_a_later_token(self, settings):
        net = build(**settings)
        x = torch.randint(0, 7, (1, 12))
        read: list[torch.Tensor] = []
        net.embedding.register_forward_hook(lambda m, i, out: read.append(out.requires_grad_(True)))
        logits = net(x)
        for t in range(12):
            (grad,) = torch.autograd.grad(logits[0, t].sum(), read[0], retain_graph=True)
            assert grad[0, t + 1 :].abs().sum() == 0
            assert grad[0, : t + 1].abs().sum(-1).min() > 0

    @pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 1, 5], [12], [3, 9]])
    def test_cache_equals_full_forward(self, settings, chunks):
        net = build(**settings)
        x = torch.randint(0, 7, (3, 12))
        with torch.no_grad():
            full = net(x)
            assert 0.3 < full.std() < 10
            cache = net.new_cache(3)
            steps = [net(part, cache) for part in x.split(chunks, dim=1)]
        assert torch.allclose(torch.cat(steps, dim=1), full, atol=5e-5, rtol=0)

    def test_padded_rows_equal_the_same_rows_alone(self, settings):
        net = build(**settings)
        rows = [torch.randint(0, 7, (n,)) for n in (3, 8, 1)]
        padding = torch.tensor([8 - len(r) for r in rows])
        padded = torch.stack([torch.cat([torch.zeros(8 - len(r), dtype=torch.long), r]) for r in rows])
        more = torch.randint(0, 7, (3, 4))
        with torch.no_grad():
            logits, state = net.prefill(padded, padding)
            together = [logits] + [net.step(more[:, i], state) for i in range(3)]
            for b, row in enumerate(rows):
                logits, state = net.prefill(row[None])
                alone = [logits] + [net.step(more[b : b + 1, i], state) for i in range(3)]
                for one, many in zip(alone, together, strict=True):
                    assert torch.allclose(one[0], many[b], atol=5e-5, rtol=0)

    def test_reordered_cache_equals_reordered_rows(self, settings):
        net = build(**settings)
        x, rows = torch.randint(0, 7, (3, 5)), torch.tensor([2, 2, 0, 1])
        padding, new = torch.tensor([0, 2, 1]), torch.tensor([1, 2, 3, 4])
        with torch.no_grad():
            _, state = net.prefill(x, padding)
            net.reorder(state, rows)
            moved = net.step(new, state)
            _, state = net.prefill(x[rows], padding[rows])
            assert torch.allclose(moved, net.step(new, state), atol=5e-5, rtol=0)

    def test_initial_loss_is_that_of_guessing(self, settings):
        torch.manual_seed(0)
        net = Transformer(65, 65, 32, d_model=64, n_layers=3, n_heads=4, **settings)
        x, y = torch.randint(0, 65, (2, 8, 32))
        loss = nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten())
        assert loss.item() == pytest.approx(math.log(65), rel=0.02)

    def test_every_parameter_gets_a_finite_gradient(self, settings):
        net = build(**settings)
        net(torch.randint(0, 7, (4, 12))).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_probabilities_of_all_binary_pictures_sum_to_one(positions):
    net = build(vocab=3, context=9, positions=positions).double()
    net.n_out = 2  # the third token begins a picture and is never predicted
    pixels = torch.tensor(list(itertools.product([0, 1], repeat=9)))
    read = torch.cat([torch.full((512, 1), 2), pixels[:, :-1]], dim=1)
    with torch.no_grad():
        log_p = net(read).log_softmax(-1).gather(2, pixels[..., None]).sum((1, 2))
    assert log_p.std() > 0.5  # far from uniform
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_attention_equals_the_naive_one_forward_and_backward():
    torch.manual_seed(0)
    attention = Attention(12, 3, qk_norm=False, dropout=0.0)
    x = torch.randn(2, 6, 12, requires_grad=True)
    y = attention(x, None, None)
    q, k, v = (p(x).reshape(2, 6, 3, 4) for p in (attention.query, attention.key, attention.value))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    naive = attention.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(2, 6, 12))
    assert torch.allclose(y, naive, atol=1e-5)
    nn.init.normal_(attention.out.weight)
    got = torch.autograd.grad(attention(x, None, None).square().sum(), x)[0]
    naive = attention.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(2, 6, 12))
    want = torch.autograd.grad(naive.square().sum(), x)[0]
    assert torch.allclose(got, want, atol=1e-4, rtol=1e-4)


def test_sinusoidal_formula():
    table = sinusoidal(50, 10)
    for position, i in itertools.product(range(50), range(5)):
        angle = position / 10000 ** (2 * i / 10)
        assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoidal(4, 7).shape == (4, 7)


def test_rotary_products_depend_on_distance_alone():
    torch.manual_seed(0)
    angles = rotary_angles(100, 8)
    q, k = torch.randn(2, 1, 1, 1, 8)

    def product(i, j):
        return (rotate(q, angles[i : i + 1]) * rotate(k, angles[j : j + 1])).sum()

    for i, j, shift in [(0, 0, 50), (3, 1, 40), (20, 5, 70), (1, 9, 90)]:
        assert torch.allclose(product(i, j), product(i + shift, j + shift), atol=1e-5)
    assert not torch.allclose(product(0, 0), product(5, 0), atol=1e-2)
    assert torch.equal(rotate(q, angles[:1]), q)
    assert torch.allclose(rotate(q, angles[7:8]).norm(), q.norm())


def test_rmsnorm_formula():
    x = torch.randn(5, 8)
    want = x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    assert torch.allclose(make_norm("rmsnorm", 8)(x), want, atol=1e-6)


@pytest.mark.parametrize("kind", ["gelu", "relu2", "swiglu"])
def test_mlp_formulas(kind):
    mlp, x = MLP(6, kind), torch.randn(4, 6)
    h = x @ mlp.up.weight.T
    if kind == "gelu":
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    elif kind == "relu2":
        h = torch.where(h > 0, h * h, torch.zeros_like(h))
    else:
        gate = x @ mlp.gate.weight.T
        h = gate / (1 + torch.exp(-gate)) * h
    assert torch.allclose(mlp(x), h @ mlp.out.weight.T, atol=1e-6)


def test_kinds_of_mlp_have_nearly_equally_many_parameters():
    sizes = [sum(p.numel() for p in MLP(96, kind).parameters()) for kind in ("gelu", "swiglu")]
    assert sizes[0] == sizes[1]


def test_activations_keep_their_size_in_a_deep_stack():
    torch.manual_seed(0)
    net = Transformer(65, 65, 16, d_model=64, n_layers=24, n_heads=4)
    for block in net.blocks:  # as after some training: the last matrices no longer zero
        nn.init.normal_(block.attention.out.weight, std=64**-0.5)
        nn.init.normal_(block.mlp.out.weight, std=256**-0.5)
    x = net.embedding(torch.randint(0, 65, (4, 16)))
    with torch.no_grad():
        for block in net.blocks:
            x = block(x, net.angles[:16], None)
    assert 1 < x.square().mean().sqrt() < 20


def test_tied_weights_are_one_tensor():
    assert sum(p.numel() for p in build(tie_weights=True).parameters()) + 7 * 16 == sum(
        p.numel() for p in build(tie_weights=False).parameters()
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ZooError, match="longer than the context of 12"):
        build()(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ZooError, match="does not divide"):
        Transformer(5, 5, 4, d_model=10, n_layers=1, n_heads=4)
    with pytest.raises(ZooError, match="even width"):
        Transformer(5, 5, 4, d_model=6, n_layers=1, n_heads=2, positions="rotary")
