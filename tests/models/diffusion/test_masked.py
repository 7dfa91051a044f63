"""Masked diffusion: bound and samples against the chain rule over all orders, infilling, images and exports."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError, DataError, ZooError
from zoo.core.spaces import Image, Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.char import Char
from zoo.evaluation.suites.likelihood import text_likelihood
from zoo.interop.export.formats import load_pt2, to_pt2
from zoo.models.diffusion.discrete import SEED
from zoo.models.diffusion.masked import MaskedDiffusion

NETWORK = {"name": "transformer_encoder", "d_model": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.0}
LETTERS = Char().fit(["abcde "])
TEXT = DataSpec(Tokens(8, LETTERS.vocab_size, dumps(LETTERS)), name="letters")
TINY = DataSpec(Tokens(3, 3), name="tiny")
PIXELS = DataSpec(Image(1, 2, 4, levels=2), Label(3), name="pixels")


def make(spec, double=False, **settings):
    torch.manual_seed(0)
    model = MaskedDiffusion(spec, backbone=NETWORK, **settings)
    for p in model.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.4)
    return (model.double() if double else model).eval()


def every_tiny_text():
    """The 27 texts after token 0: inputs, targets."""
    y = torch.tensor(list(itertools.product(range(3), repeat=3)))
    return torch.cat([torch.zeros(27, 1, dtype=torch.long), y[:, :-1]], 1), y


def chains(model, x, y):
    """Log-probabilities of each order's chain rule, (6, 27)."""
    orders = [torch.tensor(order) for order in itertools.permutations(range(3))]
    return torch.stack([model.ordered_log_prob(x, y, order) for order in orders])


# -- likelihood ----------------------------------------------------------------------------------------------


def test_the_chain_rule_sums_to_one_in_every_order_and_the_bound_is_its_mean():
    model = make(TINY, double=True)
    x, y = every_tiny_text()
    each = chains(model, x, y)
    assert torch.allclose(each.exp().sum(1), torch.ones(6).double(), atol=1e-10)
    many = (part.repeat(400, 1) for part in (x, y))
    draws = model.bound(*many, draws=3).sum(1).view(400, 27)  # every number of masks each time
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) + each.mean(0)).abs() < 5 * error + 1e-9).all()
    assert (draws.mean(0) + 5 * error > -(each.exp().mean(0).log())).all(), "a bound on the sampler's -log p"
    assert ((draws.mean(0) + each[0]).abs() > 5 * error).any(), "not of one order alone"


def test_the_bound_is_the_objective_of_an_orderless_nade():
    """All sets of hidden tokens, against equation 9 of Uria et al. 2014 (arXiv:1310.1757), over all orders and places.

    The mixture over orders is a distribution too, and its likelihood is never smaller.
    """
    model = make(TINY, double=True)
    x, y = every_tiny_text()
    tokens, _ = model.rows(x, y)
    nats = {}  # of every token, given those that are not hidden: (27, 3)
    for hidden in itertools.product([False, True], repeat=3):
        read = tokens.clone()
        read[:, 1:] = read[:, 1:].masked_fill(torch.tensor(hidden), model.mask_token)
        logits = model.logits(read).log_softmax(-1).detach()
        nats[hidden] = -logits.gather(2, y[..., None])[..., 0]
    bound, bare, count = torch.zeros(27).double(), torch.zeros(27).double(), 3
    for hidden, each in nats.items():
        if m := sum(hidden):
            found = (each * torch.tensor(hidden)).sum(1) / math.comb(count, m)
            bound, bare = bound + found / m, bare + found / count
    orders = list(itertools.permutations(range(count)))
    nade = torch.zeros(27).double()
    for order in orders:
        for d in range(count):  # d tokens are given, and the loss of the others is scaled by D / (D - d)
            hidden = tuple(place not in order[:d] for place in range(count))
            rest = (nats[hidden] * torch.tensor(hidden)).sum(1)
            nade += count / (count - d) * rest / count / len(orders)
    each = chains(model, x, y)
    torch.testing.assert_close(bound, nade, rtol=0, atol=1e-12)
    torch.testing.assert_close(bound, -each.mean(0), rtol=0, atol=1e-12)
    assert (bare - nade).abs().max() > 0.1, "negative control: without the weight of each number of hidden tokens"
    mixture = each.exp().mean(0)
    assert float(mixture.sum()) == pytest.approx(1, abs=1e-10)
    assert (mixture.log() >= -bound - 1e-12).all()
    assert (mixture.log() + bound).max() > 1e-3, "orders differ"


