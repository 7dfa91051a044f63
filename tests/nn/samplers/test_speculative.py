"""Speculative decoding against the distribution of the large model, by enumeration."""

import itertools
import re

import pytest
import torch

import zoo
from tests.nn.samplers.test_autoregressive import net, score
from zoo.core.errors import ConfigError
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.nn.networks.kneser_ney import KneserNey
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.speculative import check_token, speculative_tokens

HOW = [{}, {"top_p": 0.7, "temperature": 1.5}]


@pytest.mark.parametrize("seed", range(5))
def test_the_token_has_the_distribution_of_the_large_model(seed):
    """Sum over drafts of q(x) P(result | x), by a grid of both uniform numbers."""
    torch.manual_seed(seed)
    p, q = (2 * torch.randn(2, 4)).softmax(-1)
    p[seed % 4] = 0
    p, n, found = p / p.sum(), 80, torch.zeros(4)
    grid = [torch.tensor([(i + 0.5) / n, (j + 0.5) / n]) for i in range(n) for j in range(0, n, 4)]
    for token in range(4):
        for uniform in grid:
            _, result = check_token(p, q, token, uniform)
            found[result] += q[token] / len(grid)
    torch.testing.assert_close(found, p, atol=0.03, rtol=0)
    kept = torch.minimum(p, q)
    naive = kept + (1 - kept.sum()) * p  # the control: a replacement from p itself
    assert (naive - p).abs().max() > 0.04


def sampled(model, draft, how, n_draft, length, seed=0, prompt=(1, 2)):
    stream = speculative_tokens(
        model, draft, prompt, how, n_draft=n_draft, generator=torch.Generator().manual_seed(seed)
    )
    return list(itertools.islice(stream, length))


@pytest.mark.parametrize("options", HOW)
def test_texts_have_the_distribution_of_the_large_model(options):
    """Pairs of tokens in 300 texts, against all 36 probabilities."""
    model, draft, how, n = net(seed=4, std=0.6), net(seed=5, std=0.6, n_layers=1), SamplingParams(**options), 300
    with torch.no_grad():
        first = how.probabilities(model(torch.tensor([[1, 2]]))[:, -1])[0]
        after = how.probabilities(model(torch.tensor([[1, 2, t] for t in range(6)]))[:, -1])
        other = how.probabilities(draft(torch.tensor([[1, 2]]))[:, -1])[0]
    want, found = first[:, None] * after, torch.zeros(6, 6)
    for seed in range(n):
        (a, _), (b, _) = sampled(model, draft, how, 2, 2, seed)
        found[a, b] += 1 / n
    error = (want * (1 - want) / n).sqrt()
    assert ((found - want).abs() <= 4.5 * error + 1e-6).all()
    assert ((other - first).abs() > 4.5 * (first * (1 - first) / n).sqrt() + 0.01).any(), "the control: the draft"


@pytest.mark.parametrize("n_draft", [1, 3, 6])
def test_greedy_texts_are_those_of_the_large_model(n_draft):
    """Across two ends of the context, from a prompt of one token and from one that is too long."""
    model, draft, how = net(seed=6, context=16), net(seed=7, context=16, n_layers=1), SamplingParams(temperature=0)
    for prompt in ([3], list(range(5)) * 5):
        want = next(sample_tokens(model, [prompt], how, block_size=32))[0][0].tolist()
        found = sampled(model, draft, how, n_draft, 32, prompt=prompt)
        assert [token for token, _ in found] == want
    row = [token for token, _ in sampled(model, draft, how, n_draft, 8)]
    nats = [nats for _, nats in sampled(model, draft, how, n_draft, 8)]
    assert sum(nats) == pytest.approx(score(model, [1, 2], row), abs=1e-4)
    assert sampled(model, draft, how, n_draft, 8) != sampled(draft, draft, how, n_draft, 8), "the control"


def counted(order=3, context=64):
    """An n-gram model of 6 tokens, counted on a random text."""
    draft = KneserNey(6, order, context, 5)
    tokens = torch.randint(0, 6, (200,), generator=torch.Generator().manual_seed(1))
    draft.fit(tokens, torch.arange(200) == 0)
    return draft


