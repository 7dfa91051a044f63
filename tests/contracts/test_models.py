"""The contract of every registered model, built-in or third-party: each test runs on every recipe.

A class meets every kind of data, and a further recipe of it one kind, in tests of losses and samples. In tests of what
recipes of a class share there is one recipe of it. `pytest -m slow` has the others.
"""

import math
from copy import deepcopy
from functools import cache
from inspect import signature

import pytest
import pytorch_lightning as L
import torch

import zoo
from tests.contracts.specs import (
    CASES,
    MODELS,
    PAIRS,
    RECIPES,
    SPECS,
    configured,
    examples,
    fitting,
    info_of,
    make,
    one_recipe_of_each_class,
    paired,
)
from zoo.core.registry import build
from zoo.core.spaces import Audio, Image
from zoo.data.batch import Batch
from zoo.data.loader import ShuffledSampler, TensorLoader, make_generator
from zoo.models.abilities import (
    SupportsInterpolation,
    SupportsLatents,
    SupportsLikelihood,
    SupportsLogProb,
    SupportsPosterior,
    SupportsPrior,
    SupportsSampling,
)
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import (
    SupportsColorization,
    SupportsEditing,
    SupportsFramePrediction,
    SupportsImageTranslation,
    SupportsInpainting,
    SupportsStyleTransfer,
    SupportsSuperResolution,
)
from zoo.runs.checkpoint import read_checkpoint, restore_model

CLASSES = one_recipe_of_each_class((name,) for name in MODELS)


