"""WaveNet: causal, with the receptive field of its dilations; with a cache it computes the same."""

import pytest
import torch

from zoo.nn.networks.wavenet import WaveNet
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams


def net(n_in=9, n_out=7, n_layers=5, cycle=3):
    torch.manual_seed(0)
    found = WaveNet(n_in, n_out, 16, d_model=8, n_layers=n_layers, cycle=cycle).double().eval()
    torch.nn.init.normal_(found.head.weight)
    return found


def tokens(n=3, length=24, first=None):
    drawn = torch.randint(7, (n, length), generator=torch.Generator().manual_seed(1))
    if first is not None:
        drawn[:, 0] = first
    return drawn


@pytest.mark.parametrize(("n_layers", "cycle", "field"), [(3, 3, 8), (5, 3, 11), (4, 9, 16)])
def test_a_prediction_depends_on_its_receptive_field_alone(n_layers, cycle, field):
    model, x = net(7, 7, n_layers, cycle), tokens(1, 40)
    assert model.receptive_field == field
    at = 30
    before = model(x)[0]
    moved = []
    for place in range(40):
        y = x.clone()
        y[0, place] = (y[0, place] + 1) % 7
        after = model(y)[0]
        assert torch.equal(before[:place], after[:place]), "later tokens have no influence"
        if not torch.equal(before[at], after[at]):
            moved.append(place)
    assert moved == list(range(at - field + 1, at + 1))


def test_a_class_reaches_every_prediction():
    model = net()
    one, two = (model(tokens(first=label)) for label in (7, 8))
    assert (one != two).any(2).all(), "also beyond the receptive field of 11"
    plain = net(7, 7)
    assert torch.equal(plain(tokens(first=1))[:, 20:], plain(tokens(first=2))[:, 20:])


@pytest.mark.parametrize("first", [None, 7])
def test_the_cache_changes_nothing(first):
    model, x = net(), tokens(first=first)
    whole = model(x)
    for prompt in (1, 4, 20):
        logits, state = model.prefill(x[:, :prompt])
        assert torch.allclose(logits, whole[:, prompt - 1], atol=1e-12)
        for place in range(prompt, 24):
            assert torch.allclose(model.step(x[:, place], state), whole[:, place], atol=1e-12)


def test_padding_reordering_and_merging():
    model = net()
    long, short = tokens(1, 9, 7), tokens(1, 5, 8)
    both = torch.cat([long, torch.cat([torch.full((1, 4), 3), short], 1)])
    logits, state = model.prefill(both, torch.tensor([0, 4]))
    alone = [model.prefill(row) for row in (long, short)]
    assert torch.allclose(logits, torch.cat([found for found, _ in alone]), atol=1e-12)
    merged, following = model.merge(alone[0][1], alone[1][1]), torch.tensor([2, 5])
    expected = torch.cat(
        [model(torch.cat([r, t.view(1, 1)], 1))[:, -1] for r, t in zip((long, short), following, strict=True)]
    )
    assert torch.allclose(model.step(following, merged), expected, atol=1e-12)
    model.reorder(state, torch.tensor([1, 0]))
    assert torch.allclose(model.step(following.flip(0), state), expected.flip(0), atol=1e-12)


def test_samples_with_and_without_cache_are_equal():
    model, generator = net(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        cached = next(sample_tokens(model, [[7], [8]], SamplingParams(), generator=generator, block_size=20))[0]
        from zoo.nn.samplers.autoregressive import RowNoise
        from zoo.nn.samplers.sampling_params import inverse_cdf

        noise, rows = RowNoise(2, torch.Generator().manual_seed(5)), torch.tensor([[7], [8]])
        for step in range(20):
            uniform = noise.draw(16).T if step % 16 == 0 else uniform  # noqa: F821
            rows = torch.cat([rows, inverse_cdf(model(rows)[:, -1].float(), uniform[step % 16])[:, None]], 1)
    assert torch.equal(cached, rows[:, 1:])


def test_the_likelihoods_of_all_sequences_add_up_to_one():
    model = net(4, 3, 3, 2)
    every = torch.cartesian_prod(*[torch.arange(3)] * 5)
    rows = torch.cat([torch.full((len(every), 1), 3), every], 1)
    log_p = model(rows[:, :-1]).log_softmax(-1).gather(2, every[..., None]).sum((1, 2))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
