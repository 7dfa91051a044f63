"""Sampling options against brute force on small alphabets: constraints, n-grams, penalties, min-p and typical-p."""

import itertools
import math
import re

import pytest
import torch

from tests.nn.samplers.test_autoregressive import END, first, kept, net
from zoo.core.errors import ConfigError
from zoo.models.options import parse_options
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.constraint import TokenConstraint, Vocabulary
from zoo.nn.samplers.continuous_batch import ContinuousBatch, Row, row_streams
from zoo.nn.samplers.logit_rules import LogitRules
from zoo.nn.samplers.sampling_params import SamplingParams

PIECES = (b"a", b"b", b"c", b"ab", b"bc", b"")
WORDS = Vocabulary(PIECES, (END,))


def spell(tokens):
    return b"".join(PIECES[t] for t in tokens).decode()


def rules(prompt=(0,), vocabulary=WORDS, **options):
    return LogitRules(SamplingParams(**options), list(prompt), 6, None, vocabulary, "cpu")


# -- constraints --------------------------------------------------------------------------------------------------

CONSTRAINTS = [
    ({"regex": "(ab|ba)*c"}, "(ab|ba)*c"),
    ({"regex": "a{2,3}"}, "a{2,3}"),
    ({"regex": "[^b]*b?"}, "[^b]*b?"),
    ({"regex": "d|abc"}, "d|abc"),  # without a token for d
    ({"choices": ("ab", "abc", "b")}, "ab|abc|b"),
]


@pytest.mark.parametrize(("options", "pattern"), CONSTRAINTS)
def test_each_token_has_its_probability_among_those_that_can_be_continued(options, pattern):
    """Brute force: a token is possible if some text that begins so matches. Tokens spell every text of a, b and c."""
    texts = ("".join(letters) for n in range(9) for letters in itertools.product("abc", repeat=n))
    fits = {text for text in texts if re.fullmatch(pattern, text)}
    torch.manual_seed(0)
    n_restricted = 0
    for prefix in (p for n in range(4) for p in itertools.product(range(5), repeat=n)):
        begun = spell(prefix)
        if not any(text.startswith(begun) for text in fits):
            continue
        row, logits = rules(**options), torch.randn(6)
        for token in prefix:
            assert row.apply(torch.randn(6))[token] > -torch.inf, "a possible prefix was excluded"
            row.record(token)
        if len(begun) > 4:
            continue  # texts after it may be longer than those that were enumerated
        possible = [any(text.startswith(begun + spell([t])) for text in fits) for t in range(5)] + [begun in fits]
        p = logits.softmax(-1) * torch.tensor(possible)
        torch.testing.assert_close(row.apply(logits).softmax(-1), p / p.sum())
        n_restricted += not all(possible)
    assert n_restricted


@pytest.mark.parametrize(("options", "pattern"), CONSTRAINTS)
def test_sampled_texts_match(options, pattern):
    model, texts = net(seed=1), []
    for how in (SamplingParams(**options), SamplingParams(temperature=0, **options), SamplingParams()):
        tokens = next(sample_tokens(model, [[0]] * 20, how, block_size=24, vocabulary=WORDS))[0].tolist()
        texts = [spell(row[: row.index(END)]) if END in row else None for row in tokens]
        if how.pattern:
            assert all(text is None or re.fullmatch(pattern, text) for text in texts)
            assert any(text is not None for text in texts) or how.temperature == 0
    assert not all(text is None or re.fullmatch(pattern, text) for text in texts), "the control: without a constraint"


def test_constraints_that_nothing_fits_or_that_contradict_are_refused():
    with pytest.raises(ConfigError, match="no text of the model's tokens matches"):
        rules(regex="[xyz]+a")
    with pytest.raises(ConfigError, match="regex: not together with choices"):
        SamplingParams(regex="a", choices=("a",))
    with pytest.raises(ConfigError, match="choices='ab': must be a list"):
        SamplingParams(choices="ab")
    with pytest.raises(ConfigError, match="this model does not generate text"):
        rules(vocabulary=None, regex="a")


def test_a_dead_end_of_the_vocabulary_is_never_entered():
    """After `a` only `x` could follow, which no token spells."""
    constraint = TokenConstraint("ax|bc", WORDS)
    assert set(constraint.allowed(constraint.start)) == {1, 4}
    full = Vocabulary((*PIECES, *(bytes([i]) for i in range(256))), (END,))
    open_ended = TokenConstraint("ax|bc", full)
    assert {full.pieces[t] for t in open_ended.allowed(open_ended.start)} == {b"a", b"b", b"bc"}


# -- n-grams, penalties, biases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_occurs_twice(n):
    model = net(seed=2)

    def ngrams(tokens):
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    length = 5 if n == 1 else 14
    prompt = [1, 2, 3][: 1 if n == 1 else 3]
    for temperature in (0, 2.0):
        how = SamplingParams(temperature=temperature, no_repeat_ngram_size=n)
        row = [*prompt, *first(model, [prompt], how, length)[0].tolist()]
        assert len(set(ngrams(row))) == len(ngrams(row))
    plain = [*prompt, *first(model, [prompt], SamplingParams(temperature=0), length)[0].tolist()]
    assert len(set(ngrams(plain))) < len(ngrams(plain)), "the control"


