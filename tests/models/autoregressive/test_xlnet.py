"""XLNet: likelihoods in all orders by enumeration, and what each stream reads."""

from itertools import permutations, product
from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import ABSENT, Tokens
from zoo.data.batch import Batch
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams

VOCABULARY, LENGTH = 3, 3
ORDERS = torch.tensor(list(permutations(range(LENGTH))))
TEXTS = torch.tensor(list(product(range(VOCABULARY), repeat=LENGTH)))


def made(length: int = LENGTH, vocabulary: int = VOCABULARY, **settings: Any) -> Any:
    """A model with random weights, so that every token matters."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_layers": 2, "n_heads": 2}
    model = zoo.create_model("xlnet", data=zoo.DataSpec(Tokens(length, vocabulary)), backbone=sizes, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.double().eval()


def by_conditionals(model: Any, text: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Nats of a text (T,) in an order: one place after another, with the tokens that are not read yet replaced."""
    total, size = torch.zeros((), dtype=torch.float64), len(text) + 1
    for turn, place in enumerate(order.tolist()):
        read = torch.full((1, size), VOCABULARY - 1)  # of the tokens to come, any others
        read[0, 0] = model.begin
        known = order[:turn] + 1
        read[0, known] = text[order[:turn]]
        rank = torch.full((1, size), size)
        rank[0, 0], rank[0, known] = -1, torch.arange(turn)
        logits = model.net.two_stream(read, rank, torch.tensor([[place + 1]]))[0, 0]
        total = total - logits.log_softmax(-1)[text[place]]
    return total


@torch.no_grad()
def test_likelihoods_of_each_order_sum_to_one_and_orders_differ() -> None:
    model = made()
    found = torch.stack([model.log_prob(TEXTS, order=order) for order in ORDERS])  # (6, 27)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(6, dtype=torch.float64), atol=1e-10, rtol=0)
    assert found.std(0)[:-1].min() > 1e-3, "orders differ, but for a text of one token"
    for order, row in zip(ORDERS, found, strict=True):
        for text, value in zip(TEXTS[::5], row[::5], strict=True):
            torch.testing.assert_close(-by_conditionals(model, text, order), value, atol=1e-10, rtol=0)


@torch.no_grad()
def test_left_to_right_is_the_order_of_log_prob() -> None:
    model = made()
    ahead = model.log_prob(TEXTS)
    torch.testing.assert_close(model.log_prob(TEXTS, order=torch.arange(LENGTH)), ahead, atol=1e-10, rtol=0)
    assert (model.log_prob(TEXTS, order=torch.tensor([2, 1, 0])) - ahead).abs().max() > 1e-3


@torch.no_grad()
def test_the_loss_is_the_mean_over_all_orders() -> None:
    model, rows = made(), 4000
    x, y = torch.tensor([[model.begin, 0, 1]]), torch.tensor([[0, 1, 1]])
    exact = torch.stack([model.ordered_nll(Batch(x, y), order).sum() for order in ORDERS])  # (6,)
    torch.manual_seed(1)
    batch = Batch(x.expand(rows, -1), y.expand(rows, -1))
    drawn = model.permuted_nll(batch, 1.0)[0].sum(1)  # (rows,)
    gap, which = (drawn[:, None] - exact).abs().min(1)
    assert gap.max() < 1e-10, "each is the likelihood of one order"
    shares = which.bincount(minlength=6) / rows
    assert (shares - 1 / 6).abs().max() < 5 * (5 / 36 / rows) ** 0.5
    error = exact.std(correction=0) / rows**0.5
    assert (drawn.mean() - exact.mean()).abs() < 4 * error
    assert (exact[0] - exact.mean()).abs() > 4 * error, "negative control: one order alone"


def test_a_query_reads_the_tokens_before_it_in_the_order_alone() -> None:
    model, size = made(6, 7), 7
    tokens = torch.randint(7, (1, size))
    rank = torch.tensor([[0, 4, 2, 6, 1, 5, 3]])
    vectors: list[torch.Tensor] = []
    model.net.embedding.register_forward_hook(lambda m, args, out: vectors.append(out.requires_grad_()) or out)
    for place in range(1, size):
        vectors.clear()
        logits = model.net.two_stream(tokens, rank, torch.tensor([[place]]))
        read = torch.autograd.grad(logits.square().sum(), vectors[0])[0][0].abs().sum(-1) > 0  # (S,)
        assert read.tolist() == (rank[0] < rank[0, place]).tolist()
        assert not read[place]
    vectors.clear()
    logits = model.net.content_logits(tokens)[:, 3]
    read = torch.autograd.grad(logits.square().sum(), vectors[0])[0][0].abs().sum(-1) > 0
    assert read.all(), "negative control: the content stream reads its own token"


