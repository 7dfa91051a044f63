"""The transformer against closed forms, a naive attention, and itself without a cache."""

import inspect
import itertools
import math

import pytest
import torch
from torch import nn

from zoo.core.errors import ZooError
from zoo.nn.blocks.attention import Attention, AttentionInputs, attention_maps
from zoo.nn.blocks.mlp import MLP, MixtureOfExperts
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.position_encoding import (
    alibi_slopes,
    relative_bucket,
    rotary_angles,
    rotary_rates,
    rotate,
    rotation,
    sinusoidal,
)
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.kernels.cpu_attention import MAX_STORED_LENGTH
from zoo.nn.networks.transformer import Transformer
from zoo.nn.networks.transformer_encoder import TransformerEncoder

VARIANTS = [
    {
        "position_encoding": "rotary",
        "norm": "rmsnorm_no_gain",
        "mlp": "relu_squared",
        "qk_norm": True,
        "tie_weights": True,
    },
    {"position_encoding": "learned", "norm": "layernorm", "mlp": "gelu", "qk_norm": False, "tie_weights": True},
    {"position_encoding": "sinusoidal", "norm": "layernorm", "mlp": "swiglu", "qk_norm": False, "tie_weights": False},
    {"position_encoding": "rotary", "norm": "rmsnorm", "n_heads": 4, "n_kv_heads": 2, "mlp": "swiglu", "d_ff": 24},
    {"position_encoding": "alibi", "norm": "layernorm", "norm_place": "after", "mlp": "gelu_tanh", "bias": True},
    {
        "position_encoding": "relative",
        "norm": "rmsnorm",
        "mlp": "geglu",
        "scale": 1.0,
        "d_head": 6,
        "tie_weights": False,
    },
    {"position_encoding": "rotary", "softcap_scores": 5.0, "softcap": 8.0, "window": 100, "end": 6},
    {
        "partial_rotary_factor": 0.5,
        "window": 4,
        "global_every": 2,
        "window_theta": 50.0,
        "parallel_residual": True,
        "qkv_bias": True,
    },
    {
        "norm": "rmsnorm_zero_centered",
        "norm_place": "both",
        "norm_eps": 1e-6,
        "qk_norm_gain": True,
        "d_head": 6,
        "scale_embeddings": True,
        "mlp": "geglu",
    },
]


def build(vocab=7, context=12, seed=0, std=0.4, **settings):
    """Random weights everywhere: at initialisation the branches are zero, and every test would pass."""
    torch.manual_seed(seed)
    net = transformer(vocab, context, **{"d_model": 16, "n_layers": 2, "n_heads": 2, **settings})
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=std) if p.ndim == 2 else p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def transformer(vocab, context, *, n_layers, softcap_scores=0.0, **settings):
    """Settings of the net and of its blocks in one."""
    end, names = settings.pop("end", None), inspect.signature(Transformer).parameters
    own = {k: settings.pop(k) for k in names if k in settings}
    net = Transformer(vocab, vocab, context, TransformerConfig(**settings, softcap=softcap_scores), n_layers, **own)
    net.end = end
    return net


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
        x = torch.randint(0, 6, (1, 12))  # without the token that ends a text, behind which some look no further
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
        net = transformer(65, 32, **{"d_model": 64, "n_layers": 3, "n_heads": 4, **settings})
        x, y = torch.randint(0, 65, (2, 8, 32))
        loss = nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten())
        assert loss.item() == pytest.approx(math.log(65), rel=0.02)

    def test_every_parameter_gets_a_finite_gradient(self, settings):
        net = build(**settings)
        net(torch.randint(0, 7, (4, 12))).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("positions", ["learned", "rotary", "learned_rotary"])
