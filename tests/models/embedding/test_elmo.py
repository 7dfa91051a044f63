"""ELMo: what each direction sees, likelihoods by enumeration, and the mean over layers by its closed form."""

import itertools
import math

import pytest
import torch

import zoo
from tests.models.embedding.test_bank import explained, sentences
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.models.embedding.elmo import ELMo, reverse, window_of
from zoo.nn.blocks.layer_mix import LayerMix

LETTERS = Char().fit(["abcde "])
SPEC = DataSpec(Tokens(8, LETTERS.vocab_size, dumps(LETTERS)), name="letters")


def make(spec: DataSpec = SPEC, cell: str = "lstm") -> ELMo:
    torch.manual_seed(0)
    model = ELMo(spec, backbone={"name": cell, "d_model": 12, "n_layers": 2})
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.4)
    return model.eval()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_direction_does_not_see_the_token_it_predicts_nor_those_beyond(cell: str, place: int) -> None:
    """A change of token t reaches the forward states from t on, and the backward states up to t."""
    model = make(cell=cell)
    x = torch.randint(0, 5, (3, 8), generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, place] = (other[:, place] + 1) % 5
    at = torch.arange(8)
    with torch.no_grad():
        moved = (model.layers(x) - model.layers(other)).abs().amax((0, 1))  # (T, 2 D), over layers and rows
        forward, backward = moved[:, :12].amax(1), moved[:, 12:].amax(1)
        a, b = model.both_nll(x), model.both_nll(other)
    assert torch.equal(forward > 0, at >= place)
    assert torch.equal(backward > 0, at <= place)  # also the negative control: a sees what b must not see
    before = torch.arange(7)  # index t of `both_nll`: forward predicts t + 1, and backward t
    assert torch.equal((a[0] != b[0]).any(0), before + 1 >= place)
    assert torch.equal((a[1] != b[1]).any(0), before <= place)


def test_both_likelihoods_sum_to_one_over_all_texts() -> None:
    model = make(DataSpec(Tokens(8, 3)))
    x = torch.tensor(list(itertools.product(range(3), repeat=5)))
    with torch.no_grad():
        first, second = model.log_prob(x), model.backward_log_prob(x)
        assert first.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert second.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert not torch.allclose(first, second, atol=0.1)
        # The negative control: a network that reads the predicted token too does not give a distribution.
        seen = -sum(
            torch.nn.functional.cross_entropy(model.logits(x, model.forward_net)[:, t], x[:, t], reduction="none")
            for t in range(5)
        )
        assert abs(seen.exp().sum().item() - 1) > 0.01


def test_likelihoods_are_sums_over_single_passes() -> None:
    """The backward likelihood, token by token: a fresh pass over the end and the later tokens, last one first."""
    model = make(DataSpec(Tokens(8, 3)))
    x = torch.tensor([[0, 1, 1, 2], [2, 2, 0, 1]])
    with torch.no_grad():
        for row, one, two in zip(x.tolist(), model.log_prob(x), model.backward_log_prob(x), strict=True):
            nets = (model.forward_net, row, one), (model.backward_net, row[::-1], two)
            for net, order, whole in nets:
                read = [2, *order]  # the last token of the vocabulary stands for the ends
                parts = [
                    float(model.logits(torch.tensor([read[: t + 1]]), net)[0, -1].log_softmax(0)[order[t]])
                    for t in range(len(order))
                ]
                assert float(whole) == pytest.approx(sum(parts), abs=1e-5)


def test_the_loss_is_the_mean_of_both_directions_over_the_window() -> None:
    model = make()
    window = torch.randint(0, 5, (4, 9), generator=torch.Generator().manual_seed(2))
    batch = Batch(window[:, :-1], window[:, 1:])
    assert torch.equal(window_of(batch), window)
    with torch.no_grad():
        terms = model.loss(batch)
        forward = -model.log_prob(batch.x, batch.y).sum() / 32
        turned = window.flip(1)
        backward = -sum(
            model.logits(turned[:, :-1], model.backward_net).log_softmax(2)[b, t, turned[b, t + 1]]
            for b in range(4)
            for t in range(8)
        )
    assert float(terms["forward"]) == pytest.approx(float(forward), abs=1e-5)
    assert float(terms["backward"]) == pytest.approx(float(backward) / 32, abs=1e-5)
    assert float(terms["loss"]) == pytest.approx((float(forward) + float(backward) / 32) / 2, abs=1e-5)