@torch.no_grad()
def test_partial_prediction_reads_the_rest_of_the_text_at_once() -> None:
    model = made(8, 5, predicted_share=0.3)
    x, y = torch.randint(5, (2, 4, 8))
    x[:, 1:] = y[:, :-1]
    nats, target = model.permuted_nll(Batch(x, y), 0.3, torch.Generator().manual_seed(3))
    assert nats.shape == target.shape == (4, 3)  # 0.3 * 8, rounded up
    noise = torch.rand(4, 8, generator=torch.Generator().manual_seed(3))
    places = noise.topk(3, dim=1).indices  # the last one in the order first
    assert torch.equal(target, y.gather(1, places))
    for row, (last, middle, first) in enumerate(places.tolist()):
        for later, here in (([last, middle, first], 2), ([last, middle], 1), ([last], 0)):
            read, other = torch.cat([x[row], y[row, -1:]]), (y[row] + 1) % 5
            for place in later:  # tokens that are not read yet, this one included
                read[place + 1] = other[place]
            rank = torch.full((1, 9), 0)
            for turn, place in enumerate((first, middle, last), 1):
                rank[0, place + 1] = turn
            asked = [last, middle, first][here]
            logits = model.net.two_stream(read[None], rank, torch.tensor([[asked + 1]]))[0, 0]
            torch.testing.assert_close(-logits.log_softmax(-1)[y[row, asked]], nats[row, here], atol=1e-10, rtol=0)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model, short = made(6, 5), 4
    x, y = torch.randint(5, (2, 3, 6))
    x[:, 1:] = y[:, :-1]
    y[:, short:] = ABSENT
    other = x.clone()
    other[:, short + 1 :] = (x[:, short + 1 :] + 1) % 5  # after the last scored token
    draws = [model.permuted_nll(Batch(t, y), 1.0, torch.Generator().manual_seed(0))[0] for t in (x, other)]
    assert torch.equal(*draws)
    assert (draws[0] > 0).sum() == 3 * short
    other[:, short] = (x[:, short] + 1) % 5  # negative control: the last scored token
    assert not torch.equal(model.permuted_nll(Batch(other, y), 1.0, torch.Generator().manual_seed(0))[0], draws[0])


@torch.no_grad()
def test_a_cache_and_padding_change_nothing() -> None:
    net = made(12, 7).net
    tokens = torch.randint(7, (2, 9))
    whole = net(tokens)
    logits, state = net.prefill(tokens[:, :4])
    found = [logits, *(net.step(tokens[:, i], state) for i in range(4, 9))]
    torch.testing.assert_close(torch.stack(found, 1), whole[:, 3:], atol=1e-10, rtol=0)
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), tokens[:, :4]], 1)
    logits, state = net.prefill(padded, torch.tensor([3, 3]))
    torch.testing.assert_close(logits, whole[:, 3], atol=1e-10, rtol=0)
    torch.testing.assert_close(net.extend(tokens[:, 4:6], state), whole[:, 4:6], atol=1e-10, rtol=0)
    with pytest.raises(zoo.ZooError, match="longer than the context of 12"):
        net(torch.zeros(1, 13, dtype=torch.long))


@torch.no_grad()
def test_frequencies_of_texts_are_their_likelihoods() -> None:
    model, n = made(2), 4000
    tokens = next(sample_tokens(model.net, [[model.begin]] * n, SamplingParams(), block_size=2,
                                generator=torch.Generator().manual_seed(0)))[0]  # fmt: skip
    found = (tokens[:, 0] * VOCABULARY + tokens[:, 1]).bincount(minlength=9) / n
    texts = torch.tensor(list(product(range(VOCABULARY), repeat=2)))
    wanted = model.log_prob(texts).exp()
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / n).sqrt() + 1e-12).all()


@pytest.mark.parametrize("share", [1.0, 0.5])
@torch.no_grad()
def test_filling_has_the_conditional_distribution(share: float) -> None:
    model, n = made(predicted_share=share), 3000
    text = torch.tensor([0, model.mask_token, 1])
    filled, log_p = model.unmask(text.expand(n, -1), SamplingParams(), torch.Generator().manual_seed(0))
    assert torch.equal(filled[:, [0, 2]], text[[0, 2]].expand(n, -1))
    order, texts = torch.tensor([0, 2, 1]), torch.tensor([[0, v, 1] for v in range(VOCABULARY)])
    wanted = model.log_prob(texts, order=order).softmax(0)  # p(v | rest) = p(v, rest) / sum_v p(v, rest)
    if share == 1:
        torch.testing.assert_close(log_p.double(), wanted.log()[filled[:, 1]], atol=1e-5, rtol=0)
    else:  # known tokens read each other
        assert (log_p.double() - wanted.log()[filled[:, 1]]).abs().max() > 1e-3
        rank, place = torch.tensor([[-1, -1, 0, -1]]), torch.tensor([[2]])
        wanted = model.net.two_stream(torch.tensor([[model.begin, 0, 0, 1]]), rank, place)[0, 0].softmax(0)
    found = filled[:, 1].bincount(minlength=VOCABULARY) / n
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / n).sqrt()).all()


@pytest.mark.parametrize("bits", [8, 4])
@torch.no_grad()
def test_quantised_weights_generate(bits: int) -> None:
    """A quantised layer has steps in place of a matrix, of which the cache of keys would take the type."""
    torch.manual_seed(0)
    sizes = {"d_model": 64, "n_layers": 1, "n_heads": 2}
    model: Any = zoo.create_model("xlnet", data=zoo.DataSpec(Tokens(12, 7)), backbone=sizes).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    model.quantize(bits)
    tokens = torch.arange(8).remainder(7).view(2, 4)
    logits, state = model.net.prefill(tokens[:, :3])
    whole = model.net(tokens)
    torch.testing.assert_close(logits, whole[:, 2], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.net.step(tokens[:, 3], state), whole[:, 3], atol=1e-3, rtol=1e-3)
