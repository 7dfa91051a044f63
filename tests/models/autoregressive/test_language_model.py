"""Language models over each backbone: units, text generation, saving, packed documents."""

import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn

import zoo
from tests.models.autoregressive.networks import RECURRENT, SMALL, shaken
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Tokens, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.plain import Text
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.byte import Byte
from zoo.data.text.tokenizers.char import Char
from zoo.interop.loading import load
from zoo.models.abilities import SupportsLogProb, SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.autoregressive.language_model import LanguageModel

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40


def text_model(tokenizer=None, context=24, **backbone):
    tokenizer = tokenizer or Char().fit([TEXT])
    spec = DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="t")
    return shaken(LanguageModel(spec, backbone={**SMALL, **backbone}))


# -- likelihood -------------------------------------------------------------------------------------------------------


def test_doubling_a_batch_leaves_the_loss():
    text = text_model()
    t = torch.randint(0, 20, (3, 24))
    assert torch.allclose(text.loss(Batch(t, t))["loss"], text.loss(Batch(t.repeat(2, 1), t.repeat(2, 1)))["loss"])


def test_text_loss_is_nats_per_scored_token():
    model = text_model()
    x, y = torch.randint(0, 20, (2, 2, 24))
    y[0, 5:] = -100
    log_p = model.net(x).log_softmax(-1)
    want = -sum(log_p[b, t, y[b, t]].item() for b in range(2) for t in range(24) if y[b, t] >= 0) / 29
    assert model.loss(Batch(x, y))["loss"].item() == pytest.approx(want, rel=1e-5)
    shifted = torch.cat([torch.full((2, 1), model.end), x[:, :-1]], dim=1)
    assert torch.allclose(model.log_prob(x), model.log_prob(shifted, x))


