"""Decoding against brute force: every stream, every sequence, exact ties."""

import itertools
import math

import pytest
import torch

from tests.nn.networks.test_transformer import build
from zoo.core.errors import ZooError
from zoo.nn.samplers.autoregressive import sample_tokens, stream_tokens
from zoo.nn.samplers.beam_search import beam_search
from zoo.nn.samplers.sampling_params import SamplingParams, keep_mask, parse_sampling
from zoo.nn.samplers.text_stream import TextStreamer

PIECES = [b"a", b"b", b"c", b"d", b"e", b""]  # the sixth is the end of text
END = 5


def greedy():
    return SamplingParams(temperature=0)


def net(seed=0, context=32, vocab=6, **settings):
    return build(vocab=vocab, context=context, seed=seed, **settings)


def score(model, prompt, tokens):
    """Log-probability of tokens after a prompt, by one forward pass."""
    with torch.no_grad():
        row = torch.tensor([[*prompt, *tokens]])
        log_p = model(row)[0].log_softmax(-1)
    return sum(log_p[len(prompt) + i - 1, t].item() for i, t in enumerate(tokens))


def first(model, prompts, how, n, seed=0, block_size=16):
    generator = torch.Generator().manual_seed(seed)
    tokens = []
    for block, _ in sample_tokens(model, prompts, how, generator=generator, block_size=block_size):
        tokens.append(block)
        if sum(b.shape[1] for b in tokens) >= n:
            return torch.cat(tokens, dim=1)[:, :n]
    return None


def pick(how, logits, u=0.5, seen=None):
    return how.sample(torch.tensor([logits]), torch.tensor([u]), seen).item()


# -- choosing one token -----------------------------------------------------------------------------------------------


def kept(logits, **options):
    """Tokens that some uniform number reaches."""
    u = torch.linspace(0, 1, 4001)[:-1]
    return set(SamplingParams(**options).sample(torch.tensor([logits]).expand(4000, -1), u).tolist())


def test_top_k_keeps_exactly_k_under_ties():
    assert kept([1.0, 1.0, 1.0, 1.0, 1.0], top_k=2) == {0, 1}
    assert kept([0.0, 2.0, 2.0, 2.0, 1.0], top_k=2) == {1, 2}
    assert kept([0.0, 2.0, 1.0], top_k=9) == {0, 1, 2}


def test_top_p_keeps_the_smallest_set_and_no_more_at_exact_ties():
    log = [math.log(p) for p in (0.5, 0.25, 0.25)]
    assert kept(log, top_p=0.5) == {0}
    assert kept(log, top_p=0.51) == {0, 1}
    assert kept(log, top_p=0.75) == {0, 1}
    assert kept(log, top_p=0.76) == {0, 1, 2}
    assert kept(log, top_p=1e-9) == {0}
    assert kept([0.0] * 4, top_p=0.5) == {0, 1}
    assert kept([0.0] * 10, top_p=0.3) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_top_p_equals_brute_force(seed):
    g = torch.Generator().manual_seed(seed)
    logits, p = torch.randn(7, generator=g) * 2, torch.rand((), generator=g).item() * 0.98 + 0.01
    probabilities = logits.double().softmax(-1)
    sets = [s for r in range(1, 8) for s in itertools.combinations(range(7), r) if probabilities[list(s)].sum() >= p]
    best = min(sets, key=lambda s: (len(s), -probabilities[list(s)].sum()))
    order = logits.sort(descending=True).indices
    keep = keep_mask(logits[order][None], 0, p)[0]
    assert set(order[keep].tolist()) == set(best)


def test_top_p_comes_after_top_k_and_temperature():
    log = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert kept(log, top_k=2, top_p=0.57) == {0}  # 0.4 / 0.7 = 0.571 among the two kept
    assert kept(log, top_p=0.45) == {0, 1}
    assert kept(log, temperature=0.5, top_p=0.45) == {0}  # 0.16 / 0.30 = 0.53


def test_choice_follows_the_distribution_at_a_temperature():
    logits = torch.tensor([[0.3, -1.0, 1.2, 0.0]])
    for how, temperature in [(SamplingParams(temperature=0.7), 0.7), (SamplingParams(top_k=4, temperature=1.5), 1.5)]:
        u = (torch.arange(100_000) + 0.5) / 100_000
        share = torch.bincount(how.sample(logits.expand(100_000, -1), u), minlength=4) / 100_000
        assert torch.allclose(share, (logits[0] / temperature).softmax(-1), atol=2e-4)


