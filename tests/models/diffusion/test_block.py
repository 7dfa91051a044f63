"""Block diffusion by enumeration: from an autoregressive likelihood to masked diffusion, and what attends to what."""

import itertools
import math

import pytest
import torch

from tests.models.diffusion.test_masked import NETWORK, PIXELS, TEXT
from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.models.abilities import SupportsMaskFilling
from zoo.models.ability import supports
from zoo.models.diffusion.block import BlockDiffusion, attention_pattern
from zoo.models.diffusion.masked import MaskedDiffusion
from zoo.nn.diffusion.unmasking import uniform_noise

LENGTH = 4
TINY = DataSpec(Tokens(LENGTH, 2), name="bits")
Y = torch.tensor(list(itertools.product(range(2), repeat=LENGTH)))  # all 16 texts
X = torch.cat([torch.ones(len(Y), 1, dtype=torch.long), Y[:, :-1]], 1)


def make(block_size, spec=TINY, layers=2, kind=BlockDiffusion, **settings):
    torch.manual_seed(0)
    sizes = {} if kind is MaskedDiffusion else {"block_size": block_size}
    model = kind(spec, backbone=NETWORK | {"n_layers": layers}, **sizes, **settings)
    for p in model.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.4)
    return model.double().eval()


def orders(block_size):
    """All orders of four positions that go from block to block."""
    blocks = [list(range(LENGTH))[i : i + block_size] for i in range(0, LENGTH, block_size)]
    each = itertools.product(*(itertools.permutations(block) for block in blocks))
    return [torch.tensor([place for part in parts for place in part]) for parts in each]


@pytest.mark.parametrize("block_size", [1, 2, 3, 4])
def test_the_bound_is_the_mean_of_the_chain_rule_over_the_orders_within_blocks(block_size):
    """Every order's probabilities sum to one. Every number of masks is drawn equally often in each block."""
    model = make(block_size)
    chains = torch.stack([model.ordered_log_prob(X, Y, order) for order in orders(block_size)])  # (orders, 16)
    torch.testing.assert_close(chains.exp().sum(1), torch.ones(len(chains)).double())
    torch.manual_seed(1)
    draws = model.bound(X.repeat(600, 1), Y.repeat(600, 1), draws=1).sum(1).view(600, 16)
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) + chains.mean(0)).abs() < 5 * error + 1e-9).all()
    if block_size > 1:
        assert ((draws.mean(0) + chains[0]).abs() > 5 * error).any(), "not of one order alone"
        assert (draws.mean(0) + 5 * error > -chains.exp().mean(0).log()).all(), "a bound"


def test_blocks_of_one_token_have_the_exact_autoregressive_likelihood():
    model = make(1)
    bounds = [model.bound(X, Y, draws=draws).sum(1) for draws in (1, 3)]
    torch.testing.assert_close(bounds[0], bounds[1])  # nothing is random
    torch.testing.assert_close(bounds[0], -model.ordered_log_prob(X, Y))
    assert bounds[0].neg().exp().sum().item() == pytest.approx(1)
    two = make(2).bound(X, Y, draws=64).sum(1)
    assert two.neg().exp().sum().item() < 1 - 1e-3, "larger blocks give a bound"


def test_one_block_is_masked_diffusion():
    """With one layer and the same weights, the logits are equal: the first token is read by all, and reads nothing."""
    whole, masked = make(LENGTH, layers=1), make(0, layers=1, kind=MaskedDiffusion)
    masked.load_state_dict(whole.state_dict())
    tokens, scored = whole.rows(X, Y)
    noisy = tokens.clone()
    noisy[:, [1, 3]] = whole.mask_token
    torch.testing.assert_close(whole.block_logits(tokens, noisy[:, 1:], LENGTH), masked.logits(noisy))
    assert not torch.allclose(make(2, layers=1).block_logits(tokens, noisy[:, 1:], LENGTH), masked.logits(noisy))
    u = torch.rand(16, generator=torch.Generator().manual_seed(0))
    given = [model.noisy_nats(tokens, scored, u, torch.Generator().manual_seed(1))[0] for model in (whole, masked)]
    torch.testing.assert_close(*given)