def test_validation_counts_every_token_and_byte_once(tmp_path):
    (tmp_path / "a.txt").write_text("zwölf große Boxkämpfer jagen €5 " * 120, encoding="utf-8")
    data = Text(
        path=str(tmp_path), context=24, batch_size=4, tokenizer={"name": "bpe", "vocab_size": 300, "min_frequency": 1}
    )
    data.setup()
    model = shaken(LanguageModel(data.spec, backbone=SMALL), 0.2)
    got = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).validate(model, data, verbose=False)[0]
    nats = tokens = text_nats = 0
    stream, end = data.val[1].long(), data.tokenizer.end
    for i in range(0, len(stream) - 1, 24):
        x, y = stream[i : i + 24], stream[i + 1 : i + 25]
        with torch.no_grad():
            cost = nn.functional.cross_entropy(model.net(x[None, : len(y)])[0], y, reduction="none")
        nats, tokens = nats + cost.sum().item(), tokens + len(y)
        text_nats += cost[y != end].sum().item()
    size = sum(len(text.encode()) for text in data.texts[1])
    assert got["val/loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert got["val/bits_per_byte"] == pytest.approx(text_nats / size / math.log(2), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_one_batch_can_be_learned_by_heart(optimizer):
    torch.manual_seed(0)
    spec = DataSpec(Tokens(16, 20))
    model = LanguageModel(
        spec,
        backbone={**SMALL, "d_model": 32},
        optimizer={"name": optimizer, "lr": 1e-2, "schedule": "linear"}
        | ({"muon_lr": 0.05} if optimizer == "muon" else {}),
    )
    x = torch.randint(0, 20, (4, 17))
    x[:, 0] = torch.arange(4)  # texts with different first tokens can be distinguished
    model._trainer = None
    model.__class__ = type("Alone", (LanguageModel,), {"total_steps": 200, "registered_name": "language_model"})
    both = model.configure_optimizers()
    chosen, scheduler = both["optimizer"], both["lr_scheduler"]["scheduler"]
    first = model.loss(Batch(x[:, :-1], x[:, 1:]))["loss"].item()
    assert first == pytest.approx(math.log(20), rel=0.05)
    for _ in range(200):
        chosen.zero_grad()
        model.loss(Batch(x[:, :-1], x[:, 1:]))["loss"].backward()
        chosen.step()
        scheduler.step()
    assert model.loss(Batch(x[:, :-1], x[:, 1:]))["loss"] < 0.02


# -- writing ----------------------------------------------------------------------------------------------------------


def test_protocols():
    assert supports(text_model(), SupportsLogProb)
    assert supports(text_model(), SupportsTextGeneration)


def test_greedy_equals_the_full_forward_and_ignores_the_seed():
    model = text_model()
    row = [model.end, *model.tokenizer.encode("the fox")]
    n = len(row)
    for _ in range(10):
        with torch.no_grad():
            row.append(model.net(torch.tensor([row]))[0, -1].argmax().item())
    for seed in (0, 1):
        done = model.generate(["the fox"], max_new_tokens=10, temperature=0, seed=seed)[0]
        written = row[n:]
        want = written[: written.index(model.end)] if model.end in written else written
        assert done.tokens == want
        assert done.text == model.tokenizer.decode(want)
        assert done.finish_reason == ("eos" if model.end in written else "length")


def test_prompts_of_unequal_length_are_continued_as_alone():
    model = text_model(BPE(min_frequency=1, vocab_size=280).fit([TEXT]))
    prompts = ["", "the quick brown fox", "dog"]
    many = model.generate(prompts, max_new_tokens=40, temperature=0)
    for prompt, done in zip(prompts, many, strict=True):
        alone = model.generate([prompt], max_new_tokens=40, temperature=0)[0]
        assert (alone.tokens, alone.finish_reason) == (done.tokens, done.finish_reason)
        assert alone.log_prob == pytest.approx(done.log_prob, abs=1e-3)


def test_streaming_gives_the_same_text():
    model = text_model(Byte())
    for seed in range(5):
        done = model.generate(["é"], max_new_tokens=30, seed=seed, stop=["\x03", "ab"])[0]
        assert "".join(model.stream("é", max_new_tokens=30, seed=seed, stop=["\x03", "ab"])) == done.text


def test_same_seed_same_text_and_no_hidden_limit():
    model = text_model()
    one, two, other = (model.generate(["a"] * 3, max_new_tokens=60, seed=s) for s in (1, 1, 2))
    assert one == two != other
    for done in one:
        assert done.finish_reason in ("eos", "length")
        assert done.finish_reason == "eos" or len(done.tokens) == 60
    for done in model.generate(["fox"] * 3, seed=1):  # None: the rest of the context; the finish reason reports it
        assert done.finish_reason == "eos" or (done.finish_reason, len(done.tokens)) == ("length", 24 - 4)
    with pytest.raises(ZooError, match="fills the context of 24"):
        model.generate(["the quick brown fox jumps"])
    assert len(model.generate(["the quick brown fox jumps"], max_new_tokens=1, seed=0)[0].tokens) <= 1


def test_beam_search_through_the_model():
    model = text_model()
    found = model.generate(["the", "a quick"], beams=3, max_new_tokens=6)
    greedy = model.generate(["the", "a quick"], beams=1, max_new_tokens=6, temperature=0)
    assert all(b.finish_reason for b in found)
    for b, g in zip(found, greedy, strict=True):
        n = [len(c.tokens) + (c.finish_reason == "eos") for c in (b, g)]
        assert b.log_prob / n[0] >= g.log_prob / n[1] - 1e-4
    alone = model.generate(["the"], beams=3, max_new_tokens=6, temperature=1.0, top_k=0)[0]  # options as by default
    assert (alone.tokens, alone.finish_reason) == (found[0].tokens, found[0].finish_reason)
    assert alone.log_prob == pytest.approx(found[0].log_prob, abs=1e-4)  # found beside another, in a batch
    with pytest.raises(ZooError, match="Leave out top_k"):
        model.generate(["the"], beams=3, top_k=5)


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(ZooError, match="model=image_gpt"):
        LanguageModel(DataSpec(Image(1, 3, 3)))
    with pytest.raises(ZooError, match="learns tokens data"):
        LanguageModel(DataSpec(Vector(2)))
    with pytest.raises(ZooError, match="document_mask=true"):
        LanguageModel(DataSpec(Tokens(8, 5)), backbone="lstm", document_mask=True)
    with pytest.raises(ZooError, match="backbone=attention_lstm: without prefill"):
        LanguageModel(DataSpec(Tokens(8, 5)), backbone="attention_lstm")
    model, long = text_model(), torch.zeros(1, 25, dtype=torch.long)
    with pytest.raises(ZooError, match="longer than the context"):
        model.loss(Batch(long, long))
    with pytest.raises(ZooError, match="unknown option"):
        text_model().generate(["a"], temprature=1.0)


def test_samples_are_shaped_seeded_and_without_dropout():
    model = text_model(dropout=0.9).train()
    draws = [model.sample(6, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert draws[0].shape == (6, 24)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert model.net.training
    assert model.sample(0).shape == (0, 24)
    rows = text_model().sample(40, generator=torch.Generator().manual_seed(0))
    for row in rows.tolist():  # nothing after the end
        if (end := text_model().end) in row:
            assert set(row[row.index(end) :]) == {end}


# -- training and checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_checkpoint_holds_model_and_tokenizer(tmp_path, optimizer):
    (tmp_path / "a.txt").write_text(TEXT)
    data = Text(
        path=str(tmp_path), context=24, batch_size=4, tokenizer={"name": "bpe", "vocab_size": 280, "min_frequency": 1}
    )
    model = LanguageModel(data.spec, optimizer={"name": optimizer, "warmup": 2}, backbone=SMALL)
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(max_steps=6, enable_checkpointing=False, limit_val_batches=1, **quiet)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again, model = load(tmp_path / "last.ckpt"), model.eval()
    x = torch.randint(0, 270, (3, 24))
    with torch.no_grad():
        assert torch.equal(again.log_prob(x), model.log_prob(x))
    assert again.generate(["the"], max_new_tokens=20, seed=0) == model.generate(["the"], max_new_tokens=20, seed=0)
    assert again.tokenizer.decode(again.tokenizer.encode("naïve €")) == "naïve €"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2_medium", 354_823_168),
        ("gpt2_large", 774_030_080),
        ("gpt2_xl", 1_557_611_200),
    ],
)
def test_gpt2_has_its_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        model = zoo.create_model(name, data=zoo.DataSpec(Tokens(1024, 50_257)))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_packed_texts_do_not_see_each_other_where_document_mask_is_set():
    spec = zoo.DataSpec(Tokens(8, 5))
    model = zoo.create_model("gpt", data=spec, document_mask=True, backbone={"d_model": 16})
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    x = torch.tensor([[4, 1, 2, 4, 3, 1, 0, 2]])
    y = torch.tensor([[1, 2, 4, 3, 1, 0, 2, 4]])
    with torch.no_grad():
        whole = model.token_nll(Batch(x, y))[0]
        parts = [model.token_nll(Batch(x[:, a:b], y[:, a:b]))[0] for a, b in ((0, 3), (3, 8))]
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-5)


