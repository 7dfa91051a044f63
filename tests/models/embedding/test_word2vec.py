"""Word2vec against brute force, closed forms and published properties."""

import math

import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word_level import WordLevel
from zoo.models.embedding import windows
from zoo.models.embedding.windows import context_windows
from zoo.models.embedding.word2vec import Word2Vec
from zoo.nn.blocks.subwords import fnv1a, letter_ngrams, subword_rows
from zoo.nn.losses.logistic import huffman_codes, logistic_gradients, logistic_loss

V, T = 12, 40


def model(**given) -> Word2Vec:
    """A small one in double precision with random vectors, whose words have been counted."""
    torch.manual_seed(0)
    made = Word2Vec(zoo.DataSpec(Tokens(T, V)), **{"dim": 5, "subsample": 0.0} | given).double()
    torch.nn.init.normal_(made.output)
    torch.nn.init.normal_(made.input)
    made.counts.copy_(torch.arange(1, V + 1) ** 2)
    made.on_counted()
    return made


def tokens(rows: int = 3) -> Batch:
    x = torch.randint(V, (rows, T), generator=make_generator(5))
    return Batch(x, x)


# -- windows ---------------------------------------------------------------------------------------------------------


def brute_force(x, keep, ends, reach) -> list[tuple[int, int]]:
    """Pairs (center, context) as a program with loops finds them."""
    found = []
    for row in range(len(x)):
        texts = [[]]
        for t in range(x.shape[1]):
            if ends[row, t]:
                texts.append([])
            elif keep[row, t]:
                texts[-1].append((int(x[row, t]), int(reach[row, t])))
        for text in texts:
            for i, (center, far) in enumerate(text):
                found += [(center, text[j][0]) for j in range(max(i - far, 0), min(i + far + 1, len(text))) if j != i]
    return sorted(found)