def test_samples_have_the_law_of_the_orders():
    model = make(TINY)
    x, y = every_tiny_text()
    x[:, 0] = model.begin
    law = chains(model, x, y).exp().mean(0)
    params = {"sampler": "any_order", "steps": 3, "generator": torch.Generator().manual_seed(0)}
    tokens = model.sample(4000, **params)
    ended = (y == model.ends[0]).cumsum(1) > 0  # texts are cut at their end, so laws of equal beginnings are summed
    shown = y.masked_fill(ended, model.ends[0])
    merged = torch.zeros(27).index_add(0, (shown * torch.tensor([9, 3, 1])).sum(1), law.float())
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    assert (counts[merged == 0] == 0).all()
    expected = 4000 * merged[merged > 0]
    assert ((counts[merged > 0] - expected).square() / expected).sum() < 45  # 14 degrees of freedom: p = 4e-5


def test_padding_and_prompts_are_not_scored():
    model = make(TEXT)
    x = torch.randint(0, 5, (4, 8))
    y = x.roll(-1, 1)
    y[:, 5:] = -100  # after the end
    y[:, :2] = -100  # a prompt
    tokens, scored = model.rows(x, y)
    assert torch.equal(scored, torch.tensor([False] * 2 + [True] * 3 + [False] * 3).expand(4, -1))
    assert torch.equal(tokens[:, :3], x[:, :3])
    assert torch.equal(tokens[:, 3:6], y[:, 2:5])
    assert (tokens[:, 6:] == model.mask_token).all()
    nats, target = model.token_nll(Batch(x, y))
    assert (nats[target < 0] == 0).all()
    assert (nats.sum(1) > 0).all()
    torch.manual_seed(1)
    one = model.bound(x, y)
    x[:, 6:] = 0  # what padding contains has no influence
    torch.manual_seed(1)
    assert torch.equal(one, model.bound(x, y))


def test_hidden_tokens_are_not_read():
    """The gradient of the loss with respect to the network's input comes from visible tokens and masks alone."""
    model = make(TEXT)
    x = torch.randint(0, 5, (2, 8))
    seen = []
    model.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    tokens, scored = model.rows(x, x)
    model.noisy_nats(tokens, scored, torch.tensor([0.99, 0.4]), torch.Generator().manual_seed(0))
    assert (seen[0][:, 1:] == model.mask_token).sum(1).tolist() == [8, 4]
    assert torch.equal(seen[0][:, 0], x[:, 0])


def test_validation_is_the_bound_whatever_the_masking():
    model = make(TEXT, masking="cosine")
    tokens, scored = model.rows(*2 * [torch.randint(0, 5, (1, 8))])
    seen = []
    model.net.register_forward_pre_hook(lambda _, args: seen.append((args[0] == model.mask_token).sum().item()))
    for training in (False, True):
        model.train(training)
        model.noisy_nats(tokens, scored, torch.tensor([0.5]), None)
    assert seen == [5, math.ceil(8 * math.cos(math.pi / 4))]


@pytest.mark.parametrize("name", ["masked_diffusion", "d3pm"])
def test_the_loss_is_logged_by_quarters_of_the_noise(name, monkeypatch):
    """Its parts are those of equal noise levels, and their mean over samples is the loss."""
    model = zoo.create_model(name, data=PIXELS, backbone=NETWORK).eval()
    logged = {}
    model.log_epoch_mean = lambda values, n: logged.update({k: (float(v), n) for k, v in values.items()})
    batch = Batch(torch.randint(2, (24, *PIXELS.shape)).float(), torch.zeros(24, dtype=torch.long))
    model.validation_step(batch, 0)
    parts = [logged[f"val/loss_noise_{index}_of_4"] for index in (1, 2, 3, 4)]
    assert [n for _, n in parts] == [6, 6, 6, 6], "stratified"
    assert sum(value * n for value, n in parts) / 24 == pytest.approx(logged["val/loss"][0], rel=1e-5)
    assert model.charts()["loss by noise level"] == [f"val/loss_noise_{index}_of_4" for index in (1, 2, 3, 4)]
    only_level = lambda tokens, scored, u, generator: 2 * [u[:, None] / scored.sum(1, keepdim=True) * scored]  # noqa: E731
    monkeypatch.setattr(model, "noisy_nats", only_level)
    model.validation_step(batch, 0)
    levels = [logged[f"val/loss_noise_{index}_of_4"][0] for index in (1, 2, 3, 4)]
    assert all(index / 4 <= value < (index + 1) / 4 for index, value in enumerate(levels)), "in the order of the noise"


