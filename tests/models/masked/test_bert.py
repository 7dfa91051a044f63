"""BERT: proportions of masked tokens, influence of masks and padding, filling by hand and by brute force."""

import math

import pytest
import torch

from zoo.core.errors import ZooError
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.masked.base import strip_padding
from zoo.models.masked.bert import BERT

LETTERS = Char().fit(["abcde "])
MARK = BERT.mark
SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2, "dropout": 0.0}
SPEC = DataSpec(Tokens(12, LETTERS.vocab_size, dumps(LETTERS)), name="letters")


def make(**settings):
    torch.manual_seed(0)
    model = BERT(SPEC, backbone={"name": "transformer_encoder", **SMALL}, **settings)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return model.eval()


def corrupted(model, tokens, generator):
    """Return the corrupted tokens, and a mask of the tokens to predict, both (B, T)."""
    read, places = model.corrupt(tokens, generator)
    asked = torch.zeros(tokens.numel(), dtype=torch.bool)
    asked[places] = True
    return read, asked.view_as(tokens)


def test_proportions_are_the_published_ones():
    """15 % are predicted; of these 80 % are masked, 10 % replaced by any token, 10 % kept: within 5 deviations."""
    model = make()
    tokens = torch.randint(0, SPEC.tokens.vocab_size, (400, 250))
    read, asked = corrupted(model, tokens, torch.Generator().manual_seed(0))

    def check(found, p, n):
        assert abs(int(found) - p * n) < 5 * math.sqrt(n * p * (1 - p))

    n = tokens.numel()
    check(asked.sum(), 0.15, n)
    hidden, changed = read == model.mask_token, (read != tokens) & (read != model.mask_token)
    assert not ((hidden | changed) & ~asked).any()
    check(hidden.sum(), 0.15 * 0.8, n)
    check(changed.sum(), 0.15 * 0.1 * (1 - 1 / SPEC.tokens.vocab_size), n)  # the other token may be the same one
    # Replacements are uniform over all tokens.
    counts = torch.bincount(read[changed], minlength=SPEC.tokens.vocab_size)
    assert (counts - counts.float().mean()).abs().max() < 5 * counts.float().mean().sqrt()


def test_padding_is_never_asked_for_nor_seen():
    model = make(mlm_probability=1.0)
    x = torch.randint(0, 5, (3, 12))
    y = torch.roll(x, -1, 1)
    y[:, 5:] = -100
    tokens = strip_padding(Batch(x, y))
    assert torch.equal(tokens >= 0, torch.arange(12).expand(3, -1) < 5)
    read, places = model.corrupt(tokens)
    assert len(places) == 36
    assert (read.flatten() != -100).equal(tokens.flatten() >= 0)
    nats, found, real = model.masked_nll(Batch(x, y))
    assert torch.equal(real, (tokens >= 0).flatten())
    assert (nats[~real] == 0).all()
    assert not found[~real].any()
    with torch.no_grad():
        assert torch.allclose(model(tokens)[:, :5], model(tokens[:, :5]), atol=1e-5)


def test_the_loss_is_that_of_hidden_tokens_alone():
    model = make()
    x = torch.randint(0, 5, (6, 12))
    generator = torch.Generator().manual_seed(3)
    read, asked = corrupted(model, x, generator)
    generator.manual_seed(3)
    nats, found, real = model.masked_nll((x, x), generator)
    assert real.all()
    want = -model(read).log_softmax(-1).gather(2, x[..., None]).squeeze(2)
    assert torch.allclose(nats, want[asked], atol=1e-5)
    assert torch.equal(found, (model(read).argmax(-1) == x)[asked])
    (grad,) = torch.autograd.grad(nats.sum(), model.net.embedding.weight)
    assert grad[model.mask_token].any()


def test_a_hidden_token_has_no_influence_on_what_is_read():
    model = make(mlm_probability=1.0)
    with torch.no_grad():
        a, b = (model.corrupt(torch.full((1, 200), t), torch.Generator().manual_seed(1)) for t in (0, 1))
        kept = (a[0] == b[0])[0]  # hidden, or replaced by another
    assert (a[0][0, kept] == model.mask_token).any()
    assert 5 < (~kept).sum() < 45  # the tenth that is kept is visible


def test_pseudo_likelihood_equals_hiding_one_after_another():
    model = make()
    x = torch.randint(0, 5, (2, 6))
    with torch.no_grad():
        got = model.pseudo_log_prob(x)
        want = torch.zeros(2)
        for t in range(6):
            read = x.clone()
            read[:, t] = model.mask_token
            want += model(read)[:, t].log_softmax(-1).gather(1, x[:, t : t + 1]).squeeze(1)
    assert torch.allclose(got, want, atol=1e-5)


def test_filling_one_mark_follows_the_model_exactly():
    """A chi-square of 4,000 fillings of one mark against the probabilities."""
    model = make()
    tokens = torch.tensor([[model.end, 0, model.mask_token, 1]])
    p = model(tokens)[0, 2].softmax(-1).detach()
    drawn, nats = model.iterative_unmask(tokens.expand(4000, -1), model._params({}), torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, [0, 1, 3]], tokens[:, [0, 1, 3]].expand(4000, -1))
    counts = torch.bincount(drawn[:, 2], minlength=len(p))
    statistic = ((counts - 4000 * p).square() / (4000 * p)).sum()
    assert statistic < 30  # 6 degrees of freedom: p = 4e-5
    assert torch.allclose(nats, p.log()[drawn[:, 2]], atol=1e-4)


def test_greedy_filling_takes_the_surest_first():
    model = make()
    tokens = torch.tensor([[model.end, model.mask_token, 2, model.mask_token, model.mask_token]])
    want = tokens.clone()
    for _ in range(3):
        log_p = model(want)[0].log_softmax(-1).max(-1)
        place = log_p.values.masked_fill(want[0] != model.mask_token, -torch.inf).argmax()
        want[0, place] = log_p.indices[place]
    assert torch.equal(model.iterative_unmask(tokens, model._params({"temperature": 0.0}))[0], want)


def test_texts_of_unequal_length_are_filled_as_each_alone():
    model = make()
    texts = [f"a{MARK}", f"b{MARK}cd{MARK}", f"{MARK}"]
    together = model.fill(texts, temperature=0.0)
    assert together == [model.fill([text], temperature=0.0)[0] for text in texts]
    assert [len(t) >= len(text.replace(MARK, "")) for t, text in zip(together, texts, strict=True)]
    assert together[1].replace(MARK, "").startswith("b")


def test_writing_on():
    model = make()
    assert supports(model, SupportsTextGeneration)
    done = model.generate(["ab", ""], max_new_tokens=5, seed=1)
    assert [d.text for d in done] == [d.text for d in model.generate(["ab", ""], max_new_tokens=5, seed=1)]
    assert all(d.finish_reason in ("length", "eos") and len(d.tokens) <= 5 for d in done)
    assert model.training is False
    with pytest.raises(ZooError, match="does not support beam search"):
        model.generate(["ab"], beams=2)
    with pytest.raises(ZooError, match="repetition_penalty: bert does not support it"):
        model.generate(["ab"], repetition_penalty=1.5)


def test_embeddings_of_texts_do_not_depend_on_company():
    model = make()
    with torch.no_grad():
        together, alone = model.embed(["abc", "a"]), model.embed(["a"])
    assert together.shape == (2, 16)
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ZooError, match="longer than the context of 12"):
        make().fill(["abcde" * 3 + MARK])
    with pytest.raises(ZooError, match=r"condition: .* is unconditional"):
        make().sample(1, condition=torch.zeros(1))
