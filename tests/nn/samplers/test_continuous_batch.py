"""Rows of a continuous batch against the same rows alone, for every decoder, across the end of the context."""

import random

import pytest
import torch

from tests.nn.networks.test_transformer import VARIANTS, build
from zoo.core.errors import ConfigError
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.networks import encoder_decoder
from zoo.nn.networks.attention_lstm import AttentionLSTM
from zoo.nn.networks.encoder_decoder import TransformerEncoderDecoder
from zoo.nn.networks.kneser_ney import KneserNey
from zoo.nn.networks.mamba2 import Mamba2
from zoo.nn.networks.recurrent import GRU, LSTM
from zoo.nn.samplers.autoregressive import sample_tokens
from zoo.nn.samplers.continuous_batch import ContinuousBatch, Row, row_streams
from zoo.nn.samplers.sampling_params import SamplingParams

VOCAB, CONTEXT, STEPS, END = 7, 12, 30, 6
PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7, top_k=3),
    SamplingParams(temperature=1.3, top_p=0.8),
    SamplingParams(temperature=2.0, top_k=5, top_p=0.9, repetition_penalty=1.7),
    SamplingParams(repetition_penalty=0.6),
]


def ngrams():
    net = KneserNey(VOCAB, 3, CONTEXT, END)
    tokens = torch.randint(VOCAB, (400,), generator=torch.Generator().manual_seed(0))
    net.fit(tokens, tokens == END)
    return net


def recurrent(kind):
    torch.manual_seed(0)
    net = kind(VOCAB, VOCAB, CONTEXT, d_model=16, n_layers=2, tie_weights=True)
    return net.eval()


class Unmerged:
    """A decoder without `merge`."""

    def __init__(self, net):
        self.context, self.prefill, self.step, self.reorder = net.context, net.prefill, net.step, net.reorder


NETS = {
    **{f"transformer-{i}": lambda settings=settings: build(context=CONTEXT, **settings)
       for i, settings in enumerate([*VARIANTS, {"window": 4}])},
    "lstm": lambda: recurrent(LSTM),
    "gru": lambda: recurrent(GRU),
    "mamba2": lambda: recurrent(Mamba2),
    "ngrams": ngrams,
}  # fmt: skip


def prompt_of(seed):
    chooser = random.Random(seed)
    return [END, *(chooser.randrange(VOCAB) for _ in range(chooser.choice([0, 1, 5, 11, 14])))]


def alone(net, prompt, params, seed, steps=STEPS):
    noise = torch.Generator().manual_seed(seed)
    tokens, log_probs = next(sample_tokens(net, [prompt], params, generator=noise, block_size=steps, begin=END))
    return tokens[0].tolist(), log_probs[0].tolist()


def run(batch, waiting, steps=STEPS, seed=0, decoders=None):
    """Let rows join at random times, and leave after so many tokens: row -> tokens and log-probabilities."""
    chooser, found, waiting = random.Random(seed), {}, list(waiting)
    while waiting or batch.rows:
        if waiting and (not batch.rows or chooser.random() < 0.3):
            joining, waiting = waiting[: (size := chooser.choice([1, 2]))], waiting[size:]
            if decoders is None:
                batch.join(joining)
            else:
                for each in joining:
                    assert batch.fits(decoders[each])
                    batch.join([each], decoders[each])
        for row, drawn in batch.draw():
            found.setdefault(row, ([], []))
            found[row][0].append(drawn.token)
            found[row][1].append(drawn.log_prob)
        batch.leave([row for row in batch.rows if len(found[row][0]) == steps])
        batch.advance()
    return found


def row(seed, params, **options):
    return Row(prompt_of(seed), params, row_streams(1, seed)[0], **options)