@pytest.mark.parametrize("chunk", [32, 7])
def test_windows_are_those_of_loops(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CHUNK", chunk)
    generator = make_generator(chunk)
    x = torch.randint(V, (4, T), generator=generator)
    ends = torch.rand(4, T, generator=generator) < 0.1
    keep = (torch.rand(4, T, generator=generator) < 0.7) & ~ends
    reach = torch.randint(1, 4, (4, T), generator=generator)
    w = context_windows(x, keep, ends, reach, 3)
    at = w.pairs.nonzero().T
    pairs = sorted(zip(w.centers[at[0], at[1]].tolist(), w.contexts[at[0], at[2]].tolist(), strict=True))
    assert pairs == brute_force(x, keep, ends, reach)
    assert pairs != brute_force(x, keep, torch.zeros_like(ends), reach), "ends of texts matter"
    assert torch.equal(w.pairs.sum(2), w.n)
    assert set(w.distance[(w.pairs > 0).any(0)].tolist()) == {1.0, 2.0, 3.0}


# -- objectives --------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_autograd() -> None:
    generator = make_generator(1)
    u, v = (torch.randn(2, n, 4, generator=generator, dtype=torch.float64, requires_grad=True) for n in (3, 6))
    labels = (torch.rand(1, 1, 6, generator=generator) < 0.5).double()
    weights = torch.rand(2, 3, 6, generator=generator, dtype=torch.float64)
    loss = logistic_loss(u, v, labels, weights)
    by_hand = -sum(
        weights[m, c, q] * torch.sigmoid((2 * labels[0, 0, q] - 1) * (u[m, c] @ v[m, q])).log()
        for m in range(2)
        for c in range(3)
        for q in range(6)
    )
    torch.testing.assert_close(loss, by_hand)
    found = logistic_gradients(u.detach(), v.detach(), labels, weights)
    for one, other in zip(found, torch.autograd.grad(loss, (u, v)), strict=True):
        torch.testing.assert_close(one, other)
    flipped = logistic_gradients(u.detach(), v.detach(), 1 - labels, weights)
    assert not torch.allclose(flipped[0], found[0])


@pytest.mark.parametrize("objective", ["negative_sampling", "hierarchical_softmax"])
@pytest.mark.parametrize("architecture", ["skipgram", "cbow"])
@pytest.mark.parametrize("max_ngram", [0, 3])
def test_an_update_is_a_step_down_the_gradient(architecture: str, objective: str, max_ngram: int) -> None:
    """The update in place equals lr times the gradient of `loss`, for every kind."""
    torch.manual_seed(0)
    text = WordLevel(min_count=1).fit(["one two three four five six seven eight nine ten"])
    spec = zoo.DataSpec(Tokens(T, V, dumps(text)))
    made = Word2Vec(
        spec, dim=5, subsample=0, architecture=architecture, objective=objective, max_ngram=max_ngram, buckets=50
    ).double()
    torch.nn.init.normal_(made.output)
    batch = tokens()
    loss = made.loss(batch, make_generator(2))["loss"]
    wanted = torch.autograd.grad(loss, (made.input, made.output))
    before = made.input.detach().clone(), made.output.detach().clone()
    generator = make_generator(2)
    w = made.windows(batch, generator)
    number = float(w.n.sum() if architecture == "skipgram" else (w.n > 0).sum())
    with torch.no_grad():
        made.update(w, made.noise(w, generator), 0.1)
    for old, new, gradient in zip(before, (made.input, made.output), wanted, strict=True):
        torch.testing.assert_close((old - new.detach()) / 0.1, gradient * number)
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["skipgram", "cbow"])
def test_the_loss_has_the_published_expectation(architecture: str) -> None:
    """Averaged over noise, it is equation 4 of the paper with all words of the vocabulary in the expectation."""
    made = model(architecture=architecture, window=1, negatives=3)
    batch = Batch(torch.tensor([[3, 7, 9]]), torch.tensor([[3, 7, 9]]))
    u, v, noise = made.input.detach(), made.output.detach(), made.noise_prob()
    if architecture == "skipgram":
        cases = [(u[3], 7), (u[7], 3), (u[7], 9), (u[9], 7)]
    else:
        cases = [(u[7], 3), ((u[3] + u[9]) / 2, 7), (u[7], 9)]
    log = torch.nn.functional.logsigmoid
    exact = -sum(log(x @ v[y]) + 3 * (noise * log(-(v @ x))).sum() for x, y in cases) / len(cases)
    with torch.no_grad():
        draws = torch.stack([made.loss(batch)["loss"] for _ in range(1000)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean() - exact)) < 4 * error
    uniform = -sum(log(x @ v[y]) + 3 * log(-(v @ x)).mean() for x, y in cases) / len(cases)
    assert abs(float(draws.mean() - uniform)) > 4 * error, "noise is not uniform"


def test_hierarchical_softmax_is_a_distribution() -> None:
    made = model(objective="hierarchical_softmax")
    nodes, turns = made.nodes, made.turns
    score = made.output.detach()[nodes.clamp(min=0)] @ made.input[3].detach()  # (V, L)
    turned = torch.where(turns > 0, -score, score)
    log_prob = (torch.nn.functional.logsigmoid(turned) * (nodes >= 0)).sum(1)  # (V,)
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)
    equal = (torch.nn.functional.logsigmoid(score) * (nodes >= 0)).sum(1)
    assert float(equal.exp().sum()) != pytest.approx(1, abs=1e-3), "both turns must differ"
    made.window = 1
    x = torch.tensor([[3, 7]])
    loss = made.loss(Batch(x, x))["loss"].detach()
    other = made.output.detach()[nodes[3].clamp(min=0)] @ made.input[7].detach()
    back = (torch.nn.functional.logsigmoid(torch.where(turns[3] > 0, -other, other)) * (nodes[3] >= 0)).sum()
    assert float(loss) == pytest.approx(-float(log_prob[7] + back) / 2)


def test_huffman_codes_are_optimal() -> None:
    """Kraft's sum is one, and the mean length is that of the worked example of equal merges."""
    nodes, turns = huffman_codes([5, 9, 12, 13, 16, 45])
    lengths = (nodes >= 0).sum(1)
    assert float((0.5 ** lengths.double()).sum()) == 1
    assert int((lengths * torch.tensor([5, 9, 12, 13, 16, 45])).sum()) == 224  # Cormen et al., 16.3
    codes = {tuple(t[:n].tolist()) for t, n in zip(turns, lengths.tolist(), strict=True)}
    assert len(codes) == 6