def test_a_block_reads_itself_and_clean_tokens_before_it():
    """Gradients with respect to the embedded input, through three layers, are zero exactly where nothing may flow."""
    spec = DataSpec(Tokens(7, 2), name="bits")
    model, size, length = make(3, spec, layers=3), 3, 7
    clean, noisy = torch.ones(1, 1 + length, dtype=torch.long), torch.zeros(1, length, dtype=torch.long)
    seen = []
    model.net.embedding.register_forward_hook(lambda _, __, out: seen.append(out.requires_grad_()))
    logits = model.block_logits(clean, noisy, length)
    for i in range(length):
        (gradient,) = torch.autograd.grad(logits[0, i].sin().sum(), seen[0], retain_graph=True)
        reads = gradient[0].abs().sum(1) > 0
        want = [True] + [j // size < i // size for j in range(length)] + [j // size == i // size for j in range(length)]
        assert reads.tolist() == want, i
    position, allowed = attention_pattern(7, 3, "cpu")
    assert position.tolist() == [0, *range(1, 8), *range(1, 8)]
    assert allowed.any(1).all()


@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 9])
def test_a_sampler_reads_no_more_than_it_needs(block_size):
    """The logits of a block are those of the whole row, because later tokens have no influence."""
    model = make(block_size, DataSpec(Tokens(7, 2), name="bits"))
    tokens = torch.randint(2, (2, 8), generator=torch.Generator().manual_seed(0))
    for begin in range(1, 8, block_size):
        end = min(begin + block_size, 8)
        noisy = tokens.clone()
        noisy[:, begin:end:2] = model.mask_token
        found = model.sampling_logits(noisy[:, :end])[:, begin - 1 :]
        torch.testing.assert_close(found, model.logits(noisy)[:, begin - 1 : end - 1])
        assert found.shape[1] == end - begin


def test_samples_have_the_law_of_the_orders_within_blocks():
    model, n = make(2).float(), 3000
    begin = torch.full((16, 1), model.begin)
    law = torch.stack([model.ordered_log_prob(torch.cat([begin, X[:, 1:]], 1), Y, o) for o in orders(2)]).exp().mean(0)
    masks, hidden = model.masked_rows(torch.full((n,), model.begin), LENGTH)
    sampler, params = model.choose_sampler("any_order", 2), model.sampling_params({})
    noise = uniform_noise(n, 1 + LENGTH, torch.Generator().manual_seed(0), "cpu")
    *_, (tokens, log_p) = model.unmasked(masks, hidden, sampler, noise, params)
    index = (tokens[:, 1:] * torch.tensor([8, 4, 2, 1])).sum(1)
    counts = torch.bincount(index, minlength=16)
    assert ((counts - n * law).square() / (n * law)).sum() < 45  # 15 degrees of freedom: p = 8e-5
    assert ((counts - n / 16).square() / (n / 16)).sum() > 45, "not uniform"
    assert (log_p[:, 1:] < 0).all(), "each token has the log-probability of its draw"


def test_texts_and_images():
    model = make(3, TEXT).float()
    assert not supports(model, SupportsMaskFilling)
    done = model.generate(["ab", ""], max_new_tokens=5, seed=1)
    assert done[0].text == model.generate("ab", max_new_tokens=5, seed=1)[0].text, "rows do not depend on each other"
    x = torch.randint(0, 5, (4, 8))
    y = x.roll(-1, 1)
    y[:, 5:] = -100
    nats = model.bound(x, y)
    assert (nats[:, 5:] == 0).all()
    assert (nats[:, :5].sum(1) > 0).all()
    images = make(3, PIXELS).float()
    drawn = images.sample(4, condition=torch.tensor([0, 1, 2, 2]), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 1, 2, 4)
    with pytest.raises(ZooError, match="leaves a block before it is complete"):
        make(2).ordered_log_prob(X, Y, torch.tensor([0, 2, 1, 3]))