def test_probabilities_of_all_binary_pictures_sum_to_one(positions):
    net = build(vocab=3, context=9, position_encoding=positions).double()
    net.n_out = 2  # the third token begins a picture and is never predicted
    pixels = torch.tensor(list(itertools.product([0, 1], repeat=9)))
    read = torch.cat([torch.full((512, 1), 2), pixels[:, :-1]], dim=1)
    with torch.no_grad():
        log_p = net(read).log_softmax(-1).gather(2, pixels[..., None]).sum((1, 2))
    assert log_p.std() > 0.5  # far from uniform
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_attention_equals_the_naive_one_forward_and_backward():
    torch.manual_seed(0)
    attention = Attention(TransformerConfig(12, 3))
    x = torch.randn(2, 6, 12, requires_grad=True)
    y = attention(x, AttentionInputs())
    q, k, v = (p(x).reshape(2, 6, 3, 4) for p in (attention.query, attention.key, attention.value))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    naive = attention.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(2, 6, 12))
    assert torch.allclose(y, naive, atol=1e-5)
    nn.init.normal_(attention.out.weight)
    got = torch.autograd.grad(attention(x, AttentionInputs()).square().sum(), x)[0]
    naive = attention.out(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(2, 6, 12))
    want = torch.autograd.grad(naive.square().sum(), x)[0]
    assert torch.allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [12, MAX_STORED_LENGTH + 1])
def test_training_in_half_precision_attends_as_in_single(length):
    """Whether by the zoo, or, for long texts, by torch."""
    torch.manual_seed(0)
    attention, x = Attention(TransformerConfig(16, 2, bias=False)), torch.randn(2, length, 16)
    found = []
    for half in (False, True):
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = attention(x.requires_grad_(), AttentionInputs(None, None, True))
        y.float().square().sum().backward()
        found.append((y.float().detach(), x.grad.clone()))
    for ours, exact in zip(*found[::-1], strict=True):
        assert (ours - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("positions", ["rotary", "alibi", "relative"])
def test_weights_in_half_precision_train(positions):
    """bf16-true: nothing that is computed in single precision on the way is left in it."""
    net = build(position_encoding=positions).train().to(torch.bfloat16)
    logits = net(torch.randint(7, (2, 12)))
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in net.parameters())


def test_dropout_of_attention_is_of_its_weights():
    """Attention with dropout on CPUs equals attention without it, except for the dropped weights."""
    torch.manual_seed(0)
    attention, x = Attention(TransformerConfig(16, 2, bias=False, dropout=0.5)), torch.randn(1, 8, 16)
    with torch.no_grad():
        plain = attention.eval()(x, AttentionInputs())
        several = torch.stack([attention.train()(x, AttentionInputs()) for _ in range(4000)])
        weights = attention.weights(x, AttentionInputs())[0, :, 0, 0]
    assert (weights == 1).all(), "the first position sees itself alone"
    off = (several.mean(0) - plain).abs()
    assert (off < 5 * several.std(0) / 4000**0.5 + 1e-6).all()
    first = several[:, 0, 0].round(decimals=4).unique(dim=0)
    assert len(first) == 4, "each of two heads is there twice as large, or not at all"


def test_shared_keys_equal_repeated_ones():
    torch.manual_seed(0)
    grouped, full = Attention(TransformerConfig(12, 6, 2)), Attention(TransformerConfig(12, 6))
    full.load_state_dict(
        {
            k: v.unflatten(0, (2, 2)).repeat_interleave(3, 0).flatten(0, 1) if k[:3] in ("key", "val") else v
            for k, v in grouped.state_dict().items()
        }
    )
    x = torch.randn(2, 5, 12)
    assert torch.allclose(grouped(x, AttentionInputs()), full(x, AttentionInputs()), atol=1e-6)


@pytest.mark.parametrize("settings", [{"qk_norm": True}, {"n_kv_heads": 1}, {"scale": 1.0}, {"softcap": 1e6}])
def test_weights_are_those_that_attention_uses(settings):
    torch.manual_seed(0)
    attention, x = Attention(TransformerConfig(12, 3, **settings)), torch.randn(2, 6, 12)
    weights = attention.weights(x, AttentionInputs())
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 6), atol=1e-6)
    assert weights.triu(1).abs().max() == 0
    v = attention.project_kv(x)[1].expand(-1, 3, -1, -1)
    assert torch.allclose(
        attention(x, AttentionInputs()), attention.out((weights @ v).transpose(1, 2).flatten(2)), atol=1e-5
    )