def test_the_optimum_is_shifted_pointwise_mutual_information() -> None:
    """With vectors as long as the vocabulary, u.v = PMI - log k for every pair (Levy & Goldberg 2014, equation 11)."""
    size, k = 4, 2
    generator = make_generator(0)
    joint = torch.rand(size, size, generator=generator, dtype=torch.float64) + 0.1
    joint = (joint + joint.T) / (joint + joint.T).sum()
    share = joint.sum(1)
    u, v = (torch.randn(1, size, size, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    both = torch.cat([joint, k * share[:, None] * share[None]], 1)[None]  # expected number of each pair (1, V, 2 V)
    labels = torch.tensor([1.0] * size + [0.0] * size)[None, None]
    optimizer = torch.optim.LBFGS([u, v], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = logistic_loss(u, torch.cat([v, v], 1), labels, both)
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = (u @ v.mT).detach()[0]
    pmi = (joint / (share[:, None] * share[None])).log()
    torch.testing.assert_close(scores, pmi - math.log(k), atol=1e-4, rtol=0)
    assert not torch.allclose(scores, pmi, atol=0.1), "the shift is there"


def test_training_finds_shifted_pointwise_mutual_information() -> None:
    """The same through batches, windows, sampled noise and updates in place, on a text of a Markov chain."""
    size, k = 3, 2
    torch.manual_seed(0)
    chain = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [0.4, 0.5, 0.1]])
    text = [0]
    for uniform in torch.rand(20_000).tolist():
        text.append(int((chain[text[-1]].cumsum(0) < uniform).sum().clamp(max=2)))
    x = torch.tensor(text[:20_000]).view(-1, 200)
    made = Word2Vec(zoo.DataSpec(Tokens(200, size)), dim=3, window=1, negatives=k, noise_power=1.0, subsample=0)
    made.counts.copy_(torch.bincount(x.flatten(), minlength=size))
    torch.nn.init.normal_(made.output)
    joint = torch.zeros(size, size, dtype=torch.float64)
    joint.index_put_((x[:, :-1].flatten(), x[:, 1:].flatten()), torch.ones(1, dtype=torch.float64), accumulate=True)
    joint = joint + joint.T
    share = made.counts / made.counts.sum()
    wanted = (joint / joint.sum() / (joint.sum(1) / joint.sum())[:, None] / share[None]).log() - math.log(k)
    mean = torch.zeros(size, size)
    with torch.no_grad():
        for step in range(60):
            w = made.windows(Batch(x, x))
            noise = made.noise(w)
            for first in range(0, len(noise), 16):
                part = slice(first, first + 16)
                made.update(w.select(part), noise[part], 0.002)
            if step >= 30:
                mean += (made.input @ made.output.T) / 30
    error = (mean - wanted).abs()
    assert float(error.max()) < 0.2, "gradient descent with a constant step fluctuates around the optimum"
    assert float((mean - wanted - math.log(k)).abs().min()) > 0.4, "without the shift every pair is wrong"


# -- distributions of words ------------------------------------------------------------------------------------------


def test_frequent_words_are_removed_by_the_formula() -> None:
    made = model(subsample=0.02)
    share = (made.counts / made.counts.sum()).tolist()
    wanted = [min(1, math.sqrt(0.02 / f) + 0.02 / f) for f in share]
    assert made.keep_prob().tolist() == pytest.approx(wanted)
    x = torch.randint(V, (500, T), generator=make_generator(3))
    w = made.windows(Batch(x, x))
    kept = torch.bincount(w.centers[w.n > 0], minlength=V) / torch.bincount(x.flatten(), minlength=V)
    for rate, p, n in zip(kept.tolist(), wanted, torch.bincount(x.flatten(), minlength=V).tolist(), strict=True):
        assert abs(rate - p) < 4 * math.sqrt(p * (1 - p) / n) + 1e-3
    assert min(wanted) < 0.7 < max(wanted)


def test_noise_follows_the_power_of_the_frequencies() -> None:
    made = model()
    w = made.windows(tokens(400))
    drawn = torch.bincount(made.noise(w).flatten(), minlength=V) / (16 * len(w.centers))
    powered = (torch.arange(1, V + 1.0) ** 2) ** 0.75
    expected = powered / powered.sum()
    assert float((drawn - expected).abs().max()) < 4 * math.sqrt(0.25 / (16 * len(w.centers)))
    counted = (torch.arange(1, V + 1.0) ** 2) / (torch.arange(1, V + 1.0) ** 2).sum()
    assert float((drawn - counted).abs().max()) > 0.03


def test_the_training_text_is_counted() -> None:
    """Windows of a real training are read once, without unknown words and ends."""
    text = WordLevel(min_count=1).fit(["a b b c c c"])
    stream = [*text.encode("c c b unheard b c"), text.end, *text.encode("a")]
    x = torch.tensor([stream[:4], stream[4:8]])

    class Data(zoo.DataModule):
        spec = zoo.DataSpec(Tokens(4, text.vocab_size, dumps(text)))

        def load(self) -> None:
            self.train = self.val = self.test = x, x

    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    made = Word2Vec(Data.spec, objective="hierarchical_softmax")
    trainer.fit(made, datamodule=Data(1, 0))
    assert [made.counts[text.ids[word]].item() for word in "abc"] == [1, 2, 3]
    assert int(made.counts.sum()) == 6
    assert int((made.nodes[text.ids["c"]] >= 0).sum()) < int((made.nodes[text.ids["a"]] >= 0).sum())


def test_windows_are_drawn_evenly() -> None:
    made = model(window=4)
    distance = made.windows(tokens(600))
    far = (distance.pairs * distance.distance[None] == torch.arange(1, 5)[:, None, None, None]).sum((1, 2, 3))
    rates = far / far[0]  # a context at distance d is in the window of d..4: shares 1, 3/4, 1/2, 1/4
    assert rates.tolist() == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.05)