def test_metrics_of_a_bound_are_named_so():
    x = torch.randint(0, 5, (3, 8))
    names = {}
    for name, model in (("bound", make(TEXT)), ("exact", zoo.create_model("gpt", data=TEXT))):
        data = SimpleNamespace(prompted=False)
        protocol = SimpleNamespace(split="test")
        context = SimpleNamespace(model=model, data=data, protocol=protocol, batches=lambda _: [Batch(x, x)])
        with torch.no_grad():
            names[name] = list(text_likelihood(context))
    assert names["exact"][0] == "nats_per_char8@all_test_blocks8"
    assert names["bound"] == [name.replace("@", "_bound@") for name in names["exact"]]


# -- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ancestral", "any_order", "remasking", "confidence"])
def test_masks_are_filled_anywhere_and_the_rest_stays(sampler):
    model = make(TEXT)
    texts = ["[MASK]b[MASK]d", "abc", "[MASK]" * 8, "a[MASK]"]
    filled = model.fill(texts, seed=0, sampler=sampler, steps=5)
    assert filled[1] == "abc"
    assert filled[0][-1] == "d"
    assert filled[3].startswith("a")
    assert not any("MASK" in text for text in filled)
    assert filled == model.fill(texts, seed=0, sampler=sampler, steps=5)
    assert filled[0] == model.fill(texts[:1], seed=0, sampler=sampler, steps=5)[0]
    with pytest.raises(ZooError, match="longer than the context of 9"):
        model.fill("[MASK]" * 9)


def test_one_mask_has_the_law_of_the_model_with_the_rest_unknown():
    """Positions after the text stay masked, which is a marginal over its continuations."""
    model = make(TEXT)
    rows = torch.full((1, 9), model.mask_token)
    rows[0, :4] = torch.tensor([model.begin, 0, model.mask_token, 1])
    p = model.logits(rows)[0, 1].softmax(-1)
    tokens = rows[:, :4].expand(4000, -1)
    sampler, params = model.choose_sampler(None, None), model.sampling_params({})
    drawn, nats = model.fill_rows(tokens, sampler, params, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, [0, 1, 3]], tokens[:, [0, 1, 3]])
    counts = torch.bincount(drawn[:, 2], minlength=len(p))
    assert ((counts - 4000 * p).square() / (4000 * p)).sum() < 30  # 6 degrees of freedom: p = 4e-5
    assert torch.allclose(nats.float(), p.log()[drawn[:, 2]], atol=1e-4)


def test_texts_are_continued():
    model = make(TEXT)
    done = model.generate(["ab", ""], max_new_tokens=4, seed=1, temperature=0.9)
    assert [len(text.tokens) <= 4 for text in done] == [True, True]
    assert all(text.finish_reason in ("length", "eos") for text in done)
    assert done[0].log_prob < 0
    assert done[0].text == model.generate("ab", max_new_tokens=4, seed=1, temperature=0.9)[0].text
    with pytest.raises(ZooError, match="beam search"):
        model.generate("a", beams=2)


# -- images --------------------------------------------------------------------------------------------------


def test_labels_guide_images():
    model = make(PIXELS, label_dropout=0.5)
    assert model.conditional
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0, 1, 2, 2])
    x = model.sample(4, condition=y, generator=generator)
    assert x.shape == (4, 1, 2, 4)
    assert set(x.flatten().tolist()) <= {0.0, 1.0}
    tokens, _ = model.rows(x, y)
    given, free = model.logits(tokens), model.logits(torch.cat([torch.full((4, 1), model.none), tokens[:, 1:]], 1))
    assert torch.equal(model.guided(model.logits, tokens, 1.0), given)
    assert torch.allclose(model.guided(model.logits, tokens, 3.0), free + 3 * (given - free))
    assert torch.allclose(model.guided(model.logits, tokens, 0.0), free)
    assert torch.equal(model.train().dropped(tokens[:, 0]) == model.none, torch.tensor([True, False, True, False]))
    with pytest.raises(ZooError, match="y=None"):
        model.bound(x)
    with pytest.raises(ConfigError, match="guidance=2"):
        make(DataSpec(Image(1, 2, 4, levels=2)), guidance=2.0)


def test_pixels_are_drawn_given_the_others():
    """Each new pixel has the law of the network given the known ones: one hidden pixel, by frequencies."""
    model, n = make(PIXELS), 4000
    x = (torch.rand(1, 1, 2, 4, generator=torch.Generator().manual_seed(4)) > 0.5).float()
    mask = torch.zeros(1, 1, 2, 4, dtype=torch.bool)
    mask[..., 0, 0] = True
    for condition, first in ((None, model.none), (torch.full((n,), 2), model.n_tokens + 1 + 2)):
        found = model.inpaint(x.expand(n, -1, -1, -1), mask, condition=condition, generator=make_generator(0))
        assert torch.equal(found[~mask.expand_as(found)], x.expand(n, -1, -1, -1)[~mask.expand_as(found)])
        rows = torch.cat([torch.tensor([[first]]), model.pixels.encode(x)], 1)
        rows[0, 1] = model.mask_token
        p = model.logits(rows)[0, 0].softmax(-1)[1].item()
        share = found[:, 0, 0, 0].mean().item()
        assert abs(share - p) < 4 * (p * (1 - p) / n) ** 0.5
        elsewhere = model.inpaint(1 - x.expand(n, -1, -1, -1), mask, condition=condition, generator=make_generator(0))
        assert abs(elsewhere[:, 0, 0, 0].mean().item() - p) > 8 * (p * (1 - p) / n) ** 0.5  # other pixels, another law


