"""Word alignment models against enumeration of all alignments, NLTK, and what EM promises."""

import itertools
import math

import pytest
import torch

from zoo.core.spaces import ABSENT
from zoo.nn.translation.alignment import AbsoluteAlignment, JumpAlignment, UniformAlignment
from zoo.nn.translation.word_aligner import WordAligner

V, END = 6, 5
KINDS = ("ibm1", "ibm2", "hmm")


def pairs(n=30, seed=0, longest=5):
    """Sources and targets with their ends; a target word is often its source word plus one."""
    g = torch.Generator().manual_seed(seed)
    x = torch.full((n, longest + 1), ABSENT)
    y = torch.full((n, longest + 2), ABSENT)
    for k in range(n):
        size = int(torch.randint(1, longest + 1, (), generator=g))
        words = torch.randint(0, END, (size,), generator=g)
        right = torch.where(torch.rand(size, generator=g) < 0.8, (words + 1) % END, 0)
        right = torch.cat([right, right[:1]]) if k % 3 == 0 else right
        x[k, : size + 1] = torch.cat([words, torch.tensor([END])])
        y[k, : len(right) + 1] = torch.cat([right, torch.tensor([END])])
    return x, y


def fitted(kind, iterations=3, **given):
    net = WordAligner(V, kind, **given)
    net.history = net.fit(*pairs(), iterations)
    return net


def prior_of_path(alignment, path, width, memory=True):
    """p(a) of one alignment, by the definition of each model."""
    p, last = 1.0, 0
    for j, a in enumerate(path):
        if isinstance(alignment, JumpAlignment):
            most = len(alignment.jumps) // 2
            weight = [alignment.jumps[i + 1 - last + most].item() for i in range(width)]
            p *= alignment.null if a == 0 else (1 - alignment.null) * weight[a - 1] / sum(weight)
            last = a if a or not memory else last
        elif isinstance(alignment, AbsoluteAlignment):
            p *= alignment.positions[width, j, a].item()
        else:
            p *= 1 / (width + 1)
    return p


def enumerate_alignments(alignment, emitted, memory=True):
    """Posterior (T, S + 1), log-likelihood, and the most likely alignment of one pair."""
    steps, width = emitted.shape[0], emitted.shape[1] - 1
    posterior, total, best = torch.zeros_like(emitted), 0.0, (0.0, ())
    for path in itertools.product(range(width + 1), repeat=steps):
        p = prior_of_path(alignment, path, width, memory)
        p *= math.prod(emitted[j, a].item() for j, a in enumerate(path))
        total += p
        best = max(best, (p, path))
        for j, a in enumerate(path):
            posterior[j, a] += p
    return posterior / total, math.log(total), best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [2, 3])
def test_e_step_and_best_alignment_equal_enumeration(kind, width):
    net = fitted(kind)
    g = torch.Generator().manual_seed(width)
    emitted = torch.rand(2, 3, width + 1, generator=g, dtype=torch.float64) + 0.05
    lengths = torch.full((2,), width)
    found, nats, _ = net.alignment.posterior(emitted, lengths, torch.ones(2, 3, dtype=torch.bool))
    paths = net.alignment.best(emitted, lengths)
    for n in range(2):
        posterior, total, best = enumerate_alignments(net.alignment, emitted[n])
        assert torch.allclose(found[n], posterior, atol=1e-12)
        assert nats[n].sum().item() == pytest.approx(total, abs=1e-12)
        assert tuple(paths[n].tolist()) == best[1]