def test_padding_changes_nothing() -> None:
    model = make()
    x = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(3))
    y = x.roll(-1, 1)
    y[0, 4:] = -100
    window = window_of(Batch(x, y))
    assert (window[0] >= 0).sum() == 5
    assert torch.equal(reverse(reverse(window)), window)
    assert torch.equal(reverse(window)[0, :5], window[0, :5].flip(0))
    with torch.no_grad():
        whole, alone = model.both_nll(window), model.both_nll(window[:1, :5])
        for a, b in zip(whole, alone, strict=True):
            torch.testing.assert_close(a[:1, :4], b)
            assert not a[0, 4:].any()
        torch.testing.assert_close(model.features(window)[:1, :5], model.features(window[:1, :5]))
        assert not torch.allclose(model.features(x)[:1, :5], model.features(window[:1, :5])), "what follows counts"


def test_a_text_has_the_mean_of_its_tokens() -> None:
    model = make()
    texts = ["abc", "e", "dd ba"]
    found = model.embed(texts)
    assert found.shape == (3, 24)
    for text, vector in zip(texts, found, strict=True):
        ids = [LETTERS.begin, *LETTERS.encode(text), LETTERS.end]
        torch.testing.assert_close(vector, model.features(torch.tensor([ids]))[0, 1:-1].mean(0))
    assert not torch.allclose(found[0], model.embed("cba")[0], atol=1e-3), "order counts"
    with pytest.raises(zoo.ZooError, match="empty"):
        model.embed(["a", ""])


def test_the_mix_of_layers_is_its_closed_form() -> None:
    layers = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    mix = LayerMix(3)
    torch.testing.assert_close(mix(layers), layers.mean(0))
    mix.weights.data, mix.scale.data = torch.tensor([0.0, math.log(2.0), math.log(5.0)]), torch.tensor(3.0)
    torch.testing.assert_close(mix(layers), 3 * (layers[0] + 2 * layers[1] + 5 * layers[2]) / 8)
    model = make()
    x = torch.randint(0, 5, (2, 6))
    model.mix.weights.data = torch.tensor([-1e4, 0.0, -1e4])
    torch.testing.assert_close(model.features(x), model.layers(x)[1])
    with torch.no_grad():
        lowest = model.layers(x)[0]
    torch.testing.assert_close(lowest[..., :12], lowest[..., 12:])  # the shared embeddings
    torch.testing.assert_close(lowest[..., :12], model.forward_net.norm(model.forward_net.embedding(x)))


def test_a_task_learns_which_layer_it_needs() -> None:
    """The target is a layer of the network: the weight of this layer grows, for each layer."""
    model = make()
    x = torch.randint(0, 5, (16, 8), generator=torch.Generator().manual_seed(4))
    layers = model.layers(x).detach()
    for wanted in range(3):
        mix = LayerMix(3).requires_grad_()
        optimizer = torch.optim.Adam(mix.parameters(), 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            (mix(layers) - layers[wanted]).square().mean().backward()
            optimizer.step()
        assert mix.weights.argmax() == wanted
        assert mix.weights.softmax(0)[wanted] > 0.9


def test_the_two_meanings_of_bank_have_two_vectors() -> None:
    """As in test_bank.py; layer 0 is the same vector in every sentence."""
    torch.manual_seed(0)
    model = ELMo(DataSpec(Tokens(7, 16)), backbone={"name": "lstm", "d_model": 16, "n_layers": 1})
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-3)
    for step in range(100):
        x = torch.cat([sentences((1, 8), 16, 10 + 2 * step), sentences((8, 15), 16, 11 + 2 * step)])
        optimizer.zero_grad()
        model.loss(Batch(x[:, :-1], x[:, 1:]))["loss"].backward()
        optimizer.step()
    held_out = torch.cat([sentences((1, 8), 20, 1), sentences((8, 15), 20, 2)])
    with torch.no_grad():
        words, states = model.eval().layers(held_out)[:, :, 3]  # each (40, 2 D)
    meaning = torch.arange(40) < 20
    assert explained(states, meaning) > 0.6
    assert explained(states, torch.arange(40) % 2 == 0) < 0.2
    assert torch.equal(words, words[:1].expand_as(words))