def test_soft_cap_bounds_scores():
    attention, x = Attention(TransformerConfig(8, 2, softcap=2.0)), 100 * torch.randn(1, 4, 8)
    q, k = (p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in (attention.query, attention.key))
    want = 2 * torch.tanh(q @ k.mT / 2 / 2)
    want = want.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf).softmax(-1)
    assert torch.allclose(attention.weights(x, AttentionInputs()), want, atol=1e-6)


def test_a_window_shows_so_many_tokens_and_no_more():
    net = build(n_layers=1, window=3)
    x = torch.randint(0, 7, (1, 12))
    with torch.no_grad():
        before = net(x)
        for t in range(12):
            changed = x.clone()
            changed[:, t] = (changed[:, t] + 1) % 7
            moved = (net(changed) != before).any(-1)[0]
            assert moved.tolist() == [t <= i < t + 3 for i in range(12)]
        cache = net.new_cache(1)
        steps = torch.cat([net(part, cache) for part in x.split([4, 1, 5, 2], dim=1)], dim=1)
    assert torch.allclose(steps, before, atol=5e-5, rtol=0)


@pytest.mark.parametrize("positions", ["rotary", "learned", "learned_rotary", "sinusoidal", "alibi", "relative"])
def test_packed_texts_are_read_as_each_alone(positions):
    """Loss and gradients of masked texts in one window equal those of each text alone."""
    net = build(end=6, position_encoding=positions)
    texts = [torch.tensor([6, *torch.randint(0, 6, (n,)).tolist()]) for n in (4, 1, 3)]
    packed = torch.cat(texts)[None]
    target = torch.randint(0, 7, packed.shape)

    def gradients(total):
        net.zero_grad()
        total.backward()
        return [p.grad.clone() for p in net.parameters()]

    def cost(x, y):
        return nn.functional.cross_entropy(net(x).transpose(1, 2), y, reduction="sum")

    whole = cost(packed, target)
    parts = sum(cost(a[None], b[None]) for a, b in zip(texts, target[0].split([len(t) for t in texts]), strict=True))
    assert torch.allclose(whole, parts, atol=1e-4)
    for one, other in zip(gradients(whole), gradients(parts), strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)
    net.end = None  # the control: without the mask they see each other
    assert not torch.allclose(cost(packed, target), parts, atol=1e-2)


def test_an_encoder_sees_both_ways_and_no_padding():
    torch.manual_seed(0)
    net = TransformerEncoder(7, 7, 12, d_model=16, n_layers=2, n_heads=2, dropout=0.0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    x = torch.randint(0, 7, (1, 6))
    with torch.no_grad():
        alone, padded = net(x), net(nn.functional.pad(x, (0, 5), value=-100))[:, :6]
        assert torch.allclose(alone, padded, atol=1e-5)
        changed = net(torch.cat([x[:, :5], (x[:, 5:] + 1) % 7], 1))
        assert (changed[:, 0] != alone[:, 0]).any()


def test_attention_maps_are_distributions_over_what_may_be_seen():
    net = build()
    maps = attention_maps(net, lambda: net(torch.randint(0, 7, (2, 5))))
    assert list(maps) == ["blocks.0.attention", "blocks.1.attention"]
    for weights in maps.values():
        assert weights.shape == (2, 2, 5, 5)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 5), atol=1e-6)
        assert weights.triu(1).abs().max() == 0
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_alibi_forgets_at_the_published_rates():
    assert alibi_slopes(8).tolist() == [2**-i for i in range(1, 9)]
    assert alibi_slopes(6).tolist() == pytest.approx([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])  # 4 of 4, 2 of 8
    net = build(position_encoding="alibi", n_layers=1)
    seen = torch.arange(4)
    bias = net._bias(seen - seen[:, None], torch.float32)
    assert bias.shape == (1, 2, 4, 4)
    assert bias[0, 1, 3, 0].item() == pytest.approx(-3 * 2**-8)


def test_buckets_of_distances_equal_those_of_t5():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    for causal in (True, False):
        want = T5Attention._relative_position_bucket(distance, not causal, 32, 128)
        assert torch.equal(relative_bucket(distance, causal), want)


def test_sinusoidal_formula():
    table = sinusoidal(50, 10)
    for position, i in itertools.product(range(50), range(5)):
        angle = position / 10000 ** (2 * i / 10)
        assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoidal(4, 7).shape == (4, 7)