def test_null_keeps_the_last_position_in_mind():
    """Control: without the memory of NULL, the enumeration gives another posterior."""
    net = fitted("hmm")
    emitted = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.05
    found, _, _ = net.alignment.posterior(emitted[None], torch.tensor([3]), torch.ones(1, 4, dtype=torch.bool))
    forgetful, _, _ = enumerate_alignments(net.alignment, emitted, memory=False)
    assert (found[0] - forgetful).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_padded_words_change_nothing(kind):
    net, (x, y) = fitted(kind), pairs(seed=4)
    together = net.log_prob(x, y)
    for n in range(8):
        s, t = int((x[n] >= 0).sum()), int((y[n] >= 0).sum())
        assert torch.allclose(together[n, :t], net.log_prob(x[n : n + 1, :s], y[n : n + 1, :t])[0], atol=1e-12)
        emitted, lengths = net.emissions(x[n : n + 1, :s], y[n : n + 1])
        padded = net.alignment.posterior(emitted, lengths, y[n : n + 1] >= 0)
        alone = net.alignment.posterior(emitted[:, :t], lengths, y[n : n + 1, :t] >= 0)
        assert torch.allclose(padded[0][:, :t], alone[0], atol=1e-12)
        assert padded[0][:, t:].eq(0).all()
        assert torch.allclose(padded[1].sum(), alone[1].sum(), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_never_falls(kind):
    history = torch.tensor(fitted(kind, 12).history)
    for part in history.view(-1, 12):
        assert (part.diff() > -1e-9 * part[0].abs()).all()
        assert part[-1] > part[0] + 1


def test_likelihood_falls_with_another_m_step(monkeypatch):
    """Control: transitions that are normalised as if no jump could leave the source do not give the maximum."""

    def wrong(self, statistics):
        most = max(s.shape[1] for s in statistics)
        counts = torch.zeros(2 * most + 1, dtype=torch.float64)
        for found in statistics:
            distance, _ = self.reach(torch.tensor([found.shape[1]]), found.shape[1])
            counts.index_add_(0, (-distance + most).flatten(), found.flatten())  # and backwards
        self.jumps = counts / counts.sum() + 1e-9

    monkeypatch.setattr(JumpAlignment, "maximise", wrong)
    assert (torch.tensor(fitted("hmm", 12).history[12:]).diff() < -1e-3).any()


def test_jumps_converge_to_the_maximum():
    """The M-step repeated with fixed expected counts reaches a zero gradient of their log-likelihood."""
    jump, g = JumpAlignment(0.2), torch.Generator().manual_seed(0)
    statistics = [torch.rand(s + 1, s, generator=g, dtype=torch.float64) for s in (1, 2, 4)]
    for _ in range(500):
        jump.maximise(statistics)
    log_c = jump.jumps.log().clone().requires_grad_()
    value = 0.0
    for found in statistics:
        width = found.shape[1]
        distance = torch.arange(width) + 1 - torch.arange(width + 1)[:, None]
        value = value + (found * log_c[distance + 4].log_softmax(1)).sum()
    value.backward()
    assert log_c.grad.abs().max() < 1e-3
    assert sum(s.sum() for s in statistics) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_targets_sum_to_one(kind):
    net, x = fitted(kind), torch.tensor([[1, 3, END]])
    ended, open_ended = 0.0, 0.0
    for size in (1, 2, 3):
        words = torch.tensor(list(itertools.product(range(V), repeat=size)))
        p = net.log_prob(x.expand(len(words), -1), words).sum(1).exp()
        body = (words[:, :-1] != END).all(1)
        ended += p[body & (words[:, -1] == END)].sum().item()
        open_ended = p[body & (words[:, -1] != END)].sum().item()
    assert ended + open_ended == pytest.approx(1, abs=1e-9)
    assert ended > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_written_word_by_word_equals_the_likelihood(kind):
    net, (x, y) = fitted(kind), pairs(6, seed=7)
    writer = net.after(x)
    logits, state = writer.prefill(torch.full((6, 1), END))
    order = torch.tensor([3, 0, 0, 5, 2, 1])
    expected = net.log_prob(x[order], y[order])
    writer.reorder(state, order)
    logits = logits[order]
    for j in range(y.shape[1]):
        token = y[order, j].clamp(min=0)
        real = y[order, j] >= 0
        assert torch.allclose(logits.logsumexp(1), torch.zeros(6).double(), atol=1e-9)
        assert torch.allclose(logits.gather(1, token[:, None])[real, 0], expected[real, j], atol=1e-9)
        logits = writer.step(token, state)


@pytest.mark.slow  # importing NLTK takes seconds
def test_ibm1_equals_nltk():
    """On targets without repeated words: NLTK adds up the repetitions of a word before it normalises."""
    translate, api = pytest.importorskip("nltk.translate.ibm1"), pytest.importorskip("nltk.translate.api")
    g = torch.Generator().manual_seed(0)
    x, y = (torch.stack([torch.randperm(19, generator=g)[:7] for _ in range(60)]) for _ in range(2))
    y[:, :3] = (x[:, :3] + 1) % 19
    rows = [(list(dict.fromkeys(b)), a) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    y = torch.tensor([[*b, *[ABSENT] * (7 - len(b))] for b, _ in rows])
    net = WordAligner(19, "ibm1")
    net.fit(x, y, 4)
    other = translate.IBMModel1([api.AlignedSent(*row) for row in rows], 4)
    for key, p in zip(net.keys.tolist(), net.probs.tolist(), strict=True):
        s, t = divmod(key, 19)
        assert other.translation_table[t][None if s == 19 else s] == pytest.approx(p, abs=1e-6)
    assert net.probs.max() > 0.2


def test_ibm1_has_one_maximum():
    """EM from a random table reaches the likelihood of EM from a uniform one."""
    net, (x, y) = WordAligner(V, "ibm1"), pairs()
    history = net.fit(x, y, 150)
    assert history[-1] > history[0] + 10
    keys, source = net.keys, net.keys // V
    probs = torch.rand(len(keys), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    for _ in range(150):
        probs = probs / torch.zeros(V + 1).double().index_add_(0, source, probs)[source]
        table = torch.zeros(V + 1, V, dtype=torch.float64)
        table[source, keys % V] = probs
        counts, total = torch.zeros_like(table), 0.0
        for a, b in zip(x, y, strict=True):
            words, targets = torch.cat([torch.tensor([V]), a[a >= 0]]), b[b >= 0]
            t = table[words][:, targets]  # (1 + S, T)
            total += (t.sum(0) / len(words)).log().sum().item()
            counts.index_put_((words[:, None], targets[None]), t / t.sum(0), accumulate=True)
        probs = counts[source, keys % V]
    assert total == pytest.approx(history[-1], abs=0.5)


def test_unseen_words_stay_possible():
    net = WordAligner(8, "hmm")
    net.fit(*pairs(), 2)
    x = torch.tensor([[6, END]])  # a source word without data
    assert net.row(torch.tensor([6, 1, 8])).sum(1).tolist() == pytest.approx([1, 1, 1])
    assert net.row(torch.tensor([6])).unique().numel() == 1
    assert torch.isfinite(net.log_prob(x, torch.tensor([[7, END]]))).all()


def test_models_of_alignment_rank_as_they_should():
    """Targets in the order of sources: positions help, and jumps help more for texts of different lengths."""
    g = torch.Generator().manual_seed(0)
    x = torch.full((300, 9), ABSENT)
    y = torch.full((300, 9), ABSENT)
    for n in range(300):
        size = int(torch.randint(3, 9, (), generator=g))
        words = torch.randint(0, 40, (size,), generator=g)
        start = int(torch.randint(0, 3, (), generator=g))  # words without translation at the beginning
        x[n, : size + 1] = torch.cat([words, torch.tensor([41])])
        right = words[start:]
        y[n, : len(right) + 1] = torch.cat([right, torch.tensor([41])])
    errors = {}
    for kind in KINDS:
        net = WordAligner(42, kind)
        net.fit(x, y, 5)
        found = net.links(x, y)
        wrong = total = 0
        for n, links in enumerate(found):
            s, t = int((x[n] >= 0).sum()) - 1, int((y[n] >= 0).sum()) - 1
            gold = {(j, j + s - t) for j in range(t)}
            wrong, total = wrong + len(links ^ gold), total + len(links) + len(gold)
        errors[kind] = wrong / total
    assert errors["hmm"] < 0.05
    assert errors["hmm"] < errors["ibm1"]
    assert errors["ibm2"] < errors["ibm1"]


def test_uniform_alignment_has_no_parameters():
    assert not list(UniformAlignment().buffers())
