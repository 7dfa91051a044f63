"""N-grams against a slow dictionary, enumeration and published numbers."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import pytorch_lightning as L
import torch

import zoo
from zoo.core.spaces import Image, Tokens
from zoo.data.batch import Batch
from zoo.data.text.plain import Text
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.baselines.base import gather
from zoo.models.baselines.ngram import NGram
from zoo.nn.kernels.cpu_ngram import next_probabilities
from zoo.nn.networks.kneser_ney import KneserNey

V, END = 5, 4


def stream(n=400, seed=0):
    """Random text in which a token depends on the one before, so that counts differ."""
    generator, tokens = torch.Generator().manual_seed(seed), [END]
    for u in torch.rand(n, generator=generator).tolist():
        tokens.append(min(int(u * V * (1 if tokens[-1] % 2 else 0.6)), V - 1))
    return torch.tensor(tokens)


def fitted(order, tokens=None, starts=None, vocabulary=V):
    net = KneserNey(vocabulary, order, 64, END)
    tokens = stream() if tokens is None else tokens
    starts = torch.arange(len(tokens)) == 0 if starts is None else starts
    net.fit(tokens, starts)
    return net


class Slow:
    """The same by the book: dictionaries of tuples, one n-gram after another."""

    def __init__(self, texts, order):
        self.order, self.counts, self.discount = order, {}, {}
        seen = {
            k: Counter(tuple(t[i : i + k]) for t in texts for i in range(len(t) - k + 1)) for k in range(1, order + 1)
        }
        for k in range(1, order + 1):
            left = defaultdict(set)
            for gram in seen.get(k + 1, ()):
                left[gram[1:]].add(gram[0])
            plain = {g: (c if k == order or g[0] == END else max(len(left[g]), 1)) for g, c in seen[k].items()}
            self.counts[k] = plain
            n = [sum(c == i for c in plain.values()) for i in range(5)]
            y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
            d = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)] if all(n[1:]) else [y] * 3
            self.discount[k] = [0, *(min(max(x, 0.01), i - 0.01) for i, x in enumerate(d, 1))]

    def p(self, context, token):
        context = tuple(context)[-(self.order - 1) :] if self.order > 1 else ()
        k = len(context) + 1
        shorter = self.p(context[1:], token) if context else 1 / V
        after = {w: c for w in range(V) if (c := self.counts[k].get((*context, w)))}
        if not after:
            return shorter
        freed = sum(self.discount[k][min(c, 3)] for c in after.values())
        c = after.get(token, 0)
        return (c - self.discount[k][min(c, 3)] + freed * shorter) / sum(after.values())


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_agrees_with_a_slow_dictionary(order):
    tokens, cut = stream(300), 170  # two texts: no n-gram may reach across the second start
    starts = torch.zeros(len(tokens), dtype=torch.bool)
    starts[[0, cut]] = True
    net, slow = fitted(order, tokens, starts), Slow([tokens[:cut].tolist(), tokens[cut:].tolist()], order)
    held_out = stream(60, seed=1)
    got = net.log_prob(held_out[None, :-1], held_out[None, 1:])[0]
    want = [math.log(slow.p(held_out[: i + 1].tolist(), held_out[i + 1].item())) for i in range(60)]
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    joined = fitted(order, tokens)
    assert order == 1 or not torch.allclose(got, joined.log_prob(held_out[None, :-1], held_out[None, 1:])[0], atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 4, 7])
def test_probabilities_of_every_context_sum_to_one(order):
    net = fitted(order, stream(150), vocabulary=V + 2)  # two tokens were never seen
    contexts = torch.cartesian_prod(*[torch.arange(V + 2)] * 4)  # all, most of them never seen
    p = net.logits(contexts).exp()
    assert p.min() > 0
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)).double(), rtol=0, atol=1e-12)
    token = torch.randint(V + 2, (len(contexts), 1), generator=torch.Generator().manual_seed(0))
    each = net.log_prob(contexts, torch.cat([contexts[:, 1:], token], 1))[:, -1]  # the other way to the same number
    torch.testing.assert_close(p.log().gather(1, token)[:, 0], each, rtol=0, atol=1e-12)


def test_order_one_is_the_smoothed_frequencies():
    tokens = stream()
    net, counts = fitted(1, tokens), torch.bincount(tokens, minlength=V)
    d = net.tables[0].discounts[3].double()  # all counts are three or more
    assert counts.min() >= 3
    want = (counts - d + V * d / V) / len(tokens)
    torch.testing.assert_close(net.logits(tokens[None]).exp()[0], want)


def test_nothing_seen_is_uniform():
    net = KneserNey(V, 3, 64, END)
    assert net.logits(torch.tensor([[1, 2]])).exp().tolist()[0] == pytest.approx([1 / V] * V)
    short = fitted(6, torch.tensor([END, 1, 2]))  # fewer tokens than the order
    assert short.logits(torch.tensor([[END, 1]])).exp().sum().item() == pytest.approx(1)
    assert short.logits(torch.tensor([[END, 1]])).argmax() == 2


@pytest.mark.parametrize("order", [1, 2, 5])
def test_a_whole_pass_gives_what_scoring_gives(order):
    net, row = fitted(order), stream(30, seed=1)[None]
    each = net(row[:, :-1]).gather(2, row[:, 1:, None])[..., 0]
    torch.testing.assert_close(each, net.log_prob(row[:, :-1], row[:, 1:]), rtol=0, atol=1e-12)


def test_reading_on_equals_reading_at_once():
    net = fitted(4)
    rows = stream(40)[:40].view(2, 20)
    logits, state = net.prefill(rows[:, :1])
    for t in range(1, 20):
        logits = net.step(rows[:, t], state)
        torch.testing.assert_close(logits, net.prefill(rows[:, : t + 1])[0])
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), rows[:, :2]], 1)
    torch.testing.assert_close(net.prefill(padded, torch.tensor([3, 3]))[0], net.prefill(rows[:, :2])[0])
    net.reorder(state, torch.tensor([1, 1]))
    torch.testing.assert_close(net.logits(state["last"])[0], logits[1])


def notes(tmp_path, **settings):
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    data = Text(path=str(tmp_path), context=24, batch_size=4, tokenizer="char", **settings)
    data.setup()
    return data


def trained(data, **settings):
    model = NGram(data.spec, **settings)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(max_steps=1, enable_checkpointing=False, **quiet).fit(model, data)
    return model.eval()


def test_a_training_counts_every_token_once(tmp_path):
    data = notes(tmp_path)
    model = trained(data, order=2)
    text = data.train[1].long()
    pairs = torch.unique(torch.stack([text[:-1], text[1:]], 1), dim=0, return_counts=True)[1]
    assert model.net.tables[1].counts.sum() == len(text) - 1
    assert sorted(model.net.tables[1].counts.tolist()) == sorted(pairs.tolist())


def test_it_writes_loads_and_scores_like_any_language_model(tmp_path):
    data = notes(tmp_path)
    model = trained(data, order=6)
    model.trainer.save_checkpoint(tmp_path / "n.ckpt")
    again = zoo.load(tmp_path / "n.ckpt")
    for prompt in ("the quick", ""):
        one, two = (m.generate([prompt], max_new_tokens=20, seed=0)[0] for m in (model, again))
        assert one == two
        assert "".join(again.stream(prompt, max_new_tokens=20, seed=0)) == one.text
    assert model.generate(["the quick brown"], max_new_tokens=8, temperature=0)[0].text == " fox jum"
    assert model.generate(["the quick brown"], max_new_tokens=8, beams=3)[0].text == " fox jum"
    x, y = next(iter(data.val_dataloader()))
    assert torch.equal(again.log_prob(x, y), model.log_prob(x, y))
    assert model.loss(Batch(x, y))["loss"].item() == pytest.approx(-model.log_prob(x, y).sum().item() / (y >= 0).sum())
    row = x[:1, :6]  # the steps of drawing give the probability that scoring gives
    begin = torch.cat([torch.tensor([[model.end]]), row[:, :-1]], 1)
    logits = torch.stack([model.net.prefill(begin[:, : t + 1])[0].log_softmax(-1) for t in range(6)], 1)
    assert model.log_prob(row).item() == pytest.approx(logits.gather(2, row[..., None]).sum().item(), abs=1e-4)
    metrics = model.trainer.validate(model, data, verbose=False)[0]
    assert metrics["val/bits_per_byte"] < 0.3  # a text that repeats itself


def test_tiny_shakespeare(zoo_data):
    """Below the 1.669 nats per character of a Witten-Bell 5-gram, and not below what transformers need."""
    data = zoo.create_data("shakespeare", path=zoo_data)
    data.setup()
    model = NGram(data.spec, order=5)
    model.fit(gather(data.fitting_dataloader(), model.statistics, model.fit_on))
    nats = [model.token_nll(batch) for batch in data.val_dataloader()]
    mean = sum(n.sum().item() for n, _ in nats) / sum((y >= 0).sum().item() for _, y in nats)
    assert mean == pytest.approx(1.573, abs=0.002)


def test_other_data_is_refused():
    with pytest.raises(zoo.ZooError, match="learns tokens data"):
        NGram(zoo.DataSpec(Image(1, 8, 8)))
    letters = Char().fit(["abc"])
    spec = zoo.DataSpec(Tokens(8, letters.vocab_size, dumps(letters)))
    with pytest.raises(zoo.ZooError, match=r"condition: .* is unconditional"):
        NGram(spec).sample(2, condition=torch.zeros(2))


def test_guesses_are_the_likeliest_tokens_given_those_before() -> None:
    model = zoo.create_model("ngram", data=zoo.DataSpec(Tokens(12, 6)), order=3)
    tokens = torch.randint(0, 6, (40, 13), generator=torch.Generator().manual_seed(0))
    model.fit(tokens.int())
    x, y = tokens[:, :-1], tokens[:, 1:].clone()
    y[3, 5:] = -100
    want = [
        bool(model.net.prefill(x[b : b + 1, : t + 1])[0].argmax() == y[b, t])
        for b in range(40)
        for t in range(12)
        if y[b, t] >= 0
    ]
    assert model.token_hits(Batch(x, y)).tolist() == want
    assert 0.2 < sum(want) / len(want) < 1


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_numpy_kernel_equals_the_reference(order):
    """Every history of three tokens, with padding; and an unfitted model."""
    net = fitted(order)
    for history in itertools.product(range(-1, V), repeat=3):
        rows = torch.tensor([history])
        want = net.reference_logits(rows)
        torch.testing.assert_close(net.logits(rows), want, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(net.logits(rows).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    histories = torch.tensor(list(itertools.product(range(V), repeat=3)))
    found = [next_probabilities(net.fitted_tables[:-1], row, V) for row in histories.tolist()]
    shorter = torch.from_numpy(np.stack(found)).log()
    assert not torch.allclose(shorter, net.reference_logits(histories)), "the control: a table is missing"
    unfitted = KneserNey(V, order, 64, END)
    assert torch.equal(unfitted.logits(histories), unfitted.reference_logits(histories))


@pytest.mark.parametrize("order", [1, 3])
def test_several_tokens_are_read_and_removed(order):
    net, tokens = fitted(order), stream(30, seed=3)[None]
    state = net.new_cache(1)
    parts = [net.extend(part, state) for part in tokens.split([1, 5, 1, tokens.shape[1] - 7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), net(tokens), rtol=1e-12, atol=1e-12)
    net.rewind(state, 4)
    again = net.extend(tokens[:, -4:], state)
    torch.testing.assert_close(again, parts[-1][:, -4:], rtol=1e-12, atol=1e-12)
    if order > 1:
        assert not torch.allclose(net.extend(tokens[:, -4:], net.new_cache(1))[:, 0], again[:, 0]), "the control"