def test_all_pixels_are_drawn_as_a_sample():
    model = make(DataSpec(PIXELS.x, name="pixels"))
    everything = torch.ones(1, 1, 2, 4, dtype=torch.bool)
    x, free = torch.zeros(6, 1, 2, 4), model.sample(6, generator=make_generator(1))
    assert torch.equal(model.inpaint(x, everything, generator=make_generator(1)), free)
    assert torch.equal(model.inpaint(x, ~everything, generator=make_generator(1)), x)
    with pytest.raises(DataError, match=r"mask=.* not for x"):
        model.inpaint(x, everything[..., :3])
    with pytest.raises(DataError, match=r"6, 1, 2, 3"):
        model.inpaint(x[..., :3], everything[..., :3])
    with pytest.raises(ConfigError, match="guidance=2"):
        make(PIXELS).inpaint(x, everything, guidance=2.0)
    assert "inpaint" not in make(TEXT).abilities
    assert "inpaint" not in make(PIXELS, patch=(1, 2)).abilities


def test_patches_are_tokens_of_all_their_pixels():
    """The probabilities of all images sum to one by the chain rule, whatever the patch."""
    spec = DataSpec(Image(1, 2, 4, levels=2))
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).view(-1, 1, 2, 4)
    for patch, length in (((1, 1), 8), ((2, 2), 2), ((1, 4), 2)):
        model = make(spec, double=True, patch=patch)
        assert model.length == length
        assert torch.equal(model.data(model.rows(x, None)[0]), x)
        order = torch.randperm(length)
        assert float(model.ordered_log_prob(x, order=order).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_images_are_shown_while_they_are_filled():
    model = make(PIXELS, sampler={"name": "any_order", "steps": 8})
    strip, by_steps = model.visuals(Batch(torch.zeros(1), torch.zeros(1)))
    assert by_steps.name == "samples_by_steps"
    counts = [steps for steps in (1, 2, 4, 8, 16) if steps <= 8]
    assert by_steps.tensor.shape == (8 * len(counts), *PIXELS.shape)
    for row, steps in zip(by_steps.tensor.split(8), counts, strict=True):
        given = {"condition": torch.arange(8) % 3, "generator": torch.Generator().manual_seed(SEED)}
        assert torch.equal(row, model.sample(8, steps=steps, **given)), steps
    rows = strip.tensor.unflatten(0, (8, 8)).flatten(2)
    grey = (rows == 0.5).sum(2)
    assert (grey[:, 0] == 8).all()
    assert (grey[:, -1] == 0).all()
    assert (grey.diff() <= 0).all()


# -- settings and exports ------------------------------------------------------------------------------------


def test_samplers_of_continuous_data_are_refused():
    with pytest.raises(ConfigError, match=r"sampler=heun: without unmask\(\)"):
        make(TINY, sampler="heun")
    with pytest.raises(ConfigError, match=r"samples other data\. Choose ancestral"):
        make(TINY).sample(1, sampler="heun")
    with pytest.raises(ZooError, match="without features"):
        MaskedDiffusion(TINY, backbone="transformer")


@pytest.mark.parametrize(("spec", "sampler"), [(PIXELS, "ancestral"), (TEXT, "any_order")], ids=["image", "text"])
def test_an_exported_sampler_gives_the_same_samples(spec, sampler, tmp_path):
    """For any number of samples, from a file."""
    model = make(spec, sampler={"name": sampler, "steps": 3})
    core, file = model.export_module().eval(), tmp_path / "model.pt2"
    file.write_bytes(to_pt2(core, {}))
    program = load_pt2(file)
    for n in (1, 5):
        inputs = core.draw(n, torch.Generator().manual_seed(3))
        want = model.sample(n, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            assert torch.equal(core(*inputs), want)
            assert torch.equal(program(*inputs), want)
    other = (inputs[0].flip(1), inputs[1].flip(1), *inputs[2:])
    assert not torch.equal(core(*other), want)


def test_samplers_with_a_choice_at_each_step_are_not_exported():
    assert "export" in zoo.create_model("masked_diffusion", data=TINY).abilities
    assert "export" not in zoo.create_model("maskgit", data=TINY).abilities