# -- recurrent backbones, whose state has no context to fill ----------------------------------------------------


def recurrent(name="lstm", tokenizer=None, context=24):
    tokenizer = tokenizer or Char().fit([TEXT])
    spec = zoo.DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="t")
    torch.manual_seed(0)
    made = LanguageModel(spec, backbone={"name": name, **RECURRENT})
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.4)
    return made.eval()


def test_recurrent_loss_is_nats_per_scored_token():
    one = recurrent()
    x, y = torch.randint(0, 20, (2, 2, 24))
    y[0, 5:] = -100
    log_p = one.net(x).log_softmax(-1)
    want = -sum(log_p[b, t, y[b, t]].item() for b in range(2) for t in range(24) if y[b, t] >= 0) / 29
    assert one.loss(Batch(x, y))["loss"].item() == pytest.approx(want, rel=1e-5)


def test_a_long_text_is_scored_as_a_whole():
    one, x = recurrent(), torch.randint(0, 20, (2, 100))  # four windows
    read = torch.cat([torch.full((2, 1), one.end), x[:, :-1]], 1)
    with torch.no_grad():
        want = one.net(read).log_softmax(-1).gather(2, x[..., None]).sum((1, 2))
        torch.testing.assert_close(one.log_prob(x), want)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "mamba2"])
def test_prompts_of_unequal_length_are_continued_by_a_state_as_alone(cell):
    one = recurrent(cell, BPE(min_frequency=1, vocab_size=280).fit([TEXT]))
    prompts = ["", "the quick brown fox", "dog"]
    many = one.generate(prompts, max_new_tokens=60, temperature=0)
    for prompt, done in zip(prompts, many, strict=True):
        alone = one.generate([prompt], max_new_tokens=60, temperature=0)[0]
        assert (alone.tokens, alone.finish_reason) == (done.tokens, done.finish_reason)
        assert alone.log_prob == pytest.approx(done.log_prob, abs=1e-3)


def test_greedy_equals_the_full_pass_far_beyond_the_window():
    one = recurrent()
    row = [one.end, *one.tokenizer.encode("the fox")]
    n = len(row)
    with torch.no_grad():
        for _ in range(80):
            row.append(one.net(torch.tensor([row]))[0, -1].argmax().item())
    written = row[n:]
    want = written[: written.index(one.end)] if one.end in written else written
    assert one.generate(["the fox"], max_new_tokens=80, temperature=0)[0].tokens == want


@pytest.mark.parametrize("how", ["generate", "stream", "beams", "sample"])
def test_a_negative_number_of_tokens_is_an_error(how) -> None:
    model = text_model()
    calls = {
        "generate": lambda n: model.generate("a", max_new_tokens=n, seed=0),
        "stream": lambda n: list(model.stream("a", max_new_tokens=n, seed=0)),
        "beams": lambda n: model.generate("a", max_new_tokens=n, beams=2),
        "sample": lambda n: model.sample(1, max_new_tokens=n),
    }
    with pytest.raises(ZooError, match="max_new_tokens=-2: must be at least 0"):
        calls[how](-2)
    calls[how](2)


def test_without_a_limit_a_text_fills_the_window_of_the_data_and_says_so():
    one = recurrent()
    for done in one.generate(["fox"] * 3, seed=1):
        assert done.finish_reason == "eos" or (done.finish_reason, len(done.tokens)) == ("length", 24 - 4)
    with pytest.raises(zoo.ZooError, match="fills the context of 24"):
        one.generate(["the quick brown fox jumps"])
    assert one.sample(3).shape == (3, 24)


def test_muon_takes_the_matrices_of_the_cells():
    one = recurrent()
    one.__class__ = type("Alone", (LanguageModel,), {"total_steps": 10, "registered_name": "language_model"})
    groups = one.configure_optimizers()["optimizer"].param_groups
    assert sorted(len(g["params"]) for g in groups if g["muon"]) == [4]
    assert sum(len(g["params"]) for g in groups) == len(list(one.parameters()))


def test_abilities_are_those_of_the_backbone():
    assert {"attention", "export", "generate"} <= set(text_model().abilities)
    assert not {"attention", "export"} & set(recurrent().abilities)
    assert "generate" in recurrent().abilities
