"""The stack decoder against exhaustive search, and its bounds against the scores that they bound."""

import itertools
import math
from functools import cache

import pytest
import torch

from zoo.nn.networks.kneser_ney import KneserNey
from zoo.nn.translation.lattice import DISTANCE, FEATURES, LM, ORIENTATION, Lattice
from zoo.nn.translation.phrases import PhraseTable
from zoo.nn.translation.stack_decoder import UNKNOWN, StackDecoder, best_of_each

V, END, LONGEST = 6, 5, 2
WEIGHTS = torch.tensor([0.6, 0.3, 0.2, 0.25, 0.15, 0.3, 0.2, -0.4, 0.5], dtype=torch.float64)


def language_model(order, seed=0):
    g, tokens = torch.Generator().manual_seed(seed), [END]
    for u in torch.rand(300, generator=g).tolist():
        tokens.append(min(int(u * V * (1 if tokens[-1] % 2 else 0.7)), V - 1))
    lm = KneserNey(V, order, 64, END)
    tokens = torch.tensor(tokens)
    lm.fit(tokens, torch.cat([torch.tensor([True]), tokens[:-1] == END]))
    return lm


def decoder(order=3, beam=10_000, reach=2, seed=0, weights=WEIGHTS):
    g = torch.Generator().manual_seed(seed)

    def phrases(n):
        rows = torch.randint(0, END - 1, (n, LONGEST), generator=g)  # word 4 has no phrase
        rows[torch.rand(n, generator=g) < 0.6, 1] = -1
        return rows

    table = PhraseTable(V, LONGEST, options=3)
    lexical = -torch.rand(60, 2, generator=g, dtype=torch.float64)
    table.fit(phrases(60), phrases(60), lexical, torch.randint(0, 3, (60,), generator=g))
    found = StackDecoder(table, language_model(order), beam=beam, reach=reach, candidates=10_000)
    found.fit()
    found.weights.copy_(weights)
    return found


def exhaustive(dec, source):
    """Scores of all derivations: {(words, features)}, by recursion over the next phrase."""
    options = dec.options(torch.tensor([source]), torch.tensor([source]))
    n, found = len(source), []

    @cache
    def nats(context, word):
        row = torch.tensor([context or (-1,)])
        return dec.lm.log_prob(row, torch.full_like(row, word))[0, -1].item()

    def lm_score(words):
        text = (END, *words, END)
        return sum(nats(text[max(0, k - dec.lm.order + 1) : k], text[k]) for k in range(1, len(text)))

    def grow(covered, last, words, features):
        if len(covered) == n:
            total = features.clone()
            total[LM] = lm_score(words)
            found.append(((total * dec.weights.double()).sum().item(), tuple(words), total))
            return
        gap = min(set(range(n)) - covered)
        for k in range(len(options.begin)):
            begin, end = int(options.begin[k]), int(options.end[k])
            if begin - gap > dec.reach or covered & set(range(begin, end)):
                continue
            turn = 0 if begin == last[1] else 1 if end == last[0] and last[1] > 0 else 2
            more = features + options.features[k]
            more[ORIENTATION] += options.orientation[k, turn]
            more[DISTANCE] -= abs(begin - last[1])
            added = [int(w) for w in options.words[k] if w >= 0]
            grow(covered | set(range(begin, end)), (begin, end), [*words, *added], more)

    grow(frozenset(), (0, 0), [], torch.zeros(len(FEATURES), dtype=torch.float64))
    return found


def search(dec, *sources) -> Lattice:
    size = max(map(len, sources))
    x = torch.tensor([[*source, *[-100] * (size - len(source))] for source in sources])
    return dec.search(x, x)


SOURCES = [[0, 1, 2], [3, 0, 1, 2], [2, 2], [1], [4, 0, 4], [3, 1, 0]]


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("reach", [0, 2])
def test_a_wide_beam_equals_exhaustive_search(order, reach):
    dec = decoder(order, reach=reach)
    lattice = search(dec, *SOURCES)
    for n, source in enumerate(SOURCES):
        best = max(exhaustive(dec, source), key=lambda d: d[0])
        found = lattice.best(n)[0]
        assert found.score == pytest.approx(best[0], abs=1e-5)
        features = torch.tensor(found.features, dtype=torch.float64)
        assert (features @ dec.weights.double()).item() == pytest.approx(found.score, abs=1e-5)


