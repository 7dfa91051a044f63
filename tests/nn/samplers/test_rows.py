"""Rows of a batch: their random numbers, prompts longer than the context, penalties, and tokens that end a text."""

import math

import pytest
import torch

from tests.nn.samplers.test_autoregressive import END, PIECES, first, net
from zoo.core.errors import ConfigError
from zoo.nn.samplers.autoregressive import RowNoise, sample_tokens, stream_tokens
from zoo.nn.samplers.beam_search import batched_beam_search
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.text_stream import TextStreamer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("others", [[], [[1]], [[2, 3, 4, 1], [END]]])
def test_random_numbers_of_a_row_do_not_depend_on_the_other_rows(others):
    model = net(2)
    alone = first(model, [[END, 1]], SamplingParams(), 40, seed=3)
    together = first(model, [[END, 1], *others], SamplingParams(), 40, seed=3)
    assert torch.equal(together[:1], alone)


def test_streams_are_uniform_and_independent():
    u = RowNoise(4000, seeded()).draw(3)  # (rows, 3)
    for column in u.T:
        assert column.mean() == pytest.approx(0.5, abs=5 * (1 / 12 / 4000) ** 0.5)
        assert column.var() == pytest.approx(1 / 12, abs=5 * (1 / 180 / 4000) ** 0.5)
    for a, b in ((u[:-1, 0], u[1:, 0]), (u[:, 0], u[:, 1])):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 5 / 4000**0.5
    assert torch.equal(u[:7], RowNoise(7, seeded()).draw(3))
    assert not torch.equal(u[:7], RowNoise(7, seeded(1)).draw(3))


@torch.no_grad()
def test_a_prompt_over_the_context_keeps_as_much_as_fits():
    model, prompt = net(context=8), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    for length in (7, 8, 9, 10):
        want = model(torch.tensor([prompt[:length][-8:]]))[0, -1].argmax().item()
        got = first(model, [prompt[:length]], SamplingParams(temperature=0), 1)
        assert got.item() == want
        streamers = [TextStreamer(PIECES, None, [], 1)]
        assert batched_beam_search(model, [prompt[:length]], streamers, beams=2)[0].tokens == [want]


@torch.no_grad()
def test_penalty_does_not_count_the_token_that_begins_a_text():
    model, how = net(), SamplingParams(temperature=0, repetition_penalty=50.0)
    logits = torch.tensor([[4.0, 0.1, 0.1, 0.1, 0.1, 5.0]])
    model.prefill = lambda tokens, padding=None: (logits.expand(len(tokens), -1), None)
    for prompt, begin, want in (([END], END, END), ([END, 0], END, END), ([END], None, 0), ([0, END], END, 1)):
        tokens, _ = next(sample_tokens(model, [prompt], how, block_size=1, begin=begin))
        assert tokens.item() == want


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-31])
def test_a_tiny_temperature_is_greedy(temperature):
    logits = torch.randn(50, 9, generator=seeded()) * 30
    chosen = SamplingParams(temperature=temperature).sample(logits, torch.rand(50, generator=seeded()))
    assert torch.equal(chosen, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 1e30])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_extreme_options_choose_real_tokens(temperature, penalty):
    logits, seen = torch.randn(50, 9, generator=seeded()) * 30, torch.ones(50, 9, dtype=torch.bool)
    how = SamplingParams(temperature=temperature, repetition_penalty=penalty, top_k=5, top_p=0.9)
    chosen = how.sample(logits, torch.rand(50, generator=seeded()), seen)
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < 9


@pytest.mark.parametrize(
    "bad", [{"temperature": math.inf}, {"temperature": math.nan}, {"repetition_penalty": 1e-40}, {"top_p": math.nan}]
)
def test_numbers_beyond_single_precision_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SamplingParams(**bad)


def test_several_tokens_end_a_text_and_special_ones_stop_it():
    for tokens, reason in (([0, 3], "eos"), ([0, END], "eos"), ([0, 4], "stop"), ([0, 1], None)):
        writer = TextStreamer(PIECES, [3, END], [], 9, stop_tokens=[4])
        for token in tokens:
            writer.push(token)
        assert (writer.finish_reason, writer.buffer) == (reason, b"a" if reason else b"ab")


def test_all_ends_hold_in_beams_and_streams():
    model = net(4)
    ends = [END, first(model, [[END]], SamplingParams(temperature=0), 1).item()]
    (done,) = batched_beam_search(model, [[END]], [TextStreamer(PIECES, ends, [], 8)], beams=1)
    assert (done.tokens, done.finish_reason) == ([], "eos")
    writer = TextStreamer(PIECES, ends, [], 8)
    assert list(stream_tokens(model, [[END]], [writer], SamplingParams(temperature=0))) == []
    assert writer.finish_reason == "eos"
