"""Word alignment and phrase-based translation from pairs to texts."""

import pytest
import torch

import zoo
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word import Word
from zoo.models.translation.base import Dictation, case_folding
from zoo.models.translation.phrase_based import WEIGHTS
from zoo.nn.translation.lattice import FEATURES, LM

# A small language: adjectives follow nouns, and "the" has two forms.
NOUNS = {"chat": "cat", "chien": "dog", "cheval": "horse", "oiseau": "bird"}
COLOURS = {"noir": "black", "blanc": "white", "rouge": "red"}
VERBS = {"dort": "sleeps", "mange": "eats", "court": "runs"}
PAIRS = [
    (f"Le {n} {c} {v}.", f"The {NOUNS[n]} {VERBS[v]}." if not c else f"The {COLOURS[c]} {NOUNS[n]} {VERBS[v]}.")
    for n in NOUNS
    for c in COLOURS
    for v in VERBS
] + [(f"Le {n} {v}.", f"The {NOUNS[n]} {VERBS[v]}.") for n in NOUNS for v in VERBS]
HELD_OUT = ("Le chat noir dort.", "The black cat sleeps.")
TRAIN = [pair for pair in PAIRS if pair != HELD_OUT]
TOKENIZER = Word(vocab_size=400).fit([text for pair in TRAIN for text in pair])
SPEC = zoo.DataSpec(Pair(*[Tokens(24, TOKENIZER.vocab_size, dumps(TOKENIZER))] * 2), name="french")


def encode(texts):
    rows = torch.full((len(texts), 24), ABSENT)
    for row, text in zip(rows, texts, strict=True):
        ids = [*TOKENIZER.encode(text), TOKENIZER.end]
        row[: len(ids)] = torch.tensor(ids)
    return rows


DATA = torch.stack([encode([pair[side] for pair in TRAIN]) for side in (0, 1)], 1)  # (N, 2, T)


def fitted(name, **given):
    model = zoo.create_model(name, data=SPEC, **given)
    model.fit(DATA)
    return model.eval()


@pytest.fixture(scope="module")
def phrases():
    return fitted("phrase_based", reach=2)


@pytest.fixture(scope="module")
def aligned():
    return fitted("word_alignment")


def test_phrases_are_reordered_and_words_are_not(phrases, aligned):
    """The noun and the adjective change places, also in a sentence that was not seen; control: word by word."""
    source, target = HELD_OUT
    assert phrases.generate([source])[0].text == target
    assert phrases.generate([source], beams=3)[0].text == target
    assert aligned.generate([source])[0].text.split() == ["The", "cat", "black", "sleeps."]


def test_completions_end_and_do_not_depend_on_the_batch(phrases):
    sources = [pair[0] for pair in TRAIN[:9]]
    together = phrases.generate(sources, temperature=0, seed=0)
    for source, done in zip(sources, together, strict=True):
        assert done.finish_reason == "eos"
        assert done.log_prob == pytest.approx(0.0, abs=1e-3)
        assert phrases.generate([source])[0].text == done.text
        assert "".join(phrases.stream(source)) == done.text
    assert phrases.generate([sources[0]], max_new_tokens=2)[0].finish_reason == "length"
    assert phrases.generate([""])[0].text == ""


def test_long_sources_are_translated_in_parts(phrases):
    text = " ".join([TRAIN[0][0]] * 30)
    row = TOKENIZER.encode(text)
    assert len(row) > 120
    (written,) = phrases.translate([row])
    assert TOKENIZER.decode(written).count("cat") == 30


def test_links_of_the_alignment(phrases):
    """Le chat blanc dort: "white" links to "blanc", and "cat" to "chat"."""
    x, y = (encode([text]) for text in ("Le chat blanc dort.", "The white cat sleeps."))
    (links,) = phrases.attention(Batch(x, y)).values()
    assert links.shape == (1, 1, 24, 24)
    assert links[0, 0, :6].sum(1).max() <= 1 + 1e-5
    assert links[0, 0, :4].argmax(1).tolist() == [0, 2, 1, 3]
    assert links[0, 0, 6:].eq(0).all()


def test_tuning_raises_bleu_and_keeps_the_best(phrases, monkeypatch):
    model = fitted("phrase_based", reach=2, tune_rounds=2)
    bad = -torch.tensor(WEIGHTS)
    bad[LM] = 0.0
    model.decoder.weights.copy_(bad)
    wrong = [c.text for c in model.generate([pair[0] for pair in TRAIN])]
    model.tune(DATA)
    right = [c.text for c in model.generate([pair[0] for pair in TRAIN])]
    targets = [pair[1] for pair in TRAIN]
    hits = [sum(a == b for a, b in zip(made, targets, strict=True)) for made in (wrong, right)]
    assert hits[1] > hits[0]
    assert model.decoder.weights[LM] >= 0
    good = phrases.decoder.weights.clone()
    monkeypatch.setattr("zoo.models.translation.phrase_based.minimum_risk", lambda f, s, w, p: -w)
    before = phrases.decoder.weights.clone()
    phrases.hparams["tune_rounds"] = 1
    phrases.tune(DATA)
    assert torch.equal(phrases.decoder.weights, before), "worse weights are not kept"
    assert torch.equal(good, before)


def test_likelihood_is_that_of_the_alignment_model(phrases, aligned):
    batch = Batch(*DATA[:5].unbind(1))
    assert torch.equal(phrases.token_nll(batch)[0], aligned.token_nll(batch)[0])
    assert phrases.log_prob(*batch).max() < 0
    hits = phrases.token_hits(batch)
    assert hits.shape == ((batch.y >= 0).sum(),)
    assert hits.double().mean() > 0.3
    confidence, right = phrases.token_confidence(batch)
    assert torch.equal(right, hits)
    truth = phrases.token_nll(batch)[0].neg().exp()[batch.y >= 0]
    torch.testing.assert_close(confidence[hits], truth[hits], rtol=1e-4, atol=1e-6)
    assert (confidence[~hits] >= truth[~hits] - 1e-6).all(), "at least as likely as the right one"


def test_case_folding():
    pieces = [b"The", b"the", b" the", b"Cat", b" cat", b"Zoo", b""]
    folded, first = case_folding(pieces, 8)
    assert folded.tolist() == [1, 1, 2, 3, 4, 5, 6, 7]
    assert first.tolist() == [2, 2, 2, 4, 4, 5, 6, 7]


def test_a_dictation_is_written_word_by_word():
    writer = Dictation([[3, 1, 4], [2, 4]], 5, torch.device("cpu"))
    logits, state = writer.prefill(torch.zeros(2, 1, dtype=torch.int64))
    assert logits.argmax(1).tolist() == [3, 2]
    assert torch.allclose(logits.logsumexp(1), torch.zeros(2))
    writer.reorder(state, torch.tensor([1, 0]))
    assert writer.step(torch.tensor([2, 3]), state).argmax(1).tolist() == [4, 1]
    assert writer.step(torch.tensor([4, 1]), state).argmax(1).tolist() == [4, 4]


def test_settings_of_the_model():
    assert len(WEIGHTS) == len(FEATURES)
    with pytest.raises(zoo.ZooError, match="order=1"):
        zoo.create_model("phrase_based", data=SPEC, order=1)