@pytest.mark.parametrize("name", NETS)
def test_a_row_is_sampled_as_if_alone(name):
    net = NETS[name]()
    asked = {row(seed, params): (seed, params) for seed, params in enumerate(PARAMS)}
    found = run(ContinuousBatch(net, begin=END), asked)
    for each, (seed, params) in asked.items():
        tokens, log_probs = alone(net, prompt_of(seed), params, seed)
        assert found[each][0] == tokens
        assert found[each][1] == pytest.approx(log_probs, abs=1e-5)


def test_the_comparison_finds_a_lost_column(monkeypatch):
    """Negative control: the newest column of the last row is lost in a merge."""
    net = NETS["transformer-0"]()
    merge = KVCache.merge

    def lossy(self, other):
        merged = merge(self, other)
        merged.store[:, :, -1, :, merged.used - 1] = 0
        return merged

    monkeypatch.setattr(KVCache, "merge", lossy)
    asked = {row(seed, SamplingParams()): seed for seed in range(4)}
    found = run(ContinuousBatch(net, begin=END), asked)
    assert any(
        found[each][1] != pytest.approx(alone(net, prompt_of(seed), SamplingParams(), seed)[1], abs=1e-5)
        for each, seed in asked.items()
    )


TRANSLATORS = {
    "sinusoidal": lambda: transformer(),
    "rotary": lambda: transformer(position_encoding="rotary"),
    "relative": lambda: transformer(position_encoding="relative", norm="rmsnorm", pre_norm=True, tie_weights=False),
    "lstm": lambda: AttentionLSTM(VOCAB, VOCAB, CONTEXT, d_model=16, n_layers=2),
}


def transformer(**settings):
    return TransformerEncoderDecoder(VOCAB, VOCAB, CONTEXT, d_model=16, n_layers=2, n_heads=2, **settings)


def translations(name):
    """Rows with sources of unequal lengths: row -> seed, parameters, and decoder of its source."""
    torch.manual_seed(0)
    net = TRANSLATORS[name]().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.6)
    asked = {}
    for seed, params in enumerate(PARAMS):
        source = torch.randint(VOCAB, (1, 1 + 3 * seed % 8), generator=torch.Generator().manual_seed(seed))
        asked[row(seed, params)] = seed, params, net.after(source)
    return net, asked


@torch.no_grad()
def differences(asked):
    """Run rows of different sources together and alone: differing tokens, and largest difference of their nats."""
    decoders = {each: decoder for each, (_, _, decoder) in asked.items()}
    found = run(ContinuousBatch(next(iter(decoders.values())), begin=END), asked, decoders=decoders)
    tokens, nats = 0, 0.0
    for each, (seed, params, decoder) in asked.items():
        wanted = alone(decoder, prompt_of(seed), params, seed)
        tokens += sum(a != b for a, b in zip(found[each][0], wanted[0], strict=True))
        nats = max(nats, *(abs(a - b) for a, b in zip(found[each][1], wanted[1], strict=True)))
    return tokens, nats


@pytest.mark.parametrize("name", TRANSLATORS)
def test_rows_of_different_sources_share_a_batch(name):
    _, asked = translations(name)
    tokens, nats = differences(asked)
    assert tokens == 0
    assert nats < 1e-5


@pytest.mark.parametrize("name", TRANSLATORS)
def test_the_comparison_finds_padding_that_is_read(name, monkeypatch):
    """Negative control: the mask of the sources is lost when rows join."""
    join = encoder_decoder.join_rows

    def unmasked(tree, other):
        if isinstance(tree, torch.Tensor) and tree.dtype == torch.bool:
            return torch.ones_like(join(tree, other))
        return join(tree, other)

    monkeypatch.setattr(encoder_decoder, "join_rows", unmasked)
    _, asked = translations(name)
    assert differences(asked)[1] > 1e-3


def test_rows_of_another_network_or_without_merge_do_not_fit():
    (one, asked), (_, others) = translations("rotary"), translations("lstm")
    first, second = (next(iter(each.values()))[2] for each in (asked, others))
    batch = ContinuousBatch(first, begin=END)
    assert batch.fits(one.after(torch.ones(1, 4, dtype=torch.long)))
    assert not batch.fits(second)
    assert not ContinuousBatch(NETS["lstm"]()).fits(first)
    batch.join([row(0, SamplingParams())])
    batch.state.cache = object()  # of a third-party network, without merge
    assert not batch.fits(first)


