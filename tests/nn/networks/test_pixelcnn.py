"""Gated PixelCNN: what each pixel sees, all densities, and writing that computes every position once."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.nn.networks.pixelcnn import GatedLayer, GatedPixelCNN
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams


def build(shape=(1, 3, 3), levels=2, classes=0, seed=0, scale=2.0, **settings):
    torch.manual_seed(seed)
    net = GatedPixelCNN(shape, levels, classes, **{"channels": 25, "n_layers": 3, "first_kernel": 3, **settings})
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=scale / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3)
    return net.eval()


def order(shape):
    """Places (channel, row, column) one after another."""
    channels, height, width = shape
    return [(c, h, w) for h in range(height) for w in range(width) for c in range(channels)]


ZERO = torch.zeros(1, dtype=torch.long)
SHAPES = [((1, 5, 4), 2), ((3, 3, 4), 5), ((2, 4, 3), 3)]


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize(("shape", "levels"), SHAPES)
def test_a_level_moves_later_ones_alone(shape, levels, embedding):
    net, places = build(shape, levels, embedding=embedding), order(shape)
    x = torch.randint(levels, (1, *shape))
    flat = lambda logits: logits.permute(0, 3, 4, 2, 1).flatten(1, 3)  # (B, H W C, levels)  # noqa: E731
    with torch.no_grad():
        before = flat(net(x, ZERO))
        for i, place in enumerate(places):
            changed = x.clone()
            changed[(0, *place)] = (changed[(0, *place)] + 1) % levels
            after = flat(net(changed, ZERO))
            assert torch.equal(before[:, : i + 1], after[:, : i + 1]), place
            assert i + 1 == len(places) or not torch.equal(before[:, i + 1 :], after[:, i + 1 :]), place


def influence(net, shape):
    """Dependencies |d logits[later] / d input[earlier]| in the given order, (later, earlier)."""
    places = order(shape)
    image = torch.randn(1, *shape, dtype=torch.double, requires_grad=True)
    net = net.double()
    net.features = lambda level: level
    logits = net(image, ZERO)
    rows = []
    for channel, row, column in places:
        cost = (logits[0, :, channel, row, column] * torch.arange(1, net.levels + 1)).sum()
        (grad,) = torch.autograd.grad(cost, image, retain_graph=True)
        rows.append(torch.stack([grad[(0, *place)] for place in places]))
    return torch.stack(rows).abs()


@pytest.mark.parametrize(("shape", "levels"), [((1, 5, 5), 2), ((3, 3, 3), 4)])
def test_by_gradient_every_earlier_level_counts_and_no_other(shape, levels):
    moved = influence(build(shape, levels, n_layers=6), shape)
    earlier = torch.ones_like(moved).tril(-1) > 0
    assert torch.all(moved[~earlier] == 0)
    assert torch.all(moved[earlier] > 0), "a blind spot"


def test_one_stack_alone_has_the_blind_spot():
    net = build((1, 5, 5), n_layers=6)
    with torch.no_grad():
        for layer in net.layers:
            layer.link.weight.zero_()
    moved = influence(net, (1, 5, 5))
    assert moved[12, 11] > 0
    assert moved[12, 7] == 0


@pytest.mark.parametrize("classes", [0, 3])
def test_all_pictures_sum_to_one(classes):
    net = build(classes=classes).double()
    x = torch.tensor(list(itertools.product([0, 1], repeat=9))).view(-1, 1, 3, 3)
    sums, each = [], []
    for label in range(max(classes, 1)):
        with torch.no_grad():
            cost = F.cross_entropy(net(x, torch.full((512,), label)), x, reduction="none").flatten(1).sum(1)
        each.append(-cost)
        sums.append((-cost).exp().sum().item())
    assert sums == pytest.approx([1] * len(sums), abs=1e-9)
    assert each[0].std() > 0.5
    assert classes == 0 or not torch.allclose(each[0], each[1])


class Naive:
    """The same steps, each of them by the whole image."""

    def __init__(self, net):
        self.net, self.context = net, net.context

    def prefill(self, tokens, padding=None):
        state = {"label": tokens[:, 0] - self.net.levels, "x": torch.zeros(len(tokens), *self.net.shape).long(), "i": 0}
        return self.logits(state), state

    def step(self, tokens, state):
        state["x"][(slice(None), *order(self.net.shape)[state["i"]])] = tokens
        state["i"] += 1
        return self.logits(state)

    def logits(self, state):
        place = order(self.net.shape)[state["i"]]
        return self.net(state["x"], state["label"])[(slice(None), slice(None), *place)]


def drawn(steps, n, labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = (labels[:, None] + steps.net.levels if isinstance(steps, Naive) else labels[:, None] + steps.levels).tolist()
    return next(sample_tokens(steps, rows, SamplingParams(), generator=generator, block_size=n))


@pytest.fixture
def positions(monkeypatch):
    """Counts positions (row, column) of an image that any layer computes."""
    counts = {"vertical_step": 0, "horizontal_step": 0}
    for name in counts:
        method = getattr(GatedLayer, name)

        def counted(self, *args, name=name, method=method):
            out = method(self, *args)
            counts[name] += (out if name == "horizontal_step" else out[0])[0, 0].numel()
            return out

        monkeypatch.setattr(GatedLayer, name, counted)
    return counts


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize(("shape", "levels"), [*SHAPES, ((1, 7, 9), 2)])
def test_writing_equals_the_whole_image_each_time_and_computes_far_less(shape, levels, embedding, positions):
    net = build(shape, levels, classes=2, kernel=5, embedding=embedding)
    dim, size, layers = math.prod(shape), shape[1] * shape[2], len(net.layers)
    labels = torch.tensor([0, 1, 1, 0, 1])
    fast, fast_nats = drawn(net, dim, labels)
    assert positions == {"vertical_step": layers * size, "horizontal_step": layers * dim}
    positions.update(vertical_step=0, horizontal_step=0)
    slow, slow_nats = drawn(Naive(net), dim, labels)
    assert positions == {"vertical_step": layers * size * dim, "horizontal_step": layers * size * dim}
    assert torch.equal(fast, slow)
    torch.testing.assert_close(fast_nats, slow_nats, rtol=0, atol=1e-4)
    assert len(torch.unique(fast, dim=0)) > 1
    x = fast.view(5, shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        cost = F.cross_entropy(net(x, labels), x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(-cost, fast_nats.sum(1), rtol=0, atol=1e-3)


def test_pictures_are_drawn_from_the_density():
    net, n = build(scale=0.8), 20_000
    x = torch.tensor(list(itertools.product([0, 1], repeat=9))).view(-1, 1, 3, 3)
    with torch.no_grad():
        p = (-F.cross_entropy(net(x, torch.zeros(512).long()), x, reduction="none").flatten(1).sum(1)).exp()
    tokens = drawn(net, 9, torch.zeros(n).long())[0]
    counts = torch.bincount(tokens @ (2 ** torch.arange(8, -1, -1)), minlength=512)
    likely = n * p > 5
    rest, expected = counts[~likely].sum(), n * p[~likely].sum()
    chi2 = ((counts - n * p)[likely].square() / (n * p[likely])).sum() + (rest - expected).square() / expected
    freedom = int(likely.sum())
    assert freedom > 50
    assert chi2 < freedom + 3.5 * math.sqrt(2 * freedom)


@torch.no_grad()
def test_a_beginning_is_continued_and_rows_change_places():
    net = build((3, 3, 4), 5)
    tokens = torch.randint(5, (3, 36))
    tokens[:, 0] = 5
    logits, state = net.prefill(tokens[:, :20])
    x = torch.cat([tokens[:, 1:], tokens.new_zeros(3, 1)], 1).view(3, 3, 4, 3).permute(0, 3, 1, 2)
    full = net(x, torch.zeros(3).long()).permute(0, 3, 4, 2, 1).flatten(1, 3)
    torch.testing.assert_close(logits, full[:, 19], rtol=0, atol=1e-5)
    rows = torch.tensor([2, 0, 0, 1])
    net.reorder(state, rows)
    for i in range(20, 30):
        torch.testing.assert_close(net.step(tokens[rows, i], state), full[rows, i], rtol=0, atol=1e-5)


def test_embeddings_have_no_order_of_levels_and_belong_to_a_channel():
    """Levels renamed, with the rows of their embeddings and logits, have equal probabilities; values do not."""
    x = torch.randint(5, (4, 2, 3, 3))
    for embedding in (0, 3):
        net = build((2, 3, 3), 5, embedding=embedding)
        names = torch.randperm(5, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            before = -F.cross_entropy(net(x, ZERO.expand(4)), x, reduction="none")
            read = [net.embedding.weight] if embedding else []
            for table in [net.head[3].conv.weight, net.head[3].conv.bias, *read]:
                rows = table.view(2, 5, *table.shape[1:])
                rows[:, names] = rows.clone()
            after = -F.cross_entropy(net(names[x], ZERO.expand(4)), names[x], reduction="none")
        assert torch.allclose(before, after, atol=1e-5) == bool(embedding)
    with torch.no_grad():
        one, other = net.features(torch.zeros(1, 2, 1, 1).long()).view(2, 3)
    assert not torch.allclose(one, other)


def test_what_cannot_be_built_or_read_is_refused():
    with pytest.raises(ZooError, match=r"kernel=4: must be odd\. Choose 3 or 5"):
        build(kernel=4)
    with pytest.raises(ZooError, match="channels=2: fewer"):
        build((3, 3, 3), channels=2)
    with pytest.raises(ZooError, match="different numbers of known pixels"):
        build().prefill(torch.tensor([[0, 2]]), torch.tensor([1]))


def test_weights_that_look_ahead_never_move():
    net = build((3, 3, 3), 4)
    x = torch.randint(4, (2, 3, 3, 3))
    F.cross_entropy(net(x, torch.zeros(2).long()), x).backward()
    for layer in net.layers:
        for part in (layer.horizontal, layer.out):
            assert torch.all(part.conv.weight.grad[part.mask.expand_as(part.conv.weight) == 0] == 0)
            assert part.conv.weight.grad[part.mask.expand_as(part.conv.weight) == 1].abs().min() > 0