def test_a_narrow_beam_misses():
    """Control: exhaustive search is a test that can fail."""
    wide, narrow = decoder(), decoder(beam=1)
    narrow.candidates = 1
    long = [[3, 0, 1, 2, 0, 3], [0, 1, 2, 3, 2, 1], [2, 1, 3, 0, 0, 1]]
    scores = [[search(dec, *long).best(n)[0].score for n in range(3)] for dec in (wide, narrow)]
    assert all(a >= b - 1e-9 for a, b in zip(*scores, strict=True))
    assert max(a - b for a, b in zip(*scores, strict=True)) > 1e-3


def test_lists_of_translations_are_the_best_of_all():
    dec = decoder()
    source = [3, 0, 1, 2]
    everything = sorted((d[0] for d in exhaustive(dec, source)), reverse=True)
    found = search(dec, source).best(0, 40)
    assert [d.score for d in found] == pytest.approx(everything[:40], abs=1e-5)
    for d in found:
        features = torch.tensor(d.features, dtype=torch.float64)
        assert (features @ dec.weights.double()).item() == pytest.approx(d.score, abs=1e-5)


def test_sentences_of_a_batch_do_not_meet():
    dec = decoder(beam=3)
    together = search(dec, *SOURCES)
    for n, source in enumerate(SOURCES):
        assert search(dec, source).best(0)[0].score == pytest.approx(together.best(n)[0].score, abs=1e-9)


def test_the_estimate_of_the_rest_is_never_too_low():
    """Of whole sentences, and of each step; control: probabilities without left contexts do not bound."""
    violations = 0
    for seed in range(3):
        dec = decoder(seed=seed)
        for source in SOURCES:
            best = max(d[0] for d in exhaustive(dec, source))
            x = torch.tensor([source])
            options = dec.options(x, x)
            estimate = options.features @ dec.weights.double() + dec.weights[LM] * options.bound
            future = dec.future(options, estimate, x.shape)
            assert future[0, 0, len(source)].item() + dec.weights[LM].item() * max_end(dec) >= best - 1e-6
            lattice = search(dec, source)
            for option, step, finished in zip(lattice.option, lattice.step[:, 0], lattice.finished, strict=True):
                if option < 0 or finished:
                    continue
                assert step <= options.bound[option] + 1e-6
                words = options.words[option : option + 1]
                alone = dec.lm.log_prob(torch.nn.functional.pad(words[:, :-1], (1, 0), value=-1), words.clamp(min=0))
                violations += bool(step > alone.masked_fill(words < 0, 0)[0, : dec.state_size].sum() + 1e-6)
    assert violations > 10


def max_end(dec):
    contexts = torch.tensor(list(itertools.product(range(-1, V), repeat=dec.state_size)))
    return dec.lm.log_prob(contexts, torch.full_like(contexts, END))[:, -1].max().item()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bounds_of_the_language_model_are_the_maximum_over_all_histories(order):
    lm = language_model(order)
    for size in (1, 2, 3):
        words = torch.tensor(list(itertools.product(range(V), repeat=size)))
        bound = lm.log_bound(words)
        earlier = max(order - size, 0)
        histories = torch.tensor(list(itertools.product(range(V), repeat=earlier)), dtype=torch.int64)
        best = torch.full((len(words),), -math.inf, dtype=torch.float64)
        for history in histories:
            text = torch.cat([history.expand(len(words), -1), words], 1)
            read = torch.nn.functional.pad(text[:, :-1], (1, 0), value=-1)
            best = torch.maximum(best, lm.log_prob(read, text)[:, -1])
        assert (bound[:, -1] >= best - 1e-12).all()
        assert torch.isclose(bound[:, -1], best).double().mean() > 0.5


def test_unknown_words_are_copied():
    dec = decoder()
    found = search(dec, [4]).best(0)[0]
    assert found.words == (4,)
    assert found.features[1:5] == (UNKNOWN,) * 4


def test_an_empty_source_has_an_empty_translation():
    found = search(decoder(), [], [0]).best(0)
    assert [d.words for d in found] == [()]


def test_best_of_each_group():
    group, score = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([3.0, 1, 5, 4, 2])
    assert sorted(best_of_each(group, score, 2).tolist()) == [1, 2, 3, 4]
    assert sorted(best_of_each(group, score, 1).tolist()) == [2, 4]