def test_only_completing_tokens_are_excluded():
    row = rules(prompt=[0, 1, 2, 0, 1], no_repeat_ngram_size=3)
    assert row.apply(torch.zeros(6)).isneginf().tolist() == [False, False, True, False, False, False]
    row.record(3)
    assert not row.apply(torch.zeros(6)).isneginf().any()


def test_biases_and_penalties_are_added_by_their_formula():
    logits = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, -2.0])
    row = rules(prompt=[2], frequency_penalty=0.5, presence_penalty=0.25, logit_bias={"1": 3, 4: -1.5},
                repetition_penalty=2.0)  # fmt: skip
    for token in (0, 0, 1):
        row.record(token)
    # repetition: 0, 1 and 2 of the row; frequency and presence: generated tokens only
    want = torch.tensor([0.5 - 1.0 - 0.25, -2.0 - 0.5 - 0.25 + 3, 0.25, 0.0, 0.5, -2.0])
    torch.testing.assert_close(row.apply(logits), want)
    with pytest.raises(ConfigError, match=r"logit_bias=\{6: 1\}: not a token. Choose 0 to 5"):
        rules(logit_bias={6: 1})


OPTIONS = [
    {"no_repeat_ngram_size": 2, "temperature": 0.0},
    {"frequency_penalty": 1.0, "presence_penalty": 0.5},
    {"logit_bias": {0: 2.0}, "min_p": 0.2},
    {"typical_p": 0.6},
    {"regex": "(ab|b|c)*", "repetition_penalty": 1.5},
]


def test_rows_of_a_continuous_batch_equal_rows_alone():
    model, prompts = net(seed=3), [[1, 2], [3], [0, 4, 1], [2], [1]]
    rows = [Row(p, SamplingParams(**o), row_streams(1, 7)[0]) for p, o in zip(prompts, OPTIONS, strict=True)]
    batch, found = ContinuousBatch(model, vocabulary=WORDS), {id(row): [] for row in rows}
    batch.join(rows)
    for _ in range(12):
        for row, drawn in batch.draw():
            found[id(row)].append(drawn.token)
        batch.advance()
    for prompt, options, row in zip(prompts, OPTIONS, rows, strict=True):
        generator = torch.Generator().manual_seed(7)
        stream = sample_tokens(
            model, [prompt], SamplingParams(**options), generator=generator, block_size=12, vocabulary=WORDS
        )
        assert next(stream)[0][0].tolist() == found[id(row)], options


# -- min-p and typical-p -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_min_p_equals_its_definition(seed):
    torch.manual_seed(seed)
    logits, share = 2 * torch.randn(6), float(torch.rand(()))
    p = logits.softmax(-1)
    want = {i for i in range(6) if p[i] >= share * p.max() and p[i] > 1e-3}
    assert kept(logits.tolist(), min_p=share) | want == kept(logits.tolist(), min_p=share)
    assert all(p[i] >= share * p.max() for i in kept(logits.tolist(), min_p=share))
    assert kept([0.0, 0.0, -9.0], min_p=1.0) == {0, 1}


@pytest.mark.parametrize("seed", range(8))
def test_typical_p_equals_brute_force(seed):
    """Of all sets with enough probability that prefer tokens of typical surprise, the smallest."""
    torch.manual_seed(seed)
    logits, mass = 1.5 * torch.randn(6), float(torch.rand(())) * 0.9 + 0.05
    p = logits.double().softmax(-1)
    entropy = -(p * p.log()).sum()
    nearest = sorted(range(6), key=lambda i: float((-p[i].log() - entropy).abs()))
    size = next(n for n in range(1, 7) if p[nearest[:n]].sum() >= mass)
    want = set(nearest[:size])
    got = kept(logits.tolist(), typical_p=mass)
    assert got <= want
    assert {i for i in want if p[i] / p[list(want)].sum() > 1e-3} <= got


def test_typical_p_drops_the_likeliest_token_of_a_flat_rest():
    """The entropy is near the surprise of the many, not of the one (Meister et al. 2022, figure 1)."""
    log = [math.log(0.3)] + [math.log(0.1)] * 7
    assert 0 not in kept(log, typical_p=0.5)
    assert 0 in kept(log, top_p=0.5)


# -- on the command line -------------------------------------------------------------------------------------------


def test_options_keep_brackets_and_words_as_texts():
    def method(*, n: int = 1, **options):
        """Sample."""

    words = ["regex=[0-9]+", "choices=[yes,no]", "logit_bias={65: -5}", "min_p=0.1"]
    got = parse_options(method, words, "model")
    assert got == {"regex": "[0-9]+", "choices": ["yes", "no"], "logit_bias": {65: -5}, "min_p": 0.1}
    assert parse_options(method, ["regex='a: b'"], "model") == {"regex": "a: b"}
    assert parse_options(method, ["choices=one"], "model") == {"choices": ["one"]}
    assert parse_options(method, ['json_schema={"type": "integer"}'], "model")["json_schema"] == {"type": "integer"}
