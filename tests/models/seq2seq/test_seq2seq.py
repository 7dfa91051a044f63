"""Models that read one text and write another: likelihoods, padding, writing, and what T5 takes out of a text."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.contracts.specs import examples
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.autoregressive.base import token_nll

NAMES = ["seq2seq", "transformer", "t5"]
LETTERS = Char().fit(["abcdef"])
SPEC = zoo.DataSpec(
    Pair(Tokens(12, LETTERS.vocab_size, dumps(LETTERS)), Tokens(12, LETTERS.vocab_size, dumps(LETTERS))), name="letters"
)


def model(name, seed=0, spec=SPEC, **settings):
    """A small model in double precision, with weights large enough that a mistake shows."""
    torch.manual_seed(seed)
    small = {"d_model": 16, "n_layers": 2} | ({} if name == "seq2seq" else {"n_heads": 2})
    made = zoo.create_model(name, data=spec, backbone=small, **settings).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return made


def pair(n=5):
    """Pairs that are shorter than the context."""
    return examples(zoo.DataSpec(Pair(Tokens(9, SPEC.tokens.vocab_size), Tokens(9, SPEC.tokens.vocab_size))), n)


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_a_length_sum_to_one_given_a_source(name):
    spec = zoo.DataSpec(Pair(Tokens(6, 4), Tokens(6, 4)))
    made = model(name, spec=spec)
    y = torch.tensor(list(itertools.product(range(4), repeat=4)))
    source = torch.tensor([[1, 2, 3, ABSENT]]).expand(len(y), -1)
    with torch.no_grad():
        assert made.log_prob(source, y).exp().sum().item() == pytest.approx(1, abs=1e-6)
        other = made.log_prob(source.flip(1).roll(3, 1), y)
    assert not torch.allclose(other, made.log_prob(source, y)), "the source must matter"


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    """Alone or in a batch with longer pairs, and whatever stands where there is no token."""
    made, (x, y) = model(name), pair()
    with torch.no_grad():
        together = made.log_prob(x, y)
        for row in range(len(x)):
            source, target = x[row][x[row] >= 0][None], y[row][y[row] >= 0][None]
            assert made.log_prob(source, target).item() == pytest.approx(together[row].item(), abs=1e-9)
        assert torch.allclose(made.log_prob(x, F.pad(y, (0, 3), value=ABSENT)), together, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_padding_has_no_influence_at_all(name):
    """Padding is read as some token, here as 0: with another vector for it, every bit stays where no token is 0."""
    made, (x, y) = model(name), pair()
    x, y = (t.masked_fill(t == 0, 1) for t in (x, y))
    with torch.no_grad():
        before = made.predict(x, y)[..., 1:]
        made.net.embedding.weight[0] += 3
        after = made.predict(x, y)[..., 1:]
        assert torch.equal(before[y >= 0], after[y >= 0])
        x[0, 0] = 0
        assert not torch.equal(made.predict(x, y)[0, :, 1:], after[0]), "a token that is there has influence"


@pytest.mark.parametrize("name", NAMES)
def test_the_decoder_is_causal_and_the_encoder_is_not(name):
    made, (x, y) = model(name), pair(3)
    x, y = x.clamp(min=0), y.clamp(min=0)
    changed = y.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 5
    late = x.clone()
    late[:, -1] = (late[:, -1] + 1) % 5
    with torch.no_grad():
        before, after = made.predict(x, y), made.predict(x, changed)
        assert torch.equal(before[:, :7], after[:, :7])
        assert (before[:, 7:] != after[:, 7:]).any(2).all()
        assert (made.predict(late, y)[:, 0] != before[:, 0]).any(1).all(), "the first target sees the whole source"


@pytest.mark.parametrize("name", NAMES)
def test_cached_steps_equal_the_full_pass_and_rows_can_be_reordered(name):
    made, (x, y) = model(name), pair(4)
    y = y.clamp(min=0)
    read = F.pad(y[:, :-1], (1, 0), value=made.begin)
    with torch.no_grad():
        logits = made.predict(x, y)
        net, _ = made.prepare([[made.end, *row[row >= 0][:-1].tolist()] for row in x])
        told, state = net.prefill(read[:, :2])
        assert torch.allclose(told, logits[:, 1], atol=1e-10)
        order = torch.tensor([2, 0, 3, 3, 1])
        net.reorder(state, order)
        for t in range(2, read.shape[1]):
            assert torch.allclose(net.step(read[order, t], state), logits[order, t], atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_torchs_smoothed_cross_entropy_and_validation_is_not_smoothed(name):
    made, (x, y) = model(name, label_smoothing=0.1), pair()
    logits = made.predict(x, y)
    log_p, real = logits.log_softmax(-1), y >= 0
    plain = -log_p.gather(2, y.clamp(min=0)[..., None])[..., 0][real]
    smooth = 0.9 * plain - 0.1 * log_p.mean(-1)[real]
    assert made.loss(Batch(x, y))["loss"].item() == pytest.approx(smooth.mean().item())
    nats, target = made.token_nll(Batch(x, y))
    assert torch.equal(target, y)
    assert torch.allclose(nats[real], plain)
    assert nats[~real].eq(0).all()
    assert torch.allclose(made.log_prob(x, y), -nats.sum(1))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_scores_what_it_says_and_batches_change_nothing(name):
    made, sources = model(name), ["abc", "", "fedcba", "b"]
    together = made.generate(sources, temperature=0, seed=0)
    for source, done in zip(sources, together, strict=True):
        assert made.generate([source], temperature=0, seed=5)[0] == done or done.log_prob == pytest.approx(
            made.generate([source], temperature=0)[0].log_prob
        )
        ids = [*done.tokens, *([made.end] if done.finish_reason == "eos" else [])]
        x = torch.tensor([[*LETTERS.encode(source), made.end]])
        assert done.log_prob == pytest.approx(made.log_prob(x, torch.tensor([ids])).item(), abs=1e-5)
    assert any(done.tokens for done in together)


@pytest.mark.parametrize("name", NAMES)
def test_a_wide_beam_equals_exhaustive_search(name):
    spec = zoo.DataSpec(Pair(Tokens(6, 4, dumps(Char().fit(["ab"]))), Tokens(6, 4, dumps(Char().fit(["ab"])))))
    made = model(name, spec=spec, seed=3)
    sources = ["ab", "b", "", "aab"]
    found = made.generate(sources, beams=4**3, max_new_tokens=3, length_penalty=1.0)
    texts = [[*body, 3] for n in range(3) for body in itertools.product(range(3), repeat=n)]
    texts += [list(body) for body in itertools.product(range(3), repeat=3)]
    for source, done in zip(sources, found, strict=True):
        x = torch.tensor([[*made.tokenizer.encode(source), made.end]])
        worth = {}
        for text in texts:
            with torch.no_grad():
                worth[tuple(text)] = made.log_prob(x, torch.tensor([text])).item() / len(text)
        best = max(worth, key=worth.__getitem__)
        assert [*done.tokens, *([3] if done.finish_reason == "eos" else [])] == list(best)


@pytest.mark.parametrize("name", NAMES)
def test_beams_of_many_sources_are_those_of_each_alone(name):
    made = model(name, seed=1)
    sources = ["abcdef", "", "f", "ca", "eeee", "bad"]
    together = made.generate(sources, beams=3, max_new_tokens=8)
    for source, done in zip(sources, together, strict=True):
        alone = made.generate([source], beams=3, max_new_tokens=8)[0]
        assert (alone.tokens, alone.finish_reason) == (done.tokens, done.finish_reason)
        assert alone.log_prob == pytest.approx(done.log_prob, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_attention_to_the_source_is_a_distribution_over_its_tokens(name):
    made, (x, y) = model(name), pair()
    with torch.no_grad():
        maps = made.attention(Batch(x, y))
    assert len(maps) == (1 if name == "seq2seq" else 2)
    for weights in maps.values():
        assert weights.shape[0] == len(x)
        assert weights.shape[2:] == (y.shape[1], x.shape[1])
        assert torch.allclose(weights.sum(-1), torch.ones(()).double(), atol=1e-5)
        assert weights.masked_select((x < 0)[:, None, None]).eq(0).all()


@pytest.mark.parametrize("backbone", ["lstm", "transformer", "transformer_encoder"])
def test_a_backbone_of_another_form_is_refused(backbone):
    with pytest.raises(zoo.ZooError, match=f"backbone={backbone}: without after"):
        zoo.create_model("seq2seq", data=SPEC, backbone=backbone)


def test_no_limit_asks_for_more_than_the_context():
    done = model("transformer").generate(["abc"], temperature=0, max_new_tokens=500)[0]
    assert len(done.tokens) <= 12


# -- T5 on plain text -------------------------------------------------------------------------------------------------

TOKENS = zoo.DataSpec(Tokens(12, LETTERS.vocab_size, dumps(LETTERS)), name="letters")


def test_pre_training_and_pairs_share_their_weights():
    assert {k: v.shape for k, v in model("t5", spec=TOKENS).state_dict().items()} == {
        k: v.shape for k, v in model("t5").state_dict().items()
    }


def test_plain_text_is_scored_by_its_spans_and_continued_by_one():
    made = model("t5", spec=TOKENS)
    x, y = examples(TOKENS, 6)
    source, target = made.read(Batch(x, y))
    assert torch.equal(source, made.read(Batch(x, y)).x), "the same places outside training"
    nats, scored = made.token_nll(Batch(x, y))
    assert torch.equal(scored, target)
    assert torch.allclose(nats, token_nll(made.predict(source, target), target))
    done = made.generate(["abc"], temperature=0)[0]
    ids = [*done.tokens, *([made.end] if done.finish_reason == "eos" else [])]
    assert ids
    assert max(ids) < TOKENS.tokens.vocab_size
    given = torch.tensor([LETTERS.encode("abc")])
    assert done.log_prob == pytest.approx(made.log_prob(given, torch.tensor([ids])).item(), abs=1e-5)


def test_more_spans_than_sentinels_are_refused():
    with pytest.raises(zoo.ZooError, match="num_sentinels=2"):
        zoo.create_model("t5", data=zoo.DataSpec(Tokens(64, 9)), num_sentinels=2)
    with pytest.raises(zoo.ZooError, match="source_affixes=true: only for pairs"):
        zoo.create_model("t5", data=zoo.DataSpec(Tokens(64, 9)), source_affixes=True)
    assert math.isfinite(model("t5", num_sentinels=0).loss(pair())["loss"].item()), "pairs need none"
