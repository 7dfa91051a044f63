"""The adversarial family: who learns when, on what noise, with which penalties; one clock; one average."""

import copy
import math

import pytest
import pytorch_lightning as L
import torch
from torch.nn.utils import parametrize

import zoo
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.adversarial.gan import GAN
from zoo.nn.distributions.normal import slerp, truncate
from zoo.nn.losses import gan
from zoo.nn.samplers.noise import normal

IMAGE = DataSpec(Image(1, 8, 8, levels=17), Label(3), name="tiny")
POINTS = DataSpec(Vector(2), Label(3), name="points")
SMALL = {"name": "mlp", "width": 16, "depth": 1}
RECIPES = ["gan", "dcgan", "lsgan", "sngan", "wgan_gp", "r3gan", "cgan"]


ADAM = {"name": "adam", "lr": 2e-4, "betas": (0.5, 0.99)}
CALM = {"name": "adam", "lr": 5e-3, "betas": (0.0, 0.99)}  # without momentum


def make(spec=IMAGE, **settings):
    small = {"latent_dim": 4, "feature_dim": 8, "generator": SMALL, "discriminator": SMALL, "optimizer": ADAM}
    return GAN(spec, **{**small, **settings})


def batches(n, size=16, spec=IMAGE):
    draw = torch.rand if isinstance(spec.x, Image) else torch.randn
    return [(draw(size, *spec.shape), torch.randint(spec.n_classes, (size,))) for _ in range(n)]


class Loader:
    """Ready batches; Lightning would take a bare list for several loaders."""

    def __init__(self, ready):
        self.ready = ready

    def __len__(self):
        return len(self.ready)

    def __iter__(self):
        return iter(self.ready)


def fit(model, data, steps=None, **options):
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(len(data)) if steps is None else steps,
        max_epochs=1 if steps == -1 else -1,
        accelerator="cpu",
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )
    trainer.fit(model, Loader(data))
    return trainer


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- the clock --