def test_rotary_products_depend_on_distance_alone():
    torch.manual_seed(0)
    angles = rotary_angles(100, rotary_rates(8))
    q, k = torch.randn(2, 1, 1, 1, 8)

    def product(i, j):
        return (rotate(q, rotation(angles[i : i + 1])) * rotate(k, rotation(angles[j : j + 1]))).sum()

    for i, j, shift in [(0, 0, 50), (3, 1, 40), (20, 5, 70), (1, 9, 90)]:
        assert torch.allclose(product(i, j), product(i + shift, j + shift), atol=1e-5)
    assert not torch.allclose(product(0, 0), product(5, 0), atol=1e-2)
    assert torch.equal(rotate(q, rotation(angles[:1])), q)
    assert torch.allclose(rotate(q, rotation(angles[7:8])).norm(), q.norm())


def test_rmsnorm_formula():
    x = torch.randn(5, 8)
    want = x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    assert torch.allclose(make_norm("rmsnorm_no_gain", 8)(x), want, atol=1e-6)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu", "relu", "relu_squared", "swiglu", "geglu"])
def test_mlp_formulas(kind):
    mlp, x = MLP(6, kind), torch.randn(4, 6)
    h = x @ mlp.up.weight.T
    if kind == "gelu":
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    elif kind == "gelu_tanh":
        h = h * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    elif kind == "silu":
        h = h / (1 + torch.exp(-h))
    elif kind in ("relu", "relu_squared"):
        h = torch.where(h > 0, h if kind == "relu" else h * h, torch.zeros_like(h))
    elif kind == "geglu":
        gate = x @ mlp.gate.weight.T
        h = gate * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) * h
    else:
        gate = x @ mlp.gate.weight.T
        h = gate / (1 + torch.exp(-gate)) * h
    assert torch.allclose(mlp(x), h @ mlp.out.weight.T, atol=1e-6)


def test_kinds_of_mlp_have_nearly_equally_many_parameters():
    sizes = [sum(p.numel() for p in MLP(96, kind).parameters()) for kind in ("gelu", "swiglu")]
    assert sizes[0] == sizes[1]


def test_activations_keep_their_size_in_a_deep_stack():
    torch.manual_seed(0)
    net = transformer(65, 16, d_model=64, n_layers=24, n_heads=4)
    for block in net.blocks:  # as after some training: the last matrices no longer zero
        nn.init.normal_(block.attention.out.weight, std=64**-0.5)
        nn.init.normal_(block.mlp.out.weight, std=256**-0.5)
    x = net.embedding(torch.randint(0, 65, (4, 16)))
    with torch.no_grad():
        for block in net.blocks:
            x = block(x, AttentionInputs(rotation(net.angles[:16])))
    assert 1 < x.square().mean().sqrt() < 20


def test_tied_weights_are_one_tensor():
    assert sum(p.numel() for p in build(tie_weights=True).parameters()) + 7 * 16 == sum(
        p.numel() for p in build(tie_weights=False).parameters()
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ZooError, match="longer than the context of 12"):
        build()(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ZooError, match="must divide"):
        transformer(5, 4, d_model=10, n_layers=1, n_heads=4)
    with pytest.raises(ZooError, match="even width"):
        transformer(5, 4, d_model=6, n_layers=1, n_heads=2, position_encoding="rotary")


def experts(**other):
    torch.manual_seed(0)
    mixture = MixtureOfExperts(TransformerConfig(8, 2, mlp="swiglu", d_ff=12, n_experts=4, **other))
    return mixture, torch.randn(3, 5, 8)


def by_hand(mixture, x, n_active):
    """Each token on its own: the likeliest experts, weighted by the softmax of all, normalised again."""
    y = torch.zeros_like(x)
    for place in itertools.product(*map(range, x.shape[:-1])):
        weights = (x[place] @ mixture.router.weight.T).softmax(-1)
        chosen = sorted(range(4), key=lambda i: -weights[i])[:n_active]
        total = sum(weights[i] for i in chosen)
        y[place] = sum(weights[i] / total * mixture.experts[i](x[place]) for i in chosen)
    return y


