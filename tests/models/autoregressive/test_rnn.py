"""Recurrent language models: the same scores and texts as any other, without a context."""

import pytest
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.char import Char
from zoo.models.autoregressive.rnn import RNN

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40


def model(cell="lstm", tokenizer=None, context=24, **settings):
    tokenizer = tokenizer or Char().fit([TEXT])
    spec = zoo.DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="t")
    torch.manual_seed(0)
    made = RNN(spec, cell=cell, **{"d_model": 16, "n_layers": 2, **settings})
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.4)
    return made.eval()


def test_loss_is_nats_per_scored_token():
    one = model()
    x, y = torch.randint(0, 20, (2, 2, 24))
    y[0, 5:] = -100
    log_p = one.net(x).log_softmax(-1)
    want = -sum(log_p[b, t, y[b, t]].item() for b in range(2) for t in range(24) if y[b, t] >= 0) / 29
    assert one.loss(Batch(x, y))["loss"].item() == pytest.approx(want, rel=1e-5)


def test_a_long_text_is_scored_as_a_whole():
    one, x = model(), torch.randint(0, 20, (2, 100))  # four windows
    read = torch.cat([torch.full((2, 1), one.end), x[:, :-1]], 1)
    with torch.no_grad():
        want = one.net(read).log_softmax(-1).gather(2, x[..., None]).sum((1, 2))
        torch.testing.assert_close(one.log_prob(x), want)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_prompts_of_unequal_length_are_continued_as_alone(cell):
    one = model(cell, BPE(vocab_size=280).fit([TEXT]))
    prompts = ["", "the quick brown fox", "dog"]
    many = one.generate(prompts, max_new_tokens=60, temperature=0)
    for prompt, done in zip(prompts, many, strict=True):
        alone = one.generate([prompt], max_new_tokens=60, temperature=0)[0]
        assert (alone.tokens, alone.finish_reason) == (done.tokens, done.finish_reason)
        assert alone.log_prob == pytest.approx(done.log_prob, abs=1e-3)


def test_greedy_equals_the_full_pass_far_beyond_the_window():
    one = model()
    row = [one.end, *one.tokenizer.encode("the fox")]
    n = len(row)
    with torch.no_grad():
        for _ in range(80):
            row.append(one.net(torch.tensor([row]))[0, -1].argmax().item())
    written = row[n:]
    want = written[: written.index(one.end)] if one.end in written else written
    assert one.generate(["the fox"], max_new_tokens=80, temperature=0)[0].tokens == want


def test_without_a_limit_a_text_fills_the_window_of_the_data_and_says_so():
    one = model()
    for done in one.generate(["fox"] * 3, seed=1):
        assert done.finish_reason == "eos" or (done.finish_reason, len(done.tokens)) == ("length", 24 - 4)
    with pytest.raises(zoo.ZooError, match="fills the context of 24"):
        one.generate(["the quick brown fox jumps"])
    assert one.sample(3).shape == (3, 24)


def test_muon_takes_the_matrices_of_the_cells():
    one = model()
    one.__class__ = type("Alone", (RNN,), {"total_steps": 10, "registered_name": "rnn"})
    groups = one.configure_optimizers()["optimizer"].param_groups
    assert sorted(len(g["params"]) for g in groups if g["muon"]) == [4]
    assert sum(len(g["params"]) for g in groups) == len(list(one.parameters()))