def test_impossible_tokens_are_never_chosen():
    logits = [-math.inf, 0.0, -math.inf, 0.0, -math.inf]
    for u in (0.0, 0.4999999, 0.5, 1 - 2**-24):
        assert pick(SamplingParams(), logits, u) in (1, 3)
    assert pick(SamplingParams(), [3.0, 1.7, 0.3, -200.0], 1 - 2**-24) == 2


def test_repetition_penalty():
    seen = torch.tensor([[True, True, False]])
    assert pick(SamplingParams(temperature=0, repetition_penalty=2.0), [1.5, -0.1, 1.0], seen=seen) == 2
    assert pick(SamplingParams(temperature=0, repetition_penalty=1.2), [1.5, -0.1, 1.0], seen=seen) == 0
    assert pick(SamplingParams(temperature=0, repetition_penalty=2.0), [-2.0, -1.1, -2.1], seen=seen) == 2
    model, row = net(), [0, 1]
    for _ in range(8):  # the penalty applies to the prompt and to sampled tokens
        with torch.no_grad():
            logits = model(torch.tensor([row]))[0, -1]
        row.append(
            max(
                range(6),
                key=lambda t: logits[t] * (1.3 if (logits[t] < 0) else 1 / 1.3) if t in row else logits[t],
            )
        )
    assert first(model, [[0, 1]], SamplingParams(temperature=0, repetition_penalty=1.3), 8)[0].tolist() == row[2:]