@pytest.mark.parametrize("n_active", [1, 2, 4])
def test_a_mixture_of_experts_equals_its_definition(n_active):
    mixture, x = experts(n_active_experts=n_active)
    assert torch.allclose(mixture(x), by_hand(mixture, x, n_active), atol=1e-6)
    assert not torch.allclose(mixture(x), by_hand(mixture, x, n_active % 4 + 1), atol=1e-3)  # the control
    program = torch.export.export(mixture, (x,)).module()  # all experts run, and the others have weight 0
    assert torch.allclose(program(x), mixture(x), atol=1e-6)
    mixture(x).square().sum().backward()
    assert (mixture.router.weight.grad.abs().sum() > 0) == (n_active > 1)  # one weight of 1 has no gradient


def test_the_balance_of_experts_in_closed_form():
    mixture, x = experts(n_active_experts=1)
    with torch.no_grad():
        mixture.router.weight.zero_()[0, 0] = 1e3  # the first expert for positive first channels, else a tie
        mixture(x.abs())
    assert mixture.balance.item() == pytest.approx(4.0), "one of four experts does everything"
    with torch.no_grad():
        mixture.router.weight.copy_(1e3 * torch.eye(8)[:4])
        mixture(torch.eye(8)[[0, 1, 2, 3] * 5])
    assert mixture.balance.item() == pytest.approx(1.0), "equal use"
    mixture.balance = None
    mixture.eval()(x)
    assert mixture.balance is None


@pytest.mark.parametrize(("weight", "even"), [(0.0, False), (1.0, True)])
def test_the_weight_of_the_balance_evens_the_use(weight, even):
    """Two of 4 experts get all tokens at first; only with the term do the other two get some."""
    mixture, x = experts(n_active_experts=2)
    with torch.no_grad():
        mixture.router.weight[:2] = 0.2
        mixture.router.weight[2:] = -0.2
    x = x.abs() + 1.0
    optimizer = torch.optim.Adam(mixture.router.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (1e-3 * mixture(x).square().mean() + weight * mixture.balance).backward()
        optimizer.step()
    assert (mixture.balance.item() < 1.2) == even


def test_experts_with_a_cache_equal_experts_without():
    """To rounding: products of different numbers of tokens differ in their last bits."""
    net, x = build(n_experts=3), torch.randint(0, 7, (3, 12))
    with torch.no_grad():
        full, cache = net(x), net.new_cache(3)
        steps = [net(part, cache) for part in x.split([5, 1, 1, 5], dim=1)]
    assert torch.allclose(torch.cat(steps, dim=1), full, atol=5e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_experts": 2, "n_active_experts": 3}, "n_active_experts=3: more than n_experts=2"),
        ({"parallel_residual": True, "norm_place": "after"}, "norm_place=after: not possible"),
        ({"partial_rotary_factor": 0.1}, "partial_rotary_factor=0.1: 0 of 8 channels"),
        ({"partial_rotary_factor": 0.4}, "partial_rotary_factor=0.4: 3 of 8 channels .* such as 0.25"),
    ],
)
def test_contradictory_settings_are_refused(settings, sentence):
    with pytest.raises(ZooError, match=sentence):
        build(**settings)


def test_partial_rotation_leaves_the_other_channels():
    x, angles = torch.randn(1, 2, 5, 8), rotary_angles(5, rotary_rates(4))
    y = rotate(x, rotation(angles, 2.0))
    assert torch.equal(y[..., 4:], x[..., 4:])
    assert torch.equal(y[..., :4], rotate(x[..., :4], rotation(angles, 2.0)))


def test_every_other_layer_looks_past_the_window():
    """A change outside the window reaches the last token through the global layer only."""
    x = torch.randint(0, 7, (1, 12))
    changed = x.clone()
    changed[0, 0] = (x[0, 0] + 1) % 7
    for settings, reached in (({"global_every": 2}, True), ({}, False), ({"global_every": 3}, False)):
        net = build(window=3, n_layers=2, **settings)
        with torch.no_grad():
            assert (not torch.equal(net(x)[0, -1], net(changed)[0, -1])) == reached