# -- n-grams of letters ----------------------------------------------------------------------------------------------


def test_hashes_are_fnv1a() -> None:
    """Test vectors of the hash's authors, and the sign extension of fastText for other letters."""
    assert [fnv1a(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]
    plain = 2166136261
    for byte in "é".encode():
        plain = (plain ^ byte) * 16777619 & 0xFFFFFFFF
    assert fnv1a("é") != plain


def test_ngrams_of_a_word() -> None:
    assert letter_ngrams("as", 3, 6) == ["<as", "as>"]
    assert set(letter_ngrams("where", 3, 3)) == {"<wh", "whe", "her", "ere", "re>"}  # the example of the paper
    assert subword_rows(["where", ""], 3, 3, 1000).tolist()[1] == [-1] * 5


def test_an_unseen_word_is_near_its_relatives() -> None:
    text = WordLevel(min_count=1).fit(["walking walked talking talked house"])
    torch.manual_seed(0)
    made = Word2Vec(zoo.DataSpec(Tokens(T, text.vocab_size, dumps(text))), dim=2000, max_ngram=4, buckets=5000)
    torch.nn.init.normal_(made.input)
    assert text.encode("walker") == [text.unknown]
    walker, walking, house = torch.nn.functional.normalize(made.embed(["walker", "walking", "house"]), dim=1)
    one, other = (set(made.grams([word])[0].tolist()) for word in ("walker", "walking"))
    assert len(one & other) >= 5, "<wa wal alk <wal walk"
    expected = len(one & other) / math.sqrt(len(one) * (len(other) + 1))  # independent rows; a known word has its own
    assert float(walker @ walking) == pytest.approx(expected, abs=4 / math.sqrt(2000))
    assert float(walker @ house) == pytest.approx(0, abs=4 / math.sqrt(2000))
    alone = Word2Vec(made.spec, dim=5)
    with pytest.raises(zoo.ZooError, match="no word of it"):
        alone.embed("walker")
    torch.testing.assert_close(alone.embed("walked house"), alone.embed(["walked", "house"]).mean(0, keepdim=True))


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    made.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    made.on_fit_start()
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    with pytest.raises(zoo.ZooError, match=r"trainer.devices=2.*Set trainer.devices=1"):
        made.on_fit_start()


def test_settings_that_do_not_fit_are_refused() -> None:
    for given in ({"min_lr": 0.1, "lr": 0.01}, {"min_ngram": 4, "max_ngram": 3}):
        with pytest.raises(zoo.ZooError, match=r"Give at (least|most)"):
            model(**given)
