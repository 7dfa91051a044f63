"""GPT over text and pixels: exact densities, units, writing, saving."""

import itertools
import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Tokens, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.data.text.plain import Text
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.byte import Byte
from zoo.data.text.tokenizers.char import Char
from zoo.interop.loading import load
from zoo.models.abilities import SupportsLogProb, SupportsTextGeneration, supports
from zoo.models.autoregressive.gpt import GPT

SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2}
TEXT = "the quick brown fox jumps over the lazy dog\n" * 40


def shaken(model, std=0.4):
    """Random weights everywhere: at initialisation the branches are zero."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=std)
    return model.eval()


def text_model(tokenizer=None, context=24, **settings):
    tokenizer = tokenizer or Char().fit([TEXT])
    spec = DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="t")
    return shaken(GPT(spec, **{**SMALL, **settings}))


def pixel_model(shape=(1, 3, 3), levels=2, n_classes=0, **settings):
    return shaken(
        GPT(DataSpec(Image(*shape, levels=levels), Label(n_classes) if n_classes else None), **{**SMALL, **settings})
    )


def all_pictures():
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).reshape(512, 1, 3, 3)


# -- densities --------------------------------------------------------------------------------------------------------


def test_density_of_all_pictures_sums_to_one_with_and_without_classes():
    x = all_pictures().double()
    with torch.no_grad():
        log_p = pixel_model().double().log_prob(x)
        assert log_p.std() > 0.5
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
        model = pixel_model(n_classes=3, conditional=True).double()
        each = torch.stack([model.log_prob(x, torch.full((512,), k)) for k in range(3)])
        assert torch.allclose(each.exp().sum(1), torch.ones(3).double(), atol=1e-6)
        assert not torch.allclose(each[0], each[1])
        assert torch.allclose(model.log_prob(x).exp(), each.exp().mean(0))


def test_pictures_are_drawn_from_the_density():
    model, n = pixel_model(), 20_000
    x = all_pictures()
    with torch.no_grad():
        p = model.log_prob(x).exp()
    drawn = model.sample(n, generator=torch.Generator().manual_seed(0)).flatten(1).long()
    counts = torch.bincount(drawn @ (2 ** torch.arange(8, -1, -1)), minlength=512)
    likely = n * p > 5
    rest, expected = counts[~likely].sum(), n * p[~likely].sum()
    chi2 = ((counts - n * p)[likely].square() / (n * p[likely])).sum() + (rest - expected).square() / expected
    freedom = int(likely.sum())
    assert chi2 < freedom + 3.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 2, 5)])
def test_each_pixel_depends_on_earlier_ones_alone(shape):
    model = pixel_model(shape, levels=4)
    dim = math.prod(shape)
    x = torch.randint(0, 4, (1, *shape)) / 3
    seen = []
    model.net.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        model.log_prob(x)
        order = [(c, h, w) for h in range(shape[1]) for w in range(shape[2]) for c in range(shape[0])]
        for place, (c, h, w) in enumerate(order):
            changed = x.clone()
            changed[0, c, h, w] = (changed[0, c, h, w] * 3 + 1) % 4 / 3
            model.log_prob(changed)
            assert torch.equal(seen[0][:, : place + 1], seen[-1][:, : place + 1])  # its own logits included
            if place + 1 < dim:
                assert not torch.equal(seen[0][:, place + 1 :], seen[-1][:, place + 1 :])


def test_pixels_become_tokens_and_come_back():
    model = pixel_model((3, 2, 4), levels=256)
    x = torch.randint(0, 256, (5, 3, 2, 4)) / 255
    tokens = model.tokens(x)
    assert torch.equal(model.images(tokens), x)
    assert tokens[0, :4].tolist() == (x[0, [0, 1, 2, 0], 0, [0, 0, 0, 1]] * 255).round().long().tolist()


def test_units_of_pictures_are_nats_per_image():
    model = GPT(DataSpec(Image(1, 28, 28, levels=2)), tie_weights=False, **SMALL)  # a head of zeros: logits are 0
    x = torch.randint(0, 2, (4, 1, 28, 28)).float()
    loss = model.loss(Batch(x, torch.zeros(4, dtype=torch.long)))
    assert loss["loss"].item() == pytest.approx(784 * math.log(2), rel=1e-6)
    assert loss["bits_per_dim"].item() == pytest.approx(1, rel=1e-6)
    assert torch.allclose(model.log_prob(x), torch.full((4,), -784 * math.log(2)))


def test_doubling_a_batch_leaves_the_loss():
    model, text = pixel_model(levels=4), text_model()
    x = torch.randint(0, 4, (3, 1, 3, 3)) / 3
    y = torch.zeros(3, dtype=torch.long)
    once, twice = model.loss(Batch(x, y)), model.loss(Batch(x.repeat(2, 1, 1, 1), y.repeat(2)))
    assert torch.allclose(once["loss"], twice["loss"])
    assert torch.allclose(once["loss"], -model.log_prob(x, y).mean())
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
    data = Text(root=str(tmp_path), context=24, batch_size=4, tokenizer={"name": "bpe", "vocab_size": 300})
    data.setup()
    model = shaken(GPT(data.spec, **SMALL), 0.2)
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
    model = GPT(
        spec,
        d_model=32,
        n_layers=2,
        n_heads=2,
        optimizer=optimizer,
        muon_lr=0.05,
        lr=1e-2,
        schedule="linear",
    )
    x = torch.randint(0, 20, (4, 17))
    x[:, 0] = torch.arange(4)  # what begins alike cannot be told apart
    model._trainer = None
    model.__class__ = type("Alone", (GPT,), {"total_steps": 200, "registered_name": "gpt"})
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
    model = text_model(BPE(vocab_size=280).fit([TEXT]))
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
    for done in model.generate(["fox"] * 3, seed=1):  # None: the rest of the context, and it says so
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
    with pytest.raises(ZooError, match="leave out top_k"):
        model.generate(["the"], beams=3, top_k=5)


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(ZooError, match="not text"):
        pixel_model().generate(["a"])
    with pytest.raises(ZooError, match="takes no condition"):
        pixel_model().sample(2, condition=torch.tensor([0, 1]))
    with pytest.raises(ZooError, match="needs data with classes"):
        pixel_model(conditional=True)
    with pytest.raises(ZooError, match="learns tokens or image data"):
        GPT(DataSpec(Vector(2)))
    model, long = text_model(), torch.zeros(1, 25, dtype=torch.long)
    with pytest.raises(ZooError, match="longer than the context"):
        model.loss(Batch(long, long))
    with pytest.raises(ZooError, match="unknown option"):
        text_model().generate(["a"], temprature=1.0)


def test_samples_are_shaped_seeded_and_without_dropout():
    for model, shape in [
        (pixel_model((3, 4, 2), levels=5), (3, 4, 2)),
        (pixel_model((1, 3, 3), n_classes=4, conditional=True), (1, 3, 3)),
        (text_model(dropout=0.9), (24,)),
    ]:
        model.train()
        draws = [model.sample(6, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
        assert draws[0].shape == (6, *shape)
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])
        assert model.net.training
        assert model.sample(0).shape == (0, *shape)
    rows = text_model().sample(40, generator=torch.Generator().manual_seed(0))
    for row in rows.tolist():  # nothing after the end
        if (end := text_model().end) in row:
            assert set(row[row.index(end) :]) == {end}


def test_classes_steer_samples():
    model = pixel_model(n_classes=2, conditional=True)
    with torch.no_grad():
        model.net.head = None
        model.net.embedding.weight[2:] *= 20
    a, b = (model.sample(300, condition=torch.full((300,), k)).mean(0) for k in (0, 1))
    assert (a - b).abs().max() > 0.2


# -- training and checkpoints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_checkpoint_holds_model_and_tokenizer(tmp_path, optimizer):
    (tmp_path / "a.txt").write_text(TEXT)
    data = Text(root=str(tmp_path), context=24, batch_size=4, tokenizer={"name": "bpe", "vocab_size": 280})
    model = GPT(data.spec, optimizer=optimizer, warmup=2, **SMALL)
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


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resume_is_bit_equal(tmp_path, optimizer):
    def fit(steps, stop=None, resume=None):
        torch.manual_seed(0)
        data = Digits(batch_size=8)
        model = GPT(data.spec, optimizer=optimizer, schedule="cosine", warmup=2, **SMALL)
        model.__class__ = type("Fixed", (GPT,), {"total_steps": 10, "registered_name": "gpt"})
        trainer = L.Trainer(
            max_steps=steps,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data, ckpt_path=resume, weights_only=True if resume else None)
        if stop:
            trainer.save_checkpoint(stop)
        return model

    straight = fit(10)
    fit(5, stop=tmp_path / "five.ckpt")
    resumed = fit(10, resume=tmp_path / "five.ckpt")
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_sixteen_digits_are_learned_by_heart():
    torch.manual_seed(0)
    data = Digits()
    data.setup()
    x, y = data.train[0][:16], data.train[1][:16]
    model = GPT(data.spec, d_model=64, n_layers=2, n_heads=4, optimizer="adamw", lr=3e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model.loss(Batch(x, y))["loss"].item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(Batch(x, y))["loss"]
        loss.backward()
        optimizer.step()
    assert loss < first / 4


@pytest.mark.parametrize(("shape", "levels", "patch"), [((1, 4, 6), 2, (2, 2)), ((3, 4, 4), 3, (1, 2))])
def test_patches_are_a_change_of_alphabet(shape: tuple[int, ...], levels: int, patch: tuple[int, int]) -> None:
    spec = DataSpec(Image(*shape, levels=levels), name="tiny")
    model = GPT(spec, d_model=16, n_layers=1, n_heads=2, patch=patch, tie_weights=False)
    x = torch.randint(levels, (7, *shape)) / (levels - 1)
    tokens = model.tokens(x)
    assert tokens.shape == (7, spec.size // (patch[0] * patch[1]))
    assert tokens.max() < model.n_tokens == levels ** (patch[0] * patch[1])
    assert torch.equal(model.images(tokens), x)
    assert model.sample(3).shape == (3, *shape)
    # A head of its own begins at zero: all tokens equally likely, an image costs what independent pixels do.
    torch.testing.assert_close(-model.log_prob(x), torch.full((7,), spec.size * math.log(levels)))


def test_probabilities_of_all_images_sum_to_one_whatever_the_patch() -> None:
    spec = DataSpec(Image(1, 2, 4, levels=2), name="tiny")
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).view(-1, 1, 2, 4)
    for patch in ((1, 1), (2, 1), (2, 2), (2, 4)):
        model = GPT(spec, d_model=16, n_layers=1, n_heads=2, patch=patch)
        shaken(model, 0.5)
        assert float(model.log_prob(every).logsumexp(0)) == pytest.approx(0.0, abs=1e-4), patch


@pytest.mark.parametrize(("levels", "patch"), [(2, (3, 1)), (2, (2, 5)), (17, (2, 4))])
def test_a_patch_that_does_not_fit_is_refused(levels: int, patch: tuple[int, int]) -> None:
    with pytest.raises(ZooError, match="patch"):
        GPT(DataSpec(Image(1, 8, 8, levels=levels)), d_model=16, n_layers=1, n_heads=2, patch=patch)


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
        model = zoo.create_model(name, data=zoo.DataSpec(Tokens(1024, 50257)))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_packed_texts_do_not_see_each_other_where_documents_is_set():
    model = zoo.create_model("gpt", data=zoo.DataSpec(Tokens(8, 5)), documents=True, d_model=16)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    x = torch.tensor([[4, 1, 2, 4, 3, 1, 0, 2]])
    y = torch.tensor([[1, 2, 4, 3, 1, 0, 2, 4]])
    with torch.no_grad():
        whole = model.nats(Batch(x, y))[0]
        parts = [model.nats(Batch(x[:, a:b], y[:, a:b]))[0] for a, b in ((0, 3), (3, 8))]
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-5)