@pytest.mark.parametrize("n_draft", [1, 3, 6])
def test_an_n_gram_model_drafts(n_draft):
    """Greedy texts, across ends of the context; and the distribution of first tokens."""
    model, how = net(seed=6, context=16), SamplingParams(temperature=0)
    for prompt in ([3], list(range(5)) * 5):
        want = next(sample_tokens(model, [prompt], how, block_size=32))[0][0].tolist()
        assert [token for token, _ in sampled(model, counted(), how, n_draft, 32, prompt=prompt)] == want
    how, n, found = SamplingParams(), 300, torch.zeros(6)
    with torch.no_grad():
        want = how.probabilities(model(torch.tensor([[1, 2]]))[:, -1])[0]
        other = how.probabilities(counted().logits(torch.tensor([[1, 2]])).float())[0]
    for seed in range(n):
        found[sampled(model, counted(), how, n_draft, 1, seed)[0][0]] += 1 / n
    error = (want * (1 - want) / n).sqrt()
    assert ((found - want).abs() <= 4.5 * error + 1e-6).all()
    assert ((other - want).abs() > 4.5 * error).any(), "the control: the draft"


def test_an_equal_draft_is_always_accepted(monkeypatch):
    model, passes = net(seed=8), []
    extend = type(model).extend
    monkeypatch.setattr(model, "extend", lambda x, s: passes.append(x.shape[1]) or extend(model, x, s), raising=False)
    sampled(model, net(seed=8), SamplingParams(), 4, 20)
    assert passes[1:] == [5, 5, 5, 5]


def test_what_does_not_apply_is_refused():
    model = net(seed=0)
    with pytest.raises(ConfigError, match="draft: not together with penalties"):
        sampled(model, model, SamplingParams(no_repeat_ngram_size=2), 2, 2)
    with pytest.raises(ConfigError, match=r"draft: has a context of 16 tokens\. Use one with at least 32"):
        sampled(model, net(context=16), SamplingParams(), 2, 2)
    with pytest.raises(ConfigError, match="document_mask"):
        sampled(net(end=5), model, SamplingParams(), 2, 2)


@pytest.fixture(scope="module")
def models():
    """A large and a small language model of characters."""
    tokenizer = Char().fit(["abcde "])
    spec = zoo.DataSpec(Tokens(24, tokenizer.vocab_size, dumps(tokenizer)))
    torch.manual_seed(0)
    made = [zoo.create_model("gpt", data=spec, backbone={"d_model": 16, "n_layers": n, "n_heads": 2}) for n in (2, 1)]
    for p in (p for model in made for p in model.parameters()):
        torch.nn.init.normal_(p, std=0.4)
    return made


def test_generate_takes_a_draft(models):
    large, small = models
    prompts = ["ab", "c", "dea"]
    plain = large.generate(prompts, temperature=0.0, max_new_tokens=30)
    drafted = large.generate(prompts, temperature=0.0, max_new_tokens=30, draft=small, n_draft=3)
    assert [d.text for d in drafted] == [p.text for p in plain]
    assert [d.log_prob for d in drafted] == pytest.approx([p.log_prob for p in plain], abs=1e-3)
    first, again = (large.generate(prompts, seed=3, max_new_tokens=9, draft=small) for _ in range(2))
    assert first == again
    with pytest.raises(zoo.ZooError, match="beams=2: beam search does not use a draft"):
        large.generate("a", beams=2, draft=small)
    other = Char().fit(["xyz"])
    spec = zoo.DataSpec(Tokens(24, other.vocab_size, dumps(other)))
    with pytest.raises(zoo.ZooError, match="draft: has another tokenizer"):
        large.generate("a", draft=zoo.create_model("gpt", data=spec, backbone={"d_model": 16, "n_layers": 1}))
    with pytest.raises(zoo.ZooError, match="draft: not a language model"):
        large.generate("a", draft=zoo.create_model("gmm", data="moons"))


def test_a_draft_writes_without_dropout_and_keeps_its_mode(models):
    large, small = models
    expected = large.generate("ab", seed=0, max_new_tokens=12, draft=small)
    small.net.train()
    noisy = [m for m in small.net.modules() if hasattr(m, "p")]
    assert noisy
    before = [m.p for m in noisy]
    for m in noisy:
        m.p = 0.9
    try:
        assert large.generate("ab", seed=0, max_new_tokens=12, draft=small) == expected
        assert small.net.training
    finally:
        small.net.eval()
        for m, p in zip(noisy, before, strict=True):
            m.p = p


def test_generate_keeps_to_a_constraint(models):
    for text in models[0].generate(["ab"] * 5, regex="(ab|c){2,4}d", max_new_tokens=20, seed=0):
        assert text.finish_reason != "eos" or re.fullmatch("(ab|c){2,4}d", text.text)
        assert text.finish_reason == "eos"
    (text,) = models[0].generate("a", choices=["ace", "bed"], temperature=0.0, max_new_tokens=9)
    assert text.text in ("ace", "bed")