@pytest.mark.parametrize(("n_critic", "accumulate"), [(1, 1), (2, 1), (5, 1), (1, 3), (2, 2)])
def test_steps_of_each_player(n_critic, accumulate):
    model, data = make(n_critic=n_critic, accumulate=accumulate), batches(12)
    trainer = fit(model, data, steps=-1)
    opt_g, opt_d = trainer.optimizers
    taken = [int(next(iter(o.state.values()))["step"]) for o in (opt_g, opt_d)]
    d = 12 // accumulate
    assert taken == [d // n_critic, d]
    assert trainer.global_step == model.optimizer_steps(12) == d + d // n_critic
    assert model.generator_ema.seen == d // n_critic * n_critic * accumulate * 16


@pytest.mark.parametrize("n_critic", [1, 2, 5])
def test_training_ends_after_the_batches_that_were_asked_for(n_critic):
    model = make(n_critic=n_critic)
    fit(model, batches(20), steps=model.optimizer_steps(7))
    assert model.step + 1 == 7


@pytest.mark.parametrize("n_critic", [1, 2, 5])
def test_batches_undo_optimizer_steps(n_critic):
    model = make(n_critic=n_critic)
    assert [model.optimizer_steps_to_batches(model.optimizer_steps(b)) for b in range(30)] == list(range(30))


@pytest.mark.parametrize("steps", [15, -1])  # by optimizer steps or by epochs
def test_learning_rates_run_over_the_whole_training(steps):
    model = make(n_critic=2, optimizer={**ADAM, "schedule": "linear", "lr": 0.1}, discriminator_lr=0.2)
    trainer = fit(model, batches(10), steps=steps)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([0, 0], abs=1e-9)
    model = make(n_critic=2, optimizer={**ADAM, "schedule": "linear", "lr": 0.1}, discriminator_lr=0.2)

    class Half(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            if index == 4:
                self.rates = [o.param_groups[0]["lr"] for o in trainer.optimizers]

    half = Half()
    fit(model, batches(10), callbacks=[half])
    assert half.rates == pytest.approx([0.1 * 0.6, 0.2 * 0.5])  # after 2 steps of 2 batches, and 5 of one


# -- the game --


def test_each_optimizer_changes_its_own_player():
    model, log = make(n_critic=2), []
    advance = model.step_optimizer

    def watched(optimizer):
        before = weights(model.generator), weights(model.discriminator)
        advance(optimizer)
        log.append((same(before[0], weights(model.generator)), same(before[1], weights(model.discriminator))))

    model.step_optimizer = watched
    fit(model, batches(2))
    assert log == [(True, False), (True, False), (False, True)]


def test_the_discriminator_step_needs_nothing_of_the_generator():
    model = make(r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0)
    loss = model.discriminator_terms(batches(1)[0])["loss_d"]
    grads = torch.autograd.grad(loss, list(model.generator.parameters()), allow_unused=True)
    assert all(g is None for g in grads)


def test_the_players_see_different_noise():
    model, drawn = make(), []
    latents = model.latents

    def recorded(n):
        drawn.append(latents(n))
        return drawn[-1]

    model.latents = recorded
    fit(model, batches(1))
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("loss", gan.GAN_LOSSES)
def test_every_game_gives_every_parameter_a_finite_gradient(loss):
    model = make(loss=loss, r1_gamma=0.1, r2_gamma=0.1, gp_weight=0.1, conditional=True)
    terms = model.loss(batches(1)[0])
    (terms["loss_d"] + terms["loss_g"]).backward()
    for name, p in model.named_parameters():
        if p.requires_grad and name != "discriminator.head.bias":  # a paired game sees differences only
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_accumulated_batches_give_the_gradients_of_a_large_one(loss, monkeypatch):
    monkeypatch.setattr(gan, "interpolation_weights", lambda x: torch.full((len(x), 1, 1, 1), 0.3))
    pool = torch.randn(64, 4)  # 32 rows for the discriminator, then 32 for the generator
    (x, y) = batches(1, size=32)[0]
    found = []
    torch.manual_seed(1)
    start = make(loss=loss, r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0, conditional=True)
    for accumulate in (1, 4):
        model, rows, seen = (
            make(loss=loss, r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0, conditional=True, accumulate=accumulate),
            [0],
            [],
        )
        model.load_state_dict(start.state_dict())

        def latents(n, rows=rows):
            rows[0] += n
            return pool[rows[0] - n : rows[0]]

        model.latents = latents
        advance = model.step_optimizer

        def watched(optimizer, seen=seen, advance=advance):
            seen.append([p.grad.clone() for g in optimizer.param_groups for p in g["params"]])
            advance(optimizer)

        model.step_optimizer = watched
        fit(model, list(zip(x.split(32 // accumulate), y.split(32 // accumulate), strict=True)))
        found.append(seen)
    assert len(found[0]) == len(found[1]) == 2
    for large, small in zip(*found, strict=True):
        for a, b in zip(large, small, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_lazy_penalties_equal_eager_ones_on_average(monkeypatch):
    eager, lazy = make(r1_gamma=1.0), make(r1_gamma=1.0, lazy_reg_interval=4)
    lazy.load_state_dict(eager.state_dict())
    x, y = batches(1)[0]
    real, total = eager.to_model_range(x), 0.0
    for step in range(8):
        monkeypatch.setattr(GAN, "step", step)
        total += sum(float(v.detach()) for v in lazy.penalties(real, real, y).values())
    assert total / 8 == pytest.approx(float(eager.penalties(real, real, y)["r1"].detach()))


@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_batches_of_one_step_have_the_same_penalties(accumulate, every, monkeypatch):
    model = make(r1_gamma=1.0, lazy_reg_interval=every, accumulate=accumulate)
    x, y = batches(1)[0]
    found = []
    for step in range(4 * every * accumulate):
        monkeypatch.setattr(GAN, "step", step)
        found.append(bool(model.penalties(x, x, y)))
    steps = [found[i : i + accumulate] for i in range(0, len(found), accumulate)]
    assert [set(step) for step in steps] == [{(number + 1) % every == 0} for number in range(4 * every)]


def test_penalty_weights():
    """R1 and R2 of a critic D(x) = <a, x> are gamma / 2 ||a||^2 each."""
    model = make(POINTS, r1_gamma=3.0, r2_gamma=5.0, gp_weight=7.0)
    model.discriminator.forward = lambda x, y: x @ torch.tensor([3.0, 4.0])
    x, y = batches(1, spec=POINTS)[0]
    found = {k: float(v) for k, v in model.penalties(x, x, y).items()}
    assert found == pytest.approx({"r1": 1.5 * 25, "r2": 2.5 * 25, "gp": 7 * (5 - 1) ** 2})


def test_penalties_go_around_a_compiled_discriminator():
    model = make(r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0)
    x, y = batches(1)[0]
    plain = model.penalties(model.to_model_range(x), model.to_model_range(x), y)
    keys = list(model.state_dict())
    model.discriminator.compile(backend="aot_eager")
    assert list(model.state_dict()) == keys
    compiled = model.penalties(model.to_model_range(x), model.to_model_range(x), y)
    torch.testing.assert_close(compiled["r1"], plain["r1"])
    model.loss(Batch(x, y))["loss_d"].backward()
    with pytest.raises(RuntimeError, match="double backward"):  # the reason for the detour
        gan.r1_penalty(lambda v: model.discriminator(v, y), x).backward()


def test_gradients_are_clipped_for_each_player():
    model = make(clip=1e-3)
    norms = []
    advance = model.step_optimizer

    def watched(optimizer):
        inner = optimizer.optimizer
        step = inner.step

        def measured(*args, **kwargs):
            result = step(*args, **kwargs)
            grads = [p.grad.flatten() for g in inner.param_groups for p in g["params"]]
            norms.append(float(torch.cat(grads).norm()))
            return result

        inner.step = measured
        advance(optimizer)
        inner.step = step

    model.step_optimizer = watched
    fit(model, batches(1))
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-2)


def test_mixed_precision_trains():
    model = make(r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0, loss="relativistic")
    fit(model, batches(3), precision="bf16-mixed")
    assert all(p.isfinite().all() for p in model.parameters())


# -- labels --


def test_projection_of_zero_is_the_unconditional_discriminator():
    model = make(conditional=True)  # it starts there
    x, y = model.to_model_range(batches(1)[0][0]), torch.arange(16) % 3
    net = model.discriminator
    plain = net.head(torch.nn.functional.leaky_relu(net.network(x), 0.2)).squeeze(1)
    torch.testing.assert_close(net(x, y), plain)
    torch.nn.init.normal_(net.embed.weight)
    assert not torch.allclose(net(x, y), plain)


def test_a_condition_changes_the_samples_of_a_conditional_model_only():
    model = make(conditional=True)
    draws = [model.sample(3, condition=torch.full((3,), k), generator=seed(0)) for k in (0, 1)]
    assert not torch.allclose(*draws)
    assert model.conditional
    plain = make()
    assert not plain.conditional
    with pytest.raises(ZooError, match=r"condition: .* is unconditional.*model.conditional=true"):
        plain.sample(2, condition=torch.tensor([0, 1]))
    with pytest.raises(ZooError, match=r"model.conditional=true: .* has no class labels"):
        make(DataSpec(Vector(2), name="bare"), conditional=True)


def test_a_conditional_model_learns_what_labels_mean():
    """Three clusters, one for each label: almost every sample lands nearest to its own."""
    centers = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    data = []
    for _ in range(150):
        y = torch.randint(3, (64,))
        data.append((centers[y] + 0.1 * torch.randn(64, 2), y))
    network = {"name": "mlp", "width": 32, "depth": 1}
    settings = {"generator": network, "discriminator": network, "optimizer": CALM}
    model = make(POINTS, conditional=True, r1_gamma=0.1, ema_halflife_images=2000.0, **settings)
    fit(model, data)
    y = torch.arange(300) % 3
    nearest = torch.cdist(model.sample(300, condition=y), centers).argmin(1)
    assert (nearest == y).float().mean() > 0.95


# -- samples --


def seed(n):
    return torch.Generator().manual_seed(n)


def test_samples_depend_on_the_seed_alone():
    model = make()
    assert torch.equal(model.sample(5, generator=seed(3)), model.sample(5, generator=seed(3)))
    assert not torch.equal(model.sample(5, generator=seed(3)), model.sample(5, generator=seed(4)))
    assert model.sample(0).shape == (0, 1, 8, 8)


def test_images_lie_between_zero_and_one_and_vectors_anywhere():
    x = torch.rand(4, 1, 8, 8)
    model = make()
    torch.testing.assert_close(model.to_data_range(model.to_model_range(x)), x)
    assert float(model.to_model_range(x).min()) < 0
    samples = model.sample(64)
    assert 0 <= float(samples.min()) <= float(samples.max()) <= 1
    points = make(POINTS)
    torch.nn.init.constant_(points.generator_ema.average.network.layers[-1].bias, 40.0)
    assert float(points.sample(4).min()) > 30


def test_samples_come_from_the_average_unless_asked_otherwise():
    model = make(generator={**SMALL, "norm": "batch"})
    fit(model, batches(4))
    before, mode = weights(model.generator), model.generator.training
    model.train()
    average, live = (model.sample(6, generator=seed(0), ema=ema) for ema in (True, False))
    assert not torch.allclose(average, live)
    assert torch.equal(model.sample(1, generator=seed(0), ema=False), model.sample(1, generator=seed(0), ema=False))
    assert model.generator.training or not mode
    assert same(before, weights(model.generator))
    with torch.no_grad():
        for a, b in zip(model.generator_ema.average.parameters(), model.generator.parameters(), strict=True):
            a.copy_(b)
    torch.testing.assert_close(model.sample(6, generator=seed(0)), live)


@pytest.mark.parametrize("path", ["spherical", "linear"])
def test_walks_join_two_samples(path):
    model = make()
    walk = model.interpolate(3, 5, generator=seed(0), path=path)
    assert walk.shape == (3, 5, 1, 8, 8)
    generator = seed(0)
    start, end = (normal(3, 4, generator=generator) for _ in range(2))
    y = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(walk[:, 0], model.decode(start, y))
    torch.testing.assert_close(walk[:, -1], model.decode(end, y), rtol=1e-4, atol=1e-5)
    assert torch.equal(walk, model.interpolate(3, 5, generator=seed(0), path=path))


# -- validation and checkpoints --


def test_distances_are_logged_and_fall():
    target = 0.3 * torch.randn(64 * 100, 2) + torch.tensor([1.0, -1.0])
    data = [(x, torch.zeros(64, dtype=torch.long)) for x in target.split(64)]
    network = {"name": "mlp", "width": 32}
    model = make(
        POINTS, generator=network, discriminator=network, r1_gamma=0.1, optimizer=CALM, ema_halflife_images=1000.0
    )
    before = fit_and_validate(model, [], data[:4])
    after = fit_and_validate(model, data, data[:4])
    assert model.held_out == []
    assert after["val/fd"] < 0.1 < before["val/fd"]
    assert after["val/uncovered"] < 0.3 < 0.8 < before["val/uncovered"]
    assert model.monitor == "val/uncovered", "two numbers have the same mean and covariance soon"
    assert make().monitor == "val/fd"


def fit_and_validate(model, data, held_out):
    trainer = fit(model, data) if data else fit(model, held_out, steps=0)
    return trainer.validate(model, Loader(held_out), verbose=False)[0]


def test_checkpoint_round_trip(tmp_path):
    model = make(conditional=True, generator={**SMALL, "norm": "batch"}, discriminator={**SMALL, "spectral_norm": True})
    trainer = fit(model, batches(3))
    trainer.save_checkpoint(tmp_path / "gan.ckpt")
    saved = torch.load(tmp_path / "gan.ckpt", weights_only=True)
    assert len(saved["optimizer_states"]) == 2
    again = GAN(DataSpec.from_dict(saved["zoo"]["spec"]), **saved["hyper_parameters"])
    again.load_state_dict(saved["state_dict"])
    for ema in (True, False):
        a, b = (m.sample(4, generator=seed(0), ema=ema) for m in (model, again))
        assert torch.equal(a, b)
    assert again.generator_ema.seen == 48


def test_dashboard_shows_what_is_logged():
    model = make(r1_gamma=1.0, r2_gamma=1.0, gp_weight=1.0)
    trainer = fit(model, batches(2))
    trainer.validate(model, Loader(batches(2)), verbose=False)
    logged = set(trainer.logged_metrics) | {"train/loss_d", "train/loss_g"}
    trainer = fit(model, batches(2))
    logged |= set(trainer.logged_metrics)
    for tags in model.charts().values():
        assert set(tags) <= logged
    assert {"train/loss_d", "train/loss_g"} in [set(t) for t in model.charts().values()]


# -- recipes --


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", ["image", "wide", "vector"])
def test_recipes_train_on_any_data(name, kind):
    shape = {"image": (1, 8, 8), "wide": (3, 11, 20), "vector": (2,)}[kind]
    spec = DataSpec(Vector(*shape) if kind == "vector" else Image(*shape), Label(3), name=kind)
    networks = {"generator": "mlp", "discriminator": "mlp"} if kind == "vector" else {}
    model = zoo.create_model(name, data=spec, **networks)
    before = weights(model.generator)
    n_critic = model.hparams["n_critic"]
    fit(model, batches(n_critic, size=8, spec=spec))
    assert not same(before, weights(model.generator))
    assert all(p.isfinite().all() for p in model.parameters())
    samples = model.sample(2)
    assert samples.shape == (2, *shape)


def test_spectral_norms_of_sngan_are_one():
    model = zoo.create_model("sngan", data=IMAGE)
    fit(model, batches(3, size=8))
    x, y = batches(1, size=8)[0]
    model.train()
    with torch.no_grad():
        for _ in range(100):
            model.discriminator(x, y)
    layers = [m for m in model.discriminator.modules() if parametrize.is_parametrized(m)]
    assert model.discriminator.head in layers
    assert len(layers) == sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.discriminator.modules())
    for layer in layers:
        top = float(torch.linalg.svdvals(layer.weight.detach().flatten(1))[0])
        assert top == pytest.approx(1, abs=0.01)


def test_average_of_a_spectrally_normalised_generator():
    model = make(generator={**SMALL, "spectral_norm": True}, ema_halflife_images=100.0, optimizer={**ADAM, "lr": 1e-2})
    fit(model, batches(60))
    for layer in model.generator_ema.modules():
        if parametrize.is_parametrized(layer):
            assert float(torch.linalg.svdvals(layer.weight)[0]) == pytest.approx(1, abs=0.01)


def test_losses_at_a_zero_discriminator():
    """Through the whole model: constants of the games, and the loss of chance."""
    model = make()
    with torch.no_grad():
        for p in model.discriminator.head.parameters():
            p.zero_()
    terms = model.loss(batches(1)[0])
    assert float(terms["loss_d"]) == pytest.approx(2 * math.log(2), abs=1e-6)
    assert float(terms["loss_g"]) == pytest.approx(math.log(2), abs=1e-6)


def test_copies_train_alike():
    """The same seed gives the same training."""
    first = make(r1_gamma=1.0)
    second, data = copy.deepcopy(first), batches(3)
    for model in (first, second):
        torch.manual_seed(5)
        fit(model, data)
    assert same(weights(first), weights(second))


def test_spherical_paths_of_opposite_noise_stay_between_the_norms():
    angle = torch.linspace(math.pi - 1e-3, math.pi + 1e-3, 41)
    start = torch.tensor([3.0, 0.0]).expand(41, 1, 2)
    end = torch.stack([angle.cos(), angle.sin()], 1)[:, None]  # of norm one
    path = slerp(start, end, torch.linspace(0, 1, 21)[:, None])
    assert float(path.norm(dim=-1).max()) <= 3.001
    assert torch.allclose(path[:, 0], start[:, 0], atol=1e-4)
    assert torch.allclose(path[:, -1], end[:, 0], atol=1e-2)
    ninety = slerp(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]]), torch.tensor([[0.5]]))
    assert torch.allclose(ninety, 3 * torch.tensor([[[0.5**0.5, 0.5**0.5]]])), "half the angle, the mean norm"


def test_logits_are_single_precision_under_autocast_on_the_cpu():
    model, (x, y) = make(conditional=True), batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.discriminator(x, y).dtype == torch.float32


@pytest.mark.parametrize("spec", [IMAGE, POINTS])
@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_a_few_validation_samples_do_not_end_a_training(spec, number):
    model, held_out = make(spec), batches(1, size=number, spec=spec)
    trainer = L.Trainer(
        max_steps=2, max_epochs=-1, accelerator="cpu", num_sanity_val_steps=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, Loader(batches(1, spec=spec)), Loader(held_out))
    assert (model.monitor in trainer.callback_metrics) == (number > 1)
    if number > 1:
        assert math.isfinite(trainer.callback_metrics[model.monitor])


# -- top-k and truncation --


def test_the_generator_learns_from_the_best_fakes_alone(monkeypatch):
    """A share that falls linearly: the game on the largest logits, not on the smallest (negative control)."""
    model = make(top_k=0.25)
    logits = torch.tensor([3.0, -1.0, 2.0, 0.0, 5.0, 1.0, -2.0, 4.0])
    assert model.best(logits) == slice(None), "outside a training"
    monkeypatch.setattr(GAN, "attached_trainer", object())
    monkeypatch.setattr(GAN, "total_steps", 100)
    for step, k in ((0, 8), (50, 5), (100, 2), (200, 2)):
        monkeypatch.setattr(GAN, "step", step)
        assert set(model.best(logits).tolist()) == set(logits.argsort(descending=True)[:k].tolist())
    z = torch.randn(8, 4)
    monkeypatch.setattr(model, "latents", lambda n: z)
    batch = Batch(*batches(1, 8)[0])
    scores = model.discriminator(model.generator(z, batch.y), batch.y).sort(descending=True).values
    loss = model.generator_terms(batch)["loss_g"]
    torch.testing.assert_close(loss, torch.nn.functional.softplus(-scores[:2]).mean())
    assert not torch.isclose(loss, torch.nn.functional.softplus(-scores[-2:]).mean())
    model.eval()
    assert model.best(logits) == slice(None)


def test_the_share_reaches_its_end_in_a_training():
    model, seen = make(top_k=0.5), []
    best = model.best
    model.best = lambda logits: seen.append(len(logits[best(logits)])) or best(logits)
    fit(model, batches(10))
    assert seen[0] == 16
    assert seen[-1] == round(0.55 * 16)
    assert sorted(seen, reverse=True) == seen


@pytest.mark.parametrize("limit", [0.3, 1.0, 1.5])
def test_truncated_noise_has_the_moments_of_its_law(limit):
    """By scipy's truncated normal law; noise that is clamped has another variance (negative control)."""
    from scipy.stats import kstest, truncnorm

    z = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = truncate(z, limit)
    law = truncnorm(-limit, limit)
    assert found.abs().max() <= limit
    assert kstest(found.numpy(), law.cdf).pvalue > 1e-3
    assert kstest(z.clamp(-limit, limit).numpy(), law.cdf).pvalue < 1e-6
    assert torch.equal(found.argsort(), z.argsort())
    assert truncate(torch.tensor([40.0, -40.0]), limit).tolist() == pytest.approx([limit, -limit])


def test_truncation_is_an_option_of_sampling():
    model = make().eval()
    draws = [model.sample(8, generator=torch.Generator().manual_seed(0), truncation=t) for t in (0.0, 0.5, 30.0)]
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws[0], draws[2])