def test_bad_options_are_refused():
    for bad in (
        {"temperature": -1.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_penalty": 0.0},
    ):
        with pytest.raises(ZooError, match=next(iter(bad))):
            SamplingParams(**bad)
    with pytest.raises(ZooError, match=r"unknown option 'temprature', did you mean 'temperature'"):
        parse_sampling({"temprature": 1.0})
    assert parse_sampling({"top_k": None, "top_p": 0.5}, temperature=0.3) == SamplingParams(temperature=0.3, top_p=0.5)


# -- many tokens ------------------------------------------------------------------------------------------------------


def test_temperature_zero_is_greedy_whatever_the_seed():
    model = net()
    row = [END]
    for _ in range(20):
        with torch.no_grad():
            row.append(model(torch.tensor([row]))[0, -1].argmax().item())
    for seed in (0, 1):
        assert first(model, [[END]], greedy(), 20, seed)[0].tolist() == row[1:]


def test_same_seed_same_text_however_it_is_read():
    model, prompts = net(), [[END], [END, 1, 2]]
    one = first(model, prompts, SamplingParams(), 25, seed=3, block_size=1)
    assert torch.equal(one, first(model, prompts, SamplingParams(), 25, seed=3, block_size=16))
    assert torch.equal(one, first(model, prompts, SamplingParams(), 25, seed=3, block_size=25))
    assert not torch.equal(one, first(model, prompts, SamplingParams(), 25, seed=4))


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
def test_rows_are_written_as_they_would_be_alone_even_past_the_context(positions):
    model = net(context=8, position_encoding=positions)
    prompts = [[END], [END, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 2], [4, 4, 4, 4, 4, 4, 4, 4]]
    together = first(model, prompts, greedy(), 30)
    for prompt, row in zip(prompts, together, strict=True):
        assert torch.equal(first(model, [prompt], greedy(), 30)[0], row)


def test_past_the_context_writing_goes_on_from_the_last_half():
    model = net(context=8)
    row, written = [END, 0, 1], []
    for _ in range(25):
        if len(row) > 8:
            row = row[-4:]
        with torch.no_grad():
            written.append(model(torch.tensor([row]))[0, -1].argmax().item())
        row.append(written[-1])
    assert first(model, [[END, 0, 1]], greedy(), 25)[0].tolist() == written


def test_log_probabilities_are_those_of_the_model():
    model, prompts = net(), [[END], [END, 3, 1]]
    how = SamplingParams(temperature=0.5, top_k=3, repetition_penalty=1.3)
    tokens, scores = next(sample_tokens(model, prompts, how, generator=torch.Generator().manual_seed(0), block_size=10))
    for prompt, row, nats in zip(prompts, tokens.tolist(), scores, strict=True):
        assert nats.sum().item() == pytest.approx(score(model, prompt, row), abs=1e-4)


def test_samples_match_the_enumerated_density():
    model, n = net(vocab=3, n_layers=1), 20_000
    outcomes = list(itertools.product(range(3), repeat=3))
    p = torch.tensor([score(model, [2], list(o)) for o in outcomes]).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    rows = first(model, [[2]] * n, SamplingParams(), 3)
    counts = torch.bincount(rows[:, 0] * 9 + rows[:, 1] * 3 + rows[:, 2], minlength=27)
    chi2 = ((counts - n * p).square() / (n * p)).sum().item()
    assert chi2 < 58.9  # 26 degrees of freedom: exceeded once in 4,000 times


def test_empty_prompt_is_refused():
    with pytest.raises(ZooError, match="at least one token"):
        next(sample_tokens(net(), [[]], greedy()))


# -- beam search ------------------------------------------------------------------------------------------------------


def search(model, prompt, beams, limit, **options):
    return beam_search(model, prompt, PIECES, options.pop("end", END), beams=beams, limit=limit, **options)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length_penalty", [-2.0, -0.5, 0.0, 1.0])
def test_wide_beam_equals_exhaustive_search(seed, length_penalty):
    model, prompt, limit = net(seed, vocab=6), [END, seed % 5], 3
    done = []
    for n in range(1, limit + 1):
        for tokens in itertools.product(range(6), repeat=n):
            if END in tokens[:-1] or (tokens[-1] != END and n < limit):
                continue  # not a finished text
            done.append((score(model, prompt, list(tokens)) / n**length_penalty, list(tokens)))
    value, tokens = max(done)
    found = search(model, prompt, 6 ** (limit - 1), limit, length_penalty=length_penalty)
    assert found.tokens == [t for t in tokens if t != END]
    assert found.finish_reason == ("eos" if tokens[-1] == END else "length")
    assert found.log_prob / len(tokens) ** length_penalty == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_beam_equals_the_same_search_without_a_cache_and_its_score_is_true(seed):
    model, prompt, width, limit = net(seed, context=32), [END, 2], 3, 8
    live = [(0.0, [])]
    for _ in range(limit):
        grown = []
        for value, tokens in live:
            with torch.no_grad():
                log_p = model(torch.tensor([[*prompt, *tokens]]))[0, -1].log_softmax(-1)
            grown += [(value + log_p[t].item(), [*tokens, t]) for t in range(6)]
        live = sorted(grown, reverse=True)[:width]
    found = search(model, prompt, width, limit, end=None)
    assert found.tokens == live[0][1]
    assert found.log_prob == pytest.approx(score(model, prompt, found.tokens), abs=1e-4)
    alone = search(model, prompt, 1, limit, end=None)
    assert alone.tokens == first(model, [prompt], greedy(), limit)[0].tolist()  # width 1 is greedy


def test_beam_goes_on_past_the_context():
    model = net(context=8)
    found = search(model, [END], 1, 30, end=None)
    assert found.tokens == first(model, [[END]], greedy(), 30)[0].tolist()


@pytest.mark.parametrize("seed", range(6))
def test_wide_beam_with_stop_sequences_equals_exhaustive_search(seed):
    model, prompt, limit, stops = net(seed), [END, seed % 5], 3, ["ba", "c", "ed"]
    done = []
    for n in range(1, limit + 1):
        for tokens in itertools.product(range(6), repeat=n):
            texts = ["".join(["a", "b", "c", "d", "e", ""][t] for t in tokens[:i]) for i in range(1, n + 1)]
            finished = [oracle(text, stops) is not None for text in texts]
            if any(finished[:-1]) or not (finished[-1] or n == limit):
                continue
            done.append((score(model, prompt, list(tokens)) / n, oracle(texts[-1], stops), texts[-1]))
    _, cut, text = max(done)
    found = search(model, prompt, 36, limit, end=None, stop=stops)
    assert (found.text, found.finish_reason) == ((text, "length") if cut is None else (cut, "stop"))


def test_no_room_to_write():
    assert search(net(), [END], 2, 0).finish_reason == "length"


# -- text and stop sequences ------------------------------------------------------------------------------------------


def oracle(text, stops):
    """The text before the stop sequence that is complete first (the longest of those), or None."""
    for end in range(len(text) + 1):
        begins = [end - len(s) for s in stops if text[:end].endswith(s)]
        if begins:
            return text[: min(begins)]
    return None


STOPS = [
    ["ab"],
    ["aab"],
    ["aa", "b"],
    ["abab"],
    ["abc", "b"],
    ["bc", "abcd"],
    ["cab", "abca"],
    ["aba"],
    ["a"],
    ["xyz"],
]
TABLES = [["a", "b", "c"], ["ab", "a", "bc"], ["aba", "b", "cab"], ["abcd", "bca", ""]]


@pytest.mark.parametrize("stops", STOPS, ids=str)
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_stop_sequences_on_all_short_streams(stops, table):
    pieces = [s.encode() for s in table]
    for length in range(1, 7):
        for stream in itertools.product(range(3), repeat=length):
            writer, shown, taken = TextStreamer(pieces, None, stops, None), "", 0
            for token in stream:
                shown += writer.push(token)
                taken += 1
                if writer.finish_reason:
                    break
                # Emitted text is final: the whole text starts with it, and no stop sequence starts in it.
                read = "".join(table[t] for t in stream[:taken])
                assert read.startswith(shown)
                held = read[len(shown) :]
                assert held == "" or any(s.startswith(held) for s in stops)
            text = "".join(table[t] for t in stream[:taken])
            want = oracle(text, stops)
            result = writer.result()
            if want is None:
                assert writer.finish_reason is None
                assert result.text == text
            else:
                assert writer.finish_reason == "stop"
                assert oracle("".join(table[t] for t in stream[: taken - 1]), stops) is None  # not a token late
                assert result.text == shown == want
                assert want.startswith("".join(table[t] for t in result.tokens))


def test_limit_releases_what_was_held_back():
    writer = TextStreamer([b"a", b"b"], None, ["ab"], 3)
    assert [writer.push(t) for t in (1, 1, 0)] == ["b", "b", "a"]
    assert writer.finish_reason == "length"
    assert writer.result().text == "bba"


def test_a_character_is_shown_when_it_is_whole():
    text = "aé€😀z"
    writer = TextStreamer([bytes([b]) for b in range(256)], None, [], None)
    shown = [writer.push(b) for b in text.encode()]
    assert [s for s in shown if s] == list(text)
    assert shown[1] == ""
    broken = TextStreamer([bytes([b]) for b in range(256)], None, [], 3)
    assert "".join(broken.push(b) for b in b"a\xe2\x82") == "a\N{REPLACEMENT CHARACTER}"


def test_stop_sequences_within_characters_of_several_bytes():
    writer = TextStreamer([bytes([b]) for b in range(256)], None, ["é€"], None)
    shown = ""
    for b in "aéé€b".encode():
        shown += writer.push(b)
        if writer.finish_reason:
            break
    assert (shown, writer.finish_reason) == ("aé", "stop")


def test_finish_reasons_and_score_of_the_kept_tokens():
    writer = TextStreamer(PIECES, END, [], 9)
    for token, nats in [(0, -1.0), (1, -2.0), (END, -4.0)]:
        writer.push(token, nats)
    done = writer.result()
    assert (done.text, done.tokens, done.finish_reason, done.log_prob) == ("ab", [0, 1], "eos", -7.0)
    writer = TextStreamer(PIECES, END, ["bc"], 9)
    for token, nats in [(0, -1.0), (1, -2.0), (2, -4.0)]:
        writer.push(token, nats)
    done = writer.result()
    assert (done.text, done.tokens, done.finish_reason, done.log_prob) == ("a", [0], "stop", -1.0)


def test_rows_finish_in_their_own_time():
    model = net(1)
    writers = [TextStreamer(PIECES, None, [], n) for n in (3, 20, 0)]
    shown = ["", "", ""]
    for row, text in stream_tokens(model, [[END], [END, 1], [END]], writers, greedy()):
        shown[row] += text
    assert [len(s) for s in shown] == [len(b"".join(PIECES[t] for t in w.tokens)) for w in writers]
    assert [len(w.tokens) for w in writers] == [3, 20, 0]
    assert all(w.finish_reason == "length" for w in writers)


def test_stop_must_be_a_list_of_strings():
    for bad in ("ab", [""]):
        with pytest.raises(ZooError, match="must be a list of"):
            TextStreamer(PIECES, END, bad, None)


@pytest.mark.parametrize("how", [SamplingParams(), SamplingParams(temperature=0), SamplingParams(0.8, 3, 0.9, 1.1)])
def test_no_token_waits_for_the_device(how):
    """From the second block on nothing is read by the host until a block is complete."""

    class Waits(torch.utils._python_dispatch.TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.found, self.steps = [], 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func._overloadpacket.__name__
            self.steps += name.startswith("embedding")
            if name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
                self.found.append(name)
            return func(*args, **(kwargs or {}))

    steps = sample_tokens(
        net(context=64), [[0], [1, 2]], how, generator=torch.Generator().manual_seed(0), block_size=16
    )
    next(steps)
    waits = Waits()
    with waits:
        next(steps)
    assert waits.steps == 16, "one incremental pass for each token"
    assert waits.found == []