def test_a_decoder_without_merge_takes_one_group():
    net = Unmerged(NETS["transformer-0"]())
    asked = {row(seed, params): (seed, params) for seed, params in enumerate(PARAMS)}
    batch, found = ContinuousBatch(net, begin=END), {each: [] for each in asked}
    batch.join(list(asked))
    with pytest.raises(ConfigError, match="Use a new batch"):
        batch.join([row(9, SamplingParams())])
    for _ in range(STEPS):
        for each, drawn in batch.draw():
            found[each].append(drawn.token)
        batch.advance()
    for each, (seed, params) in asked.items():
        assert found[each] == alone(net, prompt_of(seed), params, seed)[0]


def test_the_cache_forgets_columns_that_no_row_needs():
    net = build(context=64)
    batch = ContinuousBatch(net)
    long, short = (
        Row([1] * 40, SamplingParams(), row_streams(1, 0)[0]),
        Row([1], SamplingParams(), row_streams(1, 1)[0]),
    )
    batch.join([long])
    batch.join([short])
    assert batch.state.used == 40
    batch.draw()
    batch.leave([long])
    batch.advance()
    assert batch.state.used == batch.columns == 2
    assert batch.state.first is None, "without padding there is no mask"


@pytest.mark.parametrize(("frequency", "presence"), [(2.0, 0.0), (0.0, 2.0), (-1.0, 0.5)])
def test_penalties_follow_the_formula(frequency, presence):
    """Greedy tokens of a decoder whose logits are constant, by the formula of OpenAI's documentation."""
    logits = torch.tensor([3.0, 2.6, 1.5, 0.1])

    class Constant:
        context = float("inf")

        def prefill(self, tokens, padding=None):
            return logits.expand(len(tokens), -1), None

        def step(self, tokens, state):
            return logits.expand(len(tokens), -1)

    batch = ContinuousBatch(Constant())
    params = SamplingParams(temperature=0, frequency_penalty=frequency, presence_penalty=presence)
    batch.join([Row([0], params, row_streams(1, 0)[0])])
    got, counts, wanted = [], torch.zeros(4), []
    for _ in range(12):
        ((_, drawn),) = batch.draw()
        got.append(drawn.token)
        assert drawn.log_prob == pytest.approx(logits.log_softmax(0)[drawn.token].item()), "of the model itself"
        batch.advance()
        changed = [z - frequency * c - presence * (c > 0) for z, c in zip(logits, counts, strict=True)]
        wanted.append(int(torch.stack(changed).argmax()))
        counts[wanted[-1]] += 1
    assert got == wanted
    assert len(set(got)) > 1 or frequency < 0, "penalties have an effect"


def test_likeliest_tokens_are_those_of_the_model():
    net = NETS["transformer-0"]()
    asked = [row(1, SamplingParams(temperature=0), n_top=3), row(2, SamplingParams())]
    batch = ContinuousBatch(net)
    batch.join(asked)
    (_, first), (_, second) = batch.draw()
    with torch.no_grad():
        wanted = net(torch.tensor([prompt_of(1)[-CONTEXT:]]))[0, -1].log_softmax(0).topk(3)
    assert [t for t, _ in first.top] == wanted.indices.tolist()
    assert [p for _, p in first.top] == pytest.approx(wanted.values.tolist(), abs=1e-5)
    assert second.top == []


@pytest.mark.parametrize(
    "options", [{"frequency_penalty": 2.1}, {"presence_penalty": -3}, {"frequency_penalty": float("nan")}]
)
def test_penalties_have_bounds(options):
    with pytest.raises(ConfigError, match=r"from -2 to 2"):
        SamplingParams(**options)