def train(model: Model, batches: int, n: int = 16, **options: object) -> L.Trainer:
    """A short real training on the same n examples."""
    batch = examples(model.spec, n)
    loader = TensorLoader(lambda i, g: (batch.x[i], batch.y[i]), ShuffledSampler(n, 0), n, drop_last=True)
    trainer = L.Trainer(
        max_steps=model.optimizer_steps(batches), max_epochs=-1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(model, loader)
    return trainer


def minimised(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum the losses of all players."""
    return sum(v for k, v in terms.items() if k == "loss" or k.startswith("loss_"))


def trainable(model: Model) -> dict[str, torch.nn.Parameter]:
    """Return the trainable parameters by name; skip the test for a model that is fitted without gradients."""
    found = {k: p for k, p in model.named_parameters() if p.requires_grad}
    return found or pytest.skip("no trainable parameters")


@pytest.mark.parametrize(("name", "key"), paired(CASES))
def test_loss_is_finite_scalars(name: str, key: str) -> None:
    model = make(name, key)
    for n in (1, 5) if not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()) else (5,):
        terms = model.loss(examples(model.spec, n))
        assert any(k == "loss" or k.startswith("loss_") for k in terms)
        for term, value in terms.items():
            assert value.ndim == 0, term
            assert torch.isfinite(value), term


@pytest.mark.parametrize(("name", "key"), paired(CASES))
def test_every_parameter_gets_a_gradient(name: str, key: str) -> None:
    """Gradients are finite from the first step. Weights that start at zero may delay others by a step or two."""
    model = make(name, key)
    parameters = trainable(model)
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-3)
    batch, moved = examples(model.spec, 16), dict.fromkeys(parameters, False)
    for _ in range(3):
        optimizer.zero_grad()
        minimised(model.loss(batch)).backward()
        for k, p in parameters.items():
            assert p.grad is not None, f"{k} has no part in the loss"
            assert torch.isfinite(p.grad).all(), k
            moved[k] |= bool(p.grad.abs().max() > 0)
        optimizer.step()
    assert not [k for k, yes in moved.items() if not yes], "parameters without influence"


@pytest.mark.parametrize(("name", "key"), one_recipe_of_each_class(CASES))
def test_training_moves_every_parameter(name: str, key: str) -> None:
    model = make(name, key)
    before = {k: p.detach().clone() for k, p in trainable(model).items()}
    # Enough batches for the player that moves on every n-th one only.
    train(model, 3 * model.hparams.get("n_critic", 1))
    still = [k for k, p in model.named_parameters() if k in before and torch.equal(p, before[k])]
    assert not still


@pytest.mark.parametrize(("name", "key"), paired(CASES))
def test_equal_seeds_give_equal_samples(name: str, key: str) -> None:
    model = prepared(name, key)
    if not supports(model, SupportsSampling):
        pytest.skip("no samples")
    options = {"max_new_tokens": 8, "temperature": 1.0} if model.spec.text else {}
    with torch.no_grad():
        one, two, other = (model.sample(6, generator=make_generator(s), **options) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    if model.spec.text:
        assert one.dtype == torch.int64
        assert 0 <= one.min() <= one.max() < model.spec.tokens.vocab_size
    else:
        assert one.shape == (6, *model.spec.shape)
        assert torch.isfinite(one).all()
    if isinstance(model.spec.x, Image):
        assert 0 <= one.min() <= one.max() <= 1


@cache
def prepared(name: str, key: str) -> Model:
    """A small model of a recipe, after a short training."""
    return prepare(make(name, key))


def prepare(model: Model) -> Model:
    """Train briefly, to fit what sampling needs beyond weights, such as the density of an autoencoder's latents."""
    batch = examples(model.spec, 32)

    class Data(zoo.DataModule):
        spec = model.spec

        def load(self) -> None:
            self.train = self.val = self.test = tuple(batch)

    trainer = L.Trainer(
        max_steps=model.optimizer_steps(2), val_check_interval=2, check_val_every_n_epoch=None, max_epochs=-1,
        num_sanity_val_steps=0, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=Data(16, 0))
    return model.eval()


@pytest.mark.parametrize(("name", "key"), one_recipe_of_each_class(CASES))
def test_a_checkpoint_gives_back_the_same_model(name: str, key: str, tmp_path) -> None:
    model = prepared(name, key)
    path = tmp_path / "model.ckpt"
    model.trainer.save_checkpoint(path)
    again = restore_model(read_checkpoint(path))
    assert type(again) is type(model)
    assert again.spec == model.spec
    assert dict(again.hparams) == dict(model.hparams)
    if not supports(model, SupportsSampling):
        assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
        return
    options = {"max_new_tokens": 8} if model.spec.text else {}
    with torch.no_grad():
        assert torch.equal(
            model.sample(5, generator=make_generator(1), **options),
            again.sample(5, generator=make_generator(1), **options),
        )


# The surrogate of a policy gradient stays near zero: `tests/models/finetuning/test_dpo.py` solves a bandit instead.
# score_sde weighs all noise levels alike. Where the data hide the noise, its error stays one. The loss of drifting is
# constant by construction; `tests/models/diffusion/test_drifting.py` trains it. The targets of imf and
# meanflow contain the derivative of the network, which grows at this learning rate. Words that are drawn at random do
# not predict their neighbours, and `tests/models/embedding` compares optima with closed forms. The value of the loss of
# an rbm or of an energy model has no meaning; `tests/models/energy` trains them. The solver of ffjord makes 250 steps
# slow, and `tests/nn/flows/test_continuous.py` compares its gradients with closed forms. The density of deepar has no
# limit for values that are 0 or 1, and its loss jumps; `tests/models/autoregressive/test_deepar.py` trains it on a law.
# The last of two steps of tabddpm hides the data, so half of its error stays; `tests/models/test_tables.py` trains it.
# mae reaches .45 of its first loss. `tests/models/embedding/test_mae.py` trains it on a law.
CONSTANT = ("grpo", "ppo", "score_sde", "drifting", "imf", "meanflow", "word2vec", "fasttext", "glove", "rbm")
CONSTANT += ("tvae", "table_autoregressive", "ffjord", "energy", "deepar", "tabddpm", "mae")
FALLING = [n for n in MODELS if info_of(n).family != "adversarial" and n not in CONSTANT]


@pytest.mark.parametrize("name", one_recipe_of_each_class((name,) for name in FALLING))
def test_sixteen_examples_can_be_learned_by_heart(name: str) -> None:
    """The objective falls to a fraction on 16 black-and-white digits, or on 16 texts."""
    model = make(name, fitting(name)[0], small=False)
    x, y = examples(model.spec, 16)
    levels = x.is_floating_point() and not isinstance(model.spec.x, Audio)
    batch = Batch((x > 0.5).float() if levels else x, y)
    optimizer = torch.optim.Adam(trainable(model).values(), 5e-3)
    first = minimised(model.loss(batch)).item()
    for step in range(1, 251):
        optimizer.zero_grad()
        minimised(model.loss(batch)).backward()
        optimizer.step()
        if step % 25 == 0:
            last = sum(minimised(model.loss(batch)).item() for _ in range(5)) / 5
            if last < 0.4 * first:
                break
    assert last < 0.4 * first, f"{first:.2f} -> {last:.2f}"


@pytest.mark.parametrize(("name", "key"), paired(CASES))
def test_what_a_model_claims_to_do_it_does(name: str, key: str) -> None:
    model = prepared(name, key)
    x, y = examples(model.spec, 6)
    with torch.no_grad():
        if supports(model, SupportsLatents):
            z = model.encode(x, y)
            assert torch.equal(z, model.encode(x, y)), "encode must not be random"
            assert z.ndim == 2
            assert model.decode(z, y).shape == x.shape
            assert torch.equal(model.reconstruct(x, y), model.reconstruct(x, y))
        if supports(model, SupportsLogProb) and not model.spec.text:
            assert model.log_prob(x, y).shape == (6,)
        if supports(model, SupportsLikelihood) and not model.spec.text:
            assert all(one.value.shape == (6,) for k in (1, 3) for one in model.likelihoods(x, y, k=k))
        if supports(model, SupportsPosterior):
            mean, log_std = model.posterior(x, y)
            assert mean.shape == log_std.shape == model.encode(x, y).shape
        if supports(model, SupportsPrior):
            assert model.sample_prior(4, make_generator(0)).shape == (4, model.encode(x, y).shape[1])
        if supports(model, SupportsInterpolation):
            walks = [{}, {"between": x[:4]}] if "between" in signature(model.interpolate).parameters else [{}]
            for ends in walks:
                assert model.interpolate(2, 5, generator=make_generator(0), **ends).shape == (2, 5, *model.spec.shape)
        changes = {
            SupportsEditing: ("edit", (x,)),
            SupportsInpainting: ("inpaint", (x, torch.arange(x.numel()).view_as(x) % 3 == 0)),
            SupportsSuperResolution: ("super_resolve", (x[..., ::2, ::2],)),
            SupportsFramePrediction: ("predict_frames", (x[:, :1],)),
            SupportsColorization: ("colorize", (x[:, :1],)),
            SupportsStyleTransfer: ("stylize", (x, x.roll(1, 0))),
        }
        for ability, (method, given) in changes.items():
            if supports(model, ability):
                change = getattr(model, method)
                few = {"steps": 2} if "steps" in signature(change).parameters else {}
                first, again = (change(*given, generator=make_generator(0), **few) for _ in range(2))
                assert torch.equal(first, again)
                assert first.shape == x.shape
                model.spec.x.validate(first)
        if supports(model, SupportsImageTranslation):
            found, again = (model.translate(y, generator=make_generator(0)) for _ in range(2))
            assert torch.equal(found, again)
            assert found.shape == x.shape
            model.spec.x.validate(found)
            with pytest.raises(zoo.ZooError, match="not a batch of"):
                model.translate(y[..., 1:])
    if model.conditional:
        with pytest.raises(zoo.ZooError, match="condition"):
            model.sample(3, condition=torch.tensor([0, 1, model.spec.n_classes]))


@pytest.mark.parametrize("name", CLASSES)
def test_bfloat16_agrees_with_float32(name: str) -> None:
    model = make(name, fitting(name)[0]).eval()
    batch = examples(model.spec, 16)
    torch.manual_seed(0)
    exact = minimised(model.loss(batch)).item()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = minimised(model.loss(batch)).item()
    assert math.isclose(exact, rough, rel_tol=0.02, abs_tol=0.02)


def constants(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that are computed from settings; others are part of checkpoints."""
    saved = module.state_dict()
    return {name: value for name, value in module.named_buffers() if name not in saved}


@pytest.mark.parametrize("name", CLASSES)
def test_16_bits_leave_constants_unchanged(name: str) -> None:
    model = make(name, fitting(name)[0])
    before = {key: value.clone() for key, value in constants(model).items()}
    for dtype in (torch.bfloat16, torch.float16):
        after = constants(deepcopy(model).to(dtype))
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert torch.equal(after[key].double(), value.double()), key


@pytest.mark.parametrize("name", CLASSES)
def test_data_of_the_wrong_kind_is_refused(name: str) -> None:
    reader = configured(name, False, True)["first_stage"]["name"] if name in PAIRS else name
    accepted = info_of(reader).accepts
    for spec in SPECS.values():
        if spec.x.registered_name not in accepted:
            with pytest.raises(
                zoo.ZooError,
                match=f"learns .* but .* is {spec.x.registered_name}|learns text, not images. Take model=image_gpt|"
                "needs (images|vectors|sounds)",
            ):
                build("model", deepcopy(configured(name, False, True)), spec, where="model")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_is(name: str) -> None:
    info = info_of(name)
    assert 10 < len(info.summary) < 130
    assert info.family != "other"
    assert info.paper.startswith("https://") or "20" in info.summary or "19" in info.summary
    assert f"model={name}" in info.describe()
